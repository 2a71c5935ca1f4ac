/** Opening a write log: what is there, where it ends, and the index of what no point holds yet. */
import { OperationalError } from "#kernel/errors.ts";
import { invariant } from "#kernel/invariant.ts";
import { lastBeforeResumed } from "./after-loss.ts";
import { applyRecord, applyResize } from "./apply-record.ts";
import { ExtentIndex } from "./extent-index.ts";
import type { LiveVolume } from "./live-volume.ts";
import { logDamaged } from "./log-damage.ts";
import { applyEvent, type LogVolume, loseTouch } from "./log-event.ts";
import type { CommittedPoint } from "./point-store.ts";
import type { ScannedFrame, SegmentEnd } from "./scan-segment.ts";
import type { LogHead } from "./segment-appender.ts";
import { type LogRecord, recordKind } from "./segment-format.ts";
import { openSegmentShelf, type Segment, type SegmentShelf } from "./segment-shelf.ts";
import { type OpenedLog, type OpenWriteLogOptions, WriteLog } from "./write-log.ts";

const groupName = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,99}$/;

/** Volumes as of the log's end: from the last segment that says so. */
async function readTable(
  shelf: SegmentShelf,
  signal: AbortSignal | undefined,
): Promise<Map<number, LogVolume>> {
  const table = new Map<number, LogVolume>();
  for (const segment of shelf.segments.slice().reverse()) {
    let opened = false;
    await shelf.scan(
      segment,
      "directory",
      (frame) => {
        opened ||= frame.opening !== undefined;
        for (const volume of frame.opening?.volumes ?? []) table.set(volume.index, volume);
        for (const [sequence, event] of frame.events)
          if (!applyEvent(table, event, sequence))
            throw logDamaged(
              segment.name,
              frame.position,
              `event ${sequence} does not fit what was before it`,
            );
      },
      signal,
    );
    if (opened) return table;
  }
  return table;
}

/** The newest committed point of each volume that the log goes on from. Errors: `vault.damaged` if one is newer than the log. */
async function readBases(
  options: OpenWriteLogOptions,
  shelf: SegmentShelf,
  table: ReadonlyMap<number, LogVolume>,
  lastSequence: number,
): Promise<Map<number, CommittedPoint | undefined>> {
  const bases = new Map<number, CommittedPoint | undefined>();
  for (const volume of table.values()) {
    const points = await options.points.list(options.group, volume.id, options.signal);
    const isBeyond = (points.at(-1)?.sequence ?? 0) > lastSequence;
    const newest =
      isBeyond && options.afterLoss !== true
        ? points.at(-1)
        : points.findLast(({ sequence }) => sequence <= lastSequence && !shelf.isLost(sequence));
    if (newest !== undefined && newest.sequence > lastSequence)
      throw new OperationalError(
        "vault.damaged",
        `the write log of ${options.group} ends at record ${lastSequence}, and a point of ${volume.id} holds record ` +
          `${newest.sequence}: the log's newest part is missing. Stop the vault, then: understudy vault restore-log ${options.group}`,
      );
    bases.set(volume.index, newest !== undefined && newest.sequence >= volume.added ? newest : undefined);
  }
  return bases;
}

/** The index of what came after each volume's base. */
async function readIndexes(
  shelf: SegmentShelf,
  table: ReadonlyMap<number, LogVolume>,
  bases: ReadonlyMap<number, CommittedPoint | undefined>,
  signal: AbortSignal | undefined,
): Promise<Map<number, LiveVolume>> {
  const live = new Map<number, LiveVolume>();
  for (const index of table.keys())
    live.set(index, { index: new ExtentIndex(), base: bases.get(index), baseReader: undefined });
  const after = (index: number): number => bases.get(index)?.sequence ?? (table.get(index)?.added ?? 1) - 1;
  const from = Math.min(...[...table.keys()].map(after));
  if (table.size === 0) return live;
  const segments = shelf.from(from);
  const first = segments[0]?.header.firstSequence ?? 0;
  if (first > from + 1)
    throw new OperationalError(
      "vault.damaged",
      `write log: records ${from + 1} to ${first - 1} are missing, and no point holds them`,
    );
  const sizes = new Map<number, number>();
  for (const segment of segments)
    await shelf.scan(
      segment,
      "directory",
      (frame) => {
        for (const volume of frame.opening?.volumes ?? []) sizes.set(volume.index, volume.sizeBytes);
        for (const record of frame.records) indexRecord(live, sizes, after, segment, frame, record);
      },
      signal,
    );
  return live;
}

