/** The host agent's own records: JSON with a `format` that says which version wrote it. */
import { readParsedIfAny } from "#kernel/durable-file.ts";
import { OperationalError } from "#kernel/errors.ts";

/** Null: there is none. Errors: `store.version`; `store.failing`, also when it is damaged. */
export async function readVersioned<T extends { readonly format: number }>(
  path: string,
  format: T["format"],
): Promise<T | null> {
  const damaged = (cause: unknown): OperationalError =>
    new OperationalError("store.failing", `${path} is damaged`, { cause });
  const record = await readParsedIfAny(path, (text) => ({ read: JSON.parse(text) as T | null }), damaged);
  if (record === null) return null;
  if (record.read?.format !== format) {
    throw new OperationalError("store.version", `${path} was written by another version of Understudy`);
  }
  return record.read;
}
