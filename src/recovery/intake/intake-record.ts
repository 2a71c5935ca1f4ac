/** What the vault must remember of an agent over a restart: a small file beside the parts that it has staged. */
import { join } from "node:path";
import { z } from "zod";
import { readParsedIfAny, replaceFile } from "#kernel/durable-file.ts";
import { OperationalError } from "#kernel/errors.ts";
import { passPoint } from "#wire/agent/intake-calls.ts";

const schema = z.strictObject({
  format: z.literal(1),
  /** The agent's own name for what it sends; another one begins from the start. */
  stream: z.string(),
  /** Of the environment when the stream began: under a later one, nothing of it is taken. */
  epoch: z.int().nonnegative(),
  /** Of the vault's folder that it went into: another one lacks all of it. */
  history: z.string().default(""),
  /** What it sends. */
  volumes: z.array(z.string()),
  /** Parts up to this number are in the write log. */
  applied: z.int().nonnegative(),
  /** The last pass that became a moment. */
  point: passPoint.nullable(),
});

export type IntakeRecord = z.output<typeof schema>;

const pathIn = (folder: string): string => join(folder, "stream.json");

/** Null: the agent never began. Errors: `vault.damaged` when the file is not what was written. */
export function readIntakeRecord(folder: string): Promise<IntakeRecord | null> {
  return readParsedIfAny(
    pathIn(folder),
    (text) => schema.parse(JSON.parse(text)),
    (cause) =>
      new OperationalError(
        "vault.damaged",
        `${pathIn(folder)} cannot be understood: remove its folder, and the agent compares its disks with the vault anew`,
        { cause },
      ),
  );
}

export async function writeIntakeRecord(folder: string, record: IntakeRecord): Promise<void> {
  await replaceFile(pathIn(folder), JSON.stringify(record));
}
