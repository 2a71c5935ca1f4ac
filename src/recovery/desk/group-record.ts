/** What a group's desk must remember over a restart: a small file beside its log. */
import { join } from "node:path";
import { z } from "zod";
import { readFileIfAny, replaceFile } from "#kernel/durable-file.ts";
import { OperationalError } from "#kernel/errors.ts";

const schema = z.strictObject({
  format: z.literal(1),
  /** Writes under an older fencing epoch are refused. */
  epoch: z.int().nonnegative(),
  /** Moments that were asked to be served: kept until nobody has used them for a while. */
  served: z.array(
    z.strictObject({ volume: z.string(), sequence: z.int().nonnegative(), usedAt: z.number() }),
  ),
});

export type GroupRecord = z.output<typeof schema>;

export const emptyRecord: GroupRecord = { format: 1, epoch: 0, served: [] };

const pathIn = (folder: string): string => join(folder, "group.json");

/** Errors: `vault.damaged` when the file is not what was written. */
export async function readGroupRecord(folder: string): Promise<GroupRecord> {
  const text = await readFileIfAny(pathIn(folder));
  if (text === null) return emptyRecord;
  try {
    return schema.parse(JSON.parse(text));
  } catch (cause) {
    throw new OperationalError(
      "vault.damaged",
      `${pathIn(folder)} cannot be understood: remove it only after every site that was left has been fenced`,
      { cause },
    );
  }
}

export async function writeGroupRecord(folder: string, record: GroupRecord): Promise<void> {
  await replaceFile(pathIn(folder), JSON.stringify(record));
}
