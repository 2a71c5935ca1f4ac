/**
 * Statements that are durable before the database has them. A file of fixed length beside the database, written from its
 * start; each record is one batch. What it costs to make a batch durable is one write and one flush of that file, whatever tables and
 * indexes the statements touch; the database follows (`appended-calls.ts`). Once it has everything, and has flushed it, the
 * next record is written at the start again.
 *
 * A record begins at a multiple of 512 bytes (numbers are little endian):
 *
 *     0   8  "USREDO1\n"
 *     8   4  CRC-32 of everything from 12 to the payload's end
 *     12  4  length of the payload
 *     16  8  ordinal: of the batch, rising by one for ever
 *     24  8  which database the file belongs to
 *     32     payload: JSON, [[SQL or number, parameters ...] ...]; a number stands for the SQL that was the n-th to be written out
 *            since the start of the file
 *
 * The first record's ordinal is at most one above the last one that the database has; each next record's is one higher. The log ends
 * at the first record of which that is not so: what lies behind it is older, or was never acknowledged. A whole record of a
 * higher ordinal behind that end proves that something before it was damaged, since a batch is written when the one before it is durable.
 */
import {
  closeSync,
  constants,
  fchmodSync,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  openSync,
  readFileSync,
  writeSync,
} from "node:fs";
import { dirname } from "node:path";
import { crc32 } from "node:zlib";
import { OperationalError } from "#kernel/errors.ts";
import { invariant } from "#kernel/invariant.ts";
import type { Statement } from "./contract.ts";
import { flushDirectory } from "./wal-flush.ts";

const magic = Buffer.from("USREDO1\n");
const headerBytes = 32;
const sector = 512;
/** Some 10,000 batches of one command. */
export const redoBytes = 16 * 1024 * 1024;

export const redoPathOf = (path: string): string => `${path}-redo`;

export type RedoValue = string | number | null;
export interface RedoStatement {
  readonly sql: string;
  readonly parameters: readonly RedoValue[];
}
export interface RedoBatch {
  readonly ordinal: number;
  readonly statements: readonly RedoStatement[];
}

/** 16 hexadecimal digits, made at random with the database. */
export type RedoOwner = string;

export class RedoLog {
  readonly file: number;
  readonly path: string;
  readonly #owner: Buffer;
  #at = 0;
  #ordinal: number;
  #buffer = Buffer.alloc(64 * 1024);
  /** By their SQL, the numbers of statements that were written out since the start of the file. */
  #known = new Map<string, number>();

  private constructor(file: number, path: string, owner: RedoOwner, applied: number) {
    this.file = file;
    this.path = path;
    this.#owner = Buffer.from(owner, "hex");
    this.#ordinal = applied;
  }

  /**
   * For a log of which the database has everything, up to the batch `applied`. The room is taken now, so that a flush has nothing but data
   * to write. Throws the system's error where there is none, and leaves an empty file then: that there is one says that nothing is lost.
   */
  static open(path: string, owner: RedoOwner, applied: number): RedoLog {
    const file = openSync(path, constants.O_RDWR | constants.O_CREAT, 0o600);
    try {
      fchmodSync(file, 0o600);
      if (fstatSync(file).size !== redoBytes) takeRoom(file, path);
      return new RedoLog(file, path, owner, applied);
    } catch (error) {
      ftruncateSync(file, 0);
      closeSync(file);
      throw error;
    }
  }

  /** Where the next record begins. */
  get end(): number {
    return this.#at;
  }

