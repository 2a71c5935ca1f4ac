/**
 * What the vault holds of a volume, as one hash for each block: how an agent that begins learns what need not be sent. Runs of blocks,
 * each `0, count` for blocks of zeroes or `1, count, hashes`; counts in four bytes, big-endian.
 */
import { createHash } from "node:crypto";
import { OperationalError } from "#kernel/errors.ts";

export const leafBytes = 32;
/** Blocks of one answer: 16 GiB of disk, 2 MiB of hashes. */
export const maxLeaves = 65_536;

export interface LeafRun {
  readonly blocks: number;
  /** Null: zeroes. Else `leafBytes` for each block. */
  readonly leaves: Buffer | null;
}

/** Of the block's content; a volume's last block may be shorter than the others. */
export function leafOf(content: Uint8Array): Buffer {
  return createHash("sha256").update(content).digest();
}

export function encodeLeafRuns(runs: readonly LeafRun[]): Buffer {
  return Buffer.concat(
    runs.flatMap(({ blocks, leaves }) => {
      const head = Buffer.alloc(5);
      head[0] = leaves === null ? 0 : 1;
      head.writeUInt32BE(blocks, 1);
      return leaves === null ? [head] : [head, leaves];
    }),
  );
}

/** Exactly `blocks` blocks. Errors: `cloud.protocol`. */
export function decodeLeafRuns(bytes: Buffer, blocks: number): readonly LeafRun[] {
  const runs: LeafRun[] = [];
  let at = 0;
  let known = 0;
  while (at < bytes.length) {
    if (at + 5 > bytes.length) throw broken();
    const kind = bytes[at];
    const count = bytes.readUInt32BE(at + 1);
    const length = kind === 1 ? count * leafBytes : 0;
    at += 5;
    known += count;
    if ((kind !== 0 && kind !== 1) || count === 0 || known > blocks || at + length > bytes.length)
      throw broken();
    runs.push({ blocks: count, leaves: kind === 0 ? null : bytes.subarray(at, at + length) });
    at += length;
  }
  if (known !== blocks) throw broken();
  return runs;
}

function broken(): OperationalError {
  return new OperationalError("cloud.protocol", "the vault's answer on what it holds cannot be understood");
}
