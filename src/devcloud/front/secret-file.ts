import { randomBytes } from "node:crypto";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { dirname } from "node:path";
import { Secret } from "#kernel/secret.ts";

/** The secret in the file, which only its owner can read; made at first use. */
export async function openSecretFile(path: string): Promise<Secret> {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  try {
    await writeFile(path, `${randomBytes(30).toString("base64url")}\n`, { mode: 0o600, flag: "wx" });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
  }
  return new Secret((await readFile(path, "utf8")).trim());
}