  /** False if there is no room: nothing was written then. Not durable before the file is flushed. */
  write(calls: readonly (readonly Statement[])[]): boolean {
    const fresh = new Map<string, number>();
    const payload = JSON.stringify(
      calls.flatMap((statements) => statements.map((one) => this.#encode(one, fresh))),
    );
    const length = Buffer.byteLength(payload);
    const end = Math.ceil((headerBytes + length) / sector) * sector;
    if (this.#at + end > redoBytes) return false;
    if (this.#buffer.length < end) this.#buffer = Buffer.alloc(end);
    const record = this.#buffer;
    magic.copy(record);
    record.writeUInt32LE(length, 12);
    record.writeBigUInt64LE(BigInt(this.#ordinal + 1), 16);
    this.#owner.copy(record, 24);
    record.write(payload, headerBytes);
    record.writeUInt32LE(crc32(record.subarray(12, headerBytes + length)), 8);
    record.fill(0, headerBytes + length, end);
    writeAll(this.file, record.subarray(0, end), this.#at);
    this.#at += end;
    this.#ordinal += 1;
    for (const [sql, number] of fresh) this.#known.set(sql, number);
    return true;
  }

  /** Once the database has everything durably: the next record is written at the start. */
  startOver(): void {
    this.#at = 0;
    if (this.#known.size > 0) this.#known = new Map();
  }

  close(): void {
    closeSync(this.file);
  }

  /** `fresh`: what is written out in this record. */
  #encode({ query, expectRows }: Statement, fresh: Map<string, number>): readonly RedoValue[] {
    invariant(expectRows === 1, "what is appended to the store touches one row each");
    for (const value of query.parameters) {
      invariant(
        value === null || typeof value === "string" || typeof value === "number",
        "what is appended to the store consists of texts, numbers and nulls",
      );
    }
    const values = query.parameters as readonly RedoValue[];
    const known = this.#known.get(query.sql) ?? fresh.get(query.sql);
    if (known !== undefined) return [known, ...values];
    fresh.set(query.sql, this.#known.size + fresh.size);
    return [query.sql, ...values];
  }
}

function takeRoom(file: number, path: string): void {
  const zeros = Buffer.alloc(1024 * 1024);
  ftruncateSync(file, 0);
  for (let at = 0; at < redoBytes; at += zeros.length) writeAll(file, zeros, at);
  fsyncSync(file);
  flushDirectory(dirname(path));
}

function writeAll(file: number, bytes: Buffer, at: number): void {
  for (let done = 0; done < bytes.length;) {
    done += writeSync(file, bytes, done, bytes.length - done, at + done);
  }
}

/**
 * The batches that the database has not got, in order, once it has those up to `applied`.
 * Errors: `store.failing` where acknowledged batches are missing or may be, or the file is another database's.
 */
export function readRedoLog(path: string, owner: RedoOwner, applied: number): readonly RedoBatch[] {
  let bytes: Buffer;
  try {
    bytes = readFileSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    if (applied === 0) return [];
    throw new OperationalError(
      "store.failing",
      `${path} is missing: commands that were acknowledged may be in it alone. Put back the database and this file of the same moment; if the engine had been stopped in order, or the file is lost, make an empty one in its place to go on`,
    );
  }
  // Before its first record it gets its full length.
  if (bytes.length < redoBytes && recordAt(bytes, 0) !== undefined) {
    throw broken(path, `has ${bytes.length} bytes instead of ${redoBytes}`);
  }
  const head = bytes.subarray(0, magic.length);
  if (!head.equals(magic.subarray(0, head.length)) && head.some((byte) => byte !== 0)) {
    throw broken(path, "is no redo log");
  }
  return missingBatches(bytes, path, owner, applied);
}

/** The same of the file's content; `path` is for errors. */
export function missingBatches(
  bytes: Buffer,
  path: string,
  owner: RedoOwner,
  applied: number,
): readonly RedoBatch[] {
  const batches: RedoBatch[] = [];
  const texts: string[] = [];
  let at = 0;
  for (let expected: number | undefined; ;) {
    const found = recordAt(bytes, at);
    if (found !== undefined && found.owner !== owner) throw broken(path, "belongs to another database");
    if (found === undefined || (expected !== undefined && found.ordinal !== expected)) break;
    if (found.ordinal > applied + 1 && expected === undefined) {
      throw broken(path, `begins with batch ${found.ordinal}, and the database ends with batch ${applied}`);
    }
    batches.push({ ordinal: found.ordinal, statements: decode(found.payload, texts) });
    expected = found.ordinal + 1;
    at = found.end;
  }
  const last = Math.max(applied, batches.at(-1)?.ordinal ?? 0);
  for (let later = at; later < bytes.length; later += sector) {
    const found = recordAt(bytes, later);
    if (found !== undefined && found.owner === owner && found.ordinal > last) {
      throw broken(path, `is damaged at byte ${at}: batch ${found.ordinal} stands behind it`);
    }
  }
  return batches.filter(({ ordinal }) => ordinal > applied);
}

interface Raw {
  readonly owner: RedoOwner;
  readonly ordinal: number;
  readonly payload: Buffer;
  readonly end: number;
}

/** Whole records, as they were written; `texts` holds the SQL that was written out before them, and takes theirs. */
export function decodePart(bytes: Buffer, texts: string[]): readonly RedoBatch[] {
  const batches: RedoBatch[] = [];
  for (let at = 0; at < bytes.length;) {
    const found = recordAt(bytes, at);
    invariant(found !== undefined, "what was written to the redo log is there");
    batches.push({ ordinal: found.ordinal, statements: decode(found.payload, texts) });
    at = found.end;
  }
  return batches;
}

/** One call that brings the database up to the last of these batches. */
export function redoCall(batches: readonly RedoBatch[]): readonly Statement[] {
  const last = batches.at(-1);
  invariant(last !== undefined, "there is something to redo");
  const mark = { sql: `update "redo" set "applied" = ?`, parameters: [last.ordinal] };
  return [...batches.flatMap(({ statements }) => statements), mark].map((query) => ({
    query,
    expectRows: 1,
  }));
}

function recordAt(bytes: Buffer, at: number): Raw | undefined {
  if (at + headerBytes > bytes.length || magic.compare(bytes, at, at + magic.length) !== 0) return undefined;
  const length = bytes.readUInt32LE(at + 12);
  const until = at + headerBytes + length;
  if (until > bytes.length || crc32(bytes.subarray(at + 12, until)) !== bytes.readUInt32LE(at + 8)) {
    return undefined;
  }
  const owner = bytes.toString("hex", at + 24, at + headerBytes);
  const ordinal = Number(bytes.readBigUInt64LE(at + 16));
  const payload = bytes.subarray(at + headerBytes, until);
  return { ordinal, owner, payload, end: Math.ceil(until / sector) * sector };
}

function decode(payload: Buffer, texts: string[]): readonly RedoStatement[] {
  const rows = JSON.parse(payload.toString()) as (readonly [string | number, ...RedoValue[]])[];
  return rows.map(([name, ...parameters]) => {
    if (typeof name === "string") texts.push(name);
    const sql = typeof name === "string" ? name : texts[name];
    invariant(sql !== undefined, "redo log: SQL is written out before it is referred to");
    return { sql, parameters };
  });
}

function broken(path: string, what: string): OperationalError {
  return new OperationalError(
    "store.failing",
    `${path} ${what}: acknowledged commands are missing. Put back the database and this file of the same moment; to go on without those commands, move this file away`,
  );
}
