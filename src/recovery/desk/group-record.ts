/** What a group's desk must remember over a restart: a small file beside its log. */
import { randomBytes } from "node:crypto";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { readFileIfAny, replaceFile } from "#kernel/durable-file.ts";
import { OperationalError } from "#kernel/errors.ts";

const served = z.strictObject({
  volume: z.string(),
  sequence: z.int().nonnegative(),
  usedAt: z.number(),
  /** Who has pinned it: which disk takes its content from there. */
  pins: z.array(z.strictObject({ site: z.string(), volumeId: z.string(), since: z.number() })).default([]),
});

/** The last whole moment, held by points since the log's window has left it behind. */
const held = z.strictObject({
  sequence: z.int().nonnegative(),
  at: z.number(),
  /** Volume -> the point that holds it. */
  disks: z.record(z.string(), z.string()),
});

const schema = z.strictObject({
  format: z.literal(1),
  /**
   * Made with the folder, and gone with it. Whoever captured into another folder knows from it that this one lacks what went there, and copies
   * the whole disk again.
   */
  history: z.string().default(""),
  /** Writes under an older fencing epoch are refused. */
  epoch: z.int().nonnegative(),
  /** Moments that were asked to be served, and are not let go yet. */
  served: z.array(served),
  held: held.nullable().default(null),
});

export type GroupRecord = z.output<typeof schema>;
export type ServedRecord = z.output<typeof served>;

const pathIn = (folder: string): string => join(folder, "group.json");

/** The record and the one way to change it. */
export class GroupRecordFile {
  readonly #folder: string;
  #current: GroupRecord;
  #writing: Promise<unknown> = Promise.resolve();

  private constructor(folder: string, current: GroupRecord) {
    this.#folder = folder;
    this.#current = current;
  }

  /**
   * Made where there is neither it nor a log: a log alone is one of a version that did not write it at once. Errors: `vault.damaged` when
   * the file is not what was written.
   */
  static async open(folder: string): Promise<GroupRecordFile> {
    const found = await readGroupRecord(folder);
    if (found !== null) return new GroupRecordFile(folder, found);
    if (await hasSegments(folder)) return new GroupRecordFile(folder, { ...freshRecord(), history: "" });
    const file = new GroupRecordFile(folder, freshRecord());
    await file.change(() => ({}));
    return file;
  }

  /** For a log that was brought back: of another history, and else as it was where that is known. */
  static async begin(folder: string, before: GroupRecord | null): Promise<void> {
    const { history } = freshRecord();
    await new GroupRecordFile(folder, before ?? freshRecord()).change(() => ({ history }));
  }

  /** As it is on the disk. */
  get current(): GroupRecord {
    return this.#current;
  }

  /** One after the other, each over what the one before made: what is decided is decided on what is in force then. */
  change(of: (record: GroupRecord) => Partial<GroupRecord>): Promise<void> {
    const done = this.#writing.then(async () => {
      const next = { ...this.#current, ...of(this.#current) };
      await replaceFile(pathIn(this.#folder), JSON.stringify(next));
      this.#current = next;
    });
    this.#writing = done.catch(() => {});
    return done;
  }

  /** Resolves when nothing is being written. */
  async settled(): Promise<void> {
    await this.#writing;
  }
}

function freshRecord(): GroupRecord {
  return { format: 1, history: randomBytes(8).toString("hex"), epoch: 0, served: [], held: null };
}

async function hasSegments(folder: string): Promise<boolean> {
  const names = await readdir(join(folder, "log")).catch((error: unknown) => {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw error;
  });
  return names.some((name) => name.endsWith(".seg"));
}

/** Null: there is none. Errors: `vault.damaged`. */
export async function readGroupRecord(folder: string): Promise<GroupRecord | null> {
  const text = await readFileIfAny(pathIn(folder));
  if (text === null) return null;
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
