import { OperationalError } from "#kernel/errors.ts";

/** What is wrong, where. `position` in bytes from the file's start. */
export function logDamaged(file: string, position: number, what: string): OperationalError {
  return new OperationalError(
    "vault.damaged",
    `write log: ${file} is damaged at byte ${position}: ${what}. Moments before it can still be opened`,
  );
}

export function logKeyWrong(folder: string): OperationalError {
  return new OperationalError("vault.key", `the key does not open the write log in ${folder}`);
}
