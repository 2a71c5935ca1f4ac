import { randomBytes } from "node:crypto";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { dirname } from "node:path";
import { OperationalError } from "#kernel/errors.ts";
import { Secret } from "#kernel/secret.ts";

/** The secret in the file, which only its owner can read; made at first use. */
export async function openSecretFile(path: string): Promise<Secret> {
  try {
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    await writeFile(path, `${randomBytes(30).toString("base64url")}\n`, { mode: 0o600, flag: "wx" });
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code !== "EEXIST") {
      throw new OperationalError(
        code === "ENOSPC" || code === "EDQUOT" ? "store.full" : "store.failing",
        `${path} cannot be written (${code ?? message}): choose another data directory, or make room in it`,
        { cause: error },
      );
    }
  }
  return new Secret((await readFile(path, "utf8")).trim());
}