function indexRecord(
  live: ReadonlyMap<number, LiveVolume>,
  sizes: Map<number, number>,
  after: (index: number) => number,
  segment: Segment,
  frame: ScannedFrame,
  record: LogRecord,
): void {
  const event = frame.events.get(record.sequence);
  if (event?.type === "volume_added") sizes.set(event.index, event.sizeBytes);
  if (event?.type === "volume_resized") {
    const index = live.get(event.index)?.index;
    const before = sizes.get(event.index) ?? event.sizeBytes;
    if (index !== undefined && record.sequence > after(event.index))
      applyResize(index, before, event.sizeBytes, record.sequence);
    sizes.set(event.index, event.sizeBytes);
  }
  if (record.kind === recordKind.event || record.sequence <= after(record.volume)) return;
  const index = live.get(record.volume)?.index;
  if (index === undefined)
    throw logDamaged(
      segment.name,
      frame.position,
      `record ${record.sequence} is of a volume that is not there`,
    );
  const { frameNumber, dataBytes } = frame.header;
  applyRecord(index, record, {
    segment: segment.header.number,
    frameNumber,
    dataPosition: frame.dataPosition,
    dataBytes,
  });
}

/** Numbers go on where none was ever given, and no volume is what its host has made of it. */
async function resume(
  options: OpenWriteLogOptions,
  opened: Pick<OpenedLog, "shelf" | "table" | "live">,
  end: SegmentEnd & { readonly number: number },
): Promise<WriteLog> {
  let highest = end.nextSequence - 1;
  for (const { id } of opened.table.values()) {
    const points = await options.points.list(options.group, id, options.signal);
    highest = Math.max(highest, points.at(-1)?.sequence ?? 0);
  }
  const nextSequence = lastBeforeResumed(highest) + 1;
  // Before the opening frame is written: what it says is true of the record before it, which there is not.
  loseTouch(opened.table, nextSequence);
  const head: LogHead = { ...end, nextSequence, timeMs: end.lastTimeMs };
  const log = new WriteLog(options, { ...opened, head, tornTail: undefined });
  await log.appendEvent({ type: "resumed" });
  return log;
}

/**
 * Opens the log in the folder, or begins one. Cuts a torn tail (`tornTail` says so), and reads no hole over.
 * Errors: `vault.damaged`, `vault.key`, `store.failing`, `input.invalid`. A new log where points
 * of an earlier one exist must be told to start after them, or its numbers would mean two things.
 */
export async function openWriteLog(options: OpenWriteLogOptions): Promise<WriteLog> {
  const { folder, group, logKey, signal } = options;
  if (!groupName.test(group))
    throw new OperationalError("input.invalid", `not a group's name: ${JSON.stringify(group.slice(0, 80))}`);
  invariant(logKey.length === 32, "a log key has 32 bytes");
  const { shelf, last } = await openSegmentShelf(folder, logKey, group, signal);
  const segment = shelf.segments.at(-1);
  // What is found may be in the system's memory alone, where a process that was killed left it. It counts from here on: points are made
  // of it, and the next segment says that it is there.
  if (segment !== undefined) {
    await shelf.withFile(segment, (file) => file.sync());
    await folder.syncEntries();
  }
  const table = await readTable(shelf, signal);
  const bases = await readBases(options, shelf, table, (last?.nextSequence ?? 1) - 1);
  const live = await readIndexes(shelf, table, bases, signal);
  if (options.afterLoss === true) {
    invariant(last !== undefined && segment !== undefined, "a log that was brought back has segments");
    return resume(options, { shelf, table, live }, { ...last, number: segment.header.number });
  }
  const start = options.startAfter;
  const head: LogHead =
    last === undefined || segment === undefined
      ? {
          number: 0,
          position: 0,
          tag: Buffer.alloc(16),
          nextSequence: (start?.sequence ?? 0) + 1,
          timeMs: start?.timeMs ?? 0,
        }
      : { ...last, number: segment.header.number, timeMs: last.lastTimeMs };
  const tornTail =
    last?.torn === undefined || segment === undefined
      ? undefined
      : { segment: segment.name, position: last.position, ...last.torn };
  return new WriteLog(options, { shelf, head, table, live, tornTail });
}
