import { OperationalError } from "#kernel/errors.ts";

/** Stored bytes that are not what was written. `where` names the object; `what` says what is wrong with it. */
export function damaged(where: string, what: string, cause?: unknown): OperationalError {
  return new OperationalError("vault.damaged", `the vault is damaged: ${where} ${what}`, { cause });
}
