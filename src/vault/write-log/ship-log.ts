/** Ended segments go to the vault's store as they are: encrypted, whole, under names that say which records they hold. */
import type { Clock } from "#kernel/clock.ts";
import { OperationalError, publicMessage } from "#kernel/errors.ts";
import type { BlobStorage } from "#vault/storage/blob-storage.ts";
import { logDamaged } from "./log-damage.ts";
import type { Segment } from "./segment-shelf.ts";
import type { WriteLog } from "./write-log.ts";

const digits = (sequence: number): string => String(sequence).padStart(16, "0");

export const shippedPrefix = (group: string): string => `log/${group}/`;

/**
 * An empty segment's last record is the one before its first. A disk that is full leaves several of them, one after the other and all with the
 * same first record: their numbers tell them apart.
 */
function shippedName(
  group: string,
  { header: { firstSequence, number }, end: { nextSequence } }: Segment,
): string {
  const records = `${shippedPrefix(group)}${digits(firstSequence)}-${digits(nextSequence - 1)}`;
  return nextSequence > firstSequence ? records : `${records}-${digits(number)}`;
}

export interface ShippedRange {
  readonly first: number;
  readonly last: number;
}

export function parseShippedName(group: string, name: string): ShippedRange | undefined {
  const match = /^(\d{16})-(\d{16})(-\d{16})?$/.exec(name.slice(shippedPrefix(group).length));
  return match === null ? undefined : { first: Number(match[1]), last: Number(match[2]) };
}

async function readWhole(log: WriteLog, segment: Segment): Promise<Buffer> {
  const bytes = Buffer.allocUnsafe(segment.end.position);
  const got = await log.shelf.withFile(segment, (file) => file.read(bytes, 0));
  if (got < bytes.length) throw logDamaged(segment.name, got, `it should be ${bytes.length} bytes long`);
  return bytes;
}

export class LogShipper implements AsyncDisposable {
  readonly #log: WriteLog;
  readonly #storage: BlobStorage;
  readonly #clock: Clock;
  readonly #stop = new AbortController();
  #shippedSequence = 0;
  #running: Promise<void> | undefined;
  #again = false;
  #lastError: string | undefined;

  private constructor(log: WriteLog, storage: BlobStorage) {
    this.#log = log;
    this.#storage = storage;
    this.#clock = log.clock;
  }

  /**
   * Ships what has ended, from now on whenever a segment ends. Errors: those of the store, and `vault.damaged` when the store holds records that
   * the log does not: the log's folder is an older one. `state.conflict` when they are of another log.
   */
  static async open(log: WriteLog, storage: BlobStorage, signal?: AbortSignal): Promise<LogShipper> {
    const shipper = new LogShipper(log, storage);
    for await (const { name } of storage.list(shippedPrefix(log.group), signal)) {
      const last = parseShippedName(log.group, name)?.last ?? 0;
      shipper.#shippedSequence = Math.max(shipper.#shippedSequence, last);
    }
    if (shipper.#shippedSequence > log.lastRecord.sequence)
      throw new OperationalError(
        "vault.damaged",
        `the write log of ${log.group} ends at record ${log.lastRecord.sequence}, and the store holds records up to ` +
          `${shipper.#shippedSequence}: the log's newest part is missing. Stop the vault, then: understudy vault restore-log ${log.group}`,
      );
    const first = log.shelf.segments[0]?.header;
    const isAfter = first !== undefined && first.firstSequence > shipper.#shippedSequence;
    if (shipper.#shippedSequence > 0 && first?.number === 1 && isAfter)
      throw new OperationalError(
        "state.conflict",
        `the write log of ${log.group} was begun anew, and the store holds an earlier one. Stop the vault, then: understudy vault restore-log ${log.group}`,
      );
    log.onSegmentEnded = () => shipper.#kick();
    shipper.#kick();
    return shipper;
  }

  /** Everything up to here is in the store. */
  get shippedSequence(): number {
    return this.#shippedSequence;
  }

  /** Why the last attempt failed; undefined after one that did not. */
  get lastError(): string | undefined {
    return this.#lastError;
  }

  /** Resolves when everything captured before the call is in the store. Errors: those of a log that does not take it. */
  async shipAll(signal?: AbortSignal): Promise<void> {
    await this.#log.flush();
    const { sequence } = this.#log.lastRecord;
    await this.#log.endSegment();
    while (this.#shippedSequence < sequence) {
      signal?.throwIfAborted();
      this.#stop.signal.throwIfAborted();
      if (this.#log.failed !== undefined) throw this.#log.failed;
      this.#kick();
      await this.#running;
      // Its segment has not ended: the disk is full, or the log is just ending it.
      if (this.#shippedSequence < sequence) await this.#clock.sleep(250, signal ?? this.#stop.signal);
    }
  }

  /** Takes the shipped form of a segment away that the window no longer needs. */
  async remove(segment: Segment, signal?: AbortSignal): Promise<void> {
    await this.#storage.delete(shippedName(this.#log.group, segment), signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    this.#log.onSegmentEnded = () => {};
    await this.#running;
  }

  #kick(): void {
    this.#again = true;
    this.#running ??= this.#run().finally(() => {
      this.#running = undefined;
    });
  }

  /** Oldest first. What fails is tried again after a while: the order is never broken. */
  async #run(): Promise<void> {
    let waitMs = 250;
    while (this.#again && !this.#stop.signal.aborted) {
      this.#again = false;
      try {
        await this.#shipEnded();
        this.#lastError = undefined;
        waitMs = 250;
      } catch (error) {
        if (this.#stop.signal.aborted) return;
        this.#lastError = publicMessage(error);
        this.#again = true;
        await this.#clock.sleep(waitMs, this.#stop.signal).catch(() => {});
        waitMs = Math.min(waitMs * 2, 10_000);
      }
    }
  }

  async #shipEnded(): Promise<void> {
    const { shelf, group } = this.#log;
    for (const segment of shelf.segments.slice()) {
      const last = segment.end.nextSequence - 1;
      if (!segment.ended || this.#isShipped(segment)) continue;
      this.#stop.signal.throwIfAborted();
      const release = shelf.lease(segment.header.number);
      try {
        if (shelf.get(segment.header.number) === undefined) continue;
        const bytes = await readWhole(this.#log, segment);
        await this.#storage.put(shippedName(group, segment), [bytes], this.#stop.signal);
        this.#shipped.add(segment.header.number);
        this.#shippedSequence = Math.max(this.#shippedSequence, last);
      } finally {
        release();
      }
    }
  }

  /** Numbers of segments shipped by this process; an earlier one's are told by their records. */
  readonly #shipped = new Set<number>();

  #isShipped(segment: Segment): boolean {
    const last = segment.end.nextSequence - 1;
    const empty = last < segment.header.firstSequence;
    return this.#shipped.has(segment.header.number) || (last <= this.#shippedSequence && !empty);
  }
}
