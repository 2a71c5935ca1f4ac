/** The operator's API token: made at the first start, in a file of the data folder that its user alone may read. */
import { chmodSync, mkdirSync } from "node:fs";
import { join } from "node:path";
import type { Random } from "#kernel/random.ts";
import { Secret } from "#kernel/secret.ts";
import { storeError } from "#store/sqlite-errors.ts";
import { readFileIfAny, replaceFile } from "#kernel/durable-file.ts";

/** Makes the data folder where it is missing. Errors: `store.full`, `store.failing`. */
export async function openOperatorToken(data: string, fileName: string, random: Random): Promise<Secret> {
  const path = join(data, fileName);
  makeDataFolder(data);
  // An empty file is what a full disk left of an earlier start: as good as none.
  const known = (await readFileIfAny(path))?.trim();
  if (known === undefined || known === "") {
    const token = random.hex(32);
    await replaceFile(path, `${token}\n`);
    return new Secret(token);
  }
  try {
    chmodSync(path, 0o600);
  } catch (error) {
    throw storeError(error, path);
  }
  return new Secret(known);
}

/** Errors: `store.full`, `store.failing`. */
export function makeDataFolder(data: string): void {
  try {
    mkdirSync(data, { recursive: true, mode: 0o700 });
  } catch (error) {
    throw storeError(error, data);
  }
}
