/** What an agent must remember over its restart, beside its leaves and its spool. */
import { join } from "node:path";
import { z } from "zod";
import { readParsedIfAny, replaceFile } from "#kernel/durable-file.ts";
import { OperationalError } from "#kernel/errors.ts";
import { passPoint } from "#wire/agent/intake-calls.ts";

const schema = z.strictObject({
  format: z.literal(1),
  stream: z.string(),
  /** Of the environment when the stream began; null: the vault has not answered yet. */
  epoch: z.int().nonnegative().nullable(),
  /** The environment's epoch when the stream before this one began: it must not have risen since. */
  after: z.int().nonnegative().nullable(),
  volumes: z.array(z.string()),
  /** Volume -> blocks whose leaves have come from the vault. */
  compared: z.record(z.string(), z.int().nonnegative()),
  /** All of them have. */
  ready: z.boolean(),
  /** Parts up to this number are durable at the vault. */
  acknowledged: z.int().nonnegative(),
  /** The last pass that was begun. */
  pass: z.int().nonnegative(),
  /** The last pass that became a moment at the vault. */
  point: passPoint.nullable(),
});

export type StreamRecord = z.output<typeof schema>;

const pathIn = (folder: string): string => join(folder, "stream.json");

/** Null: nothing was begun. Errors: `store.failing` when the file is not what was written. */
export function readStreamRecord(folder: string): Promise<StreamRecord | null> {
  return readParsedIfAny(
    pathIn(folder),
    (text) => schema.parse(JSON.parse(text)),
    (cause) =>
      new OperationalError(
        "store.failing",
        `${pathIn(folder)} cannot be understood: remove the folder, and the agent compares its disks with the vault anew`,
        { cause, retry: "never" },
      ),
  );
}

export async function writeStreamRecord(folder: string, record: StreamRecord): Promise<void> {
  await replaceFile(pathIn(folder), JSON.stringify(record));
}
