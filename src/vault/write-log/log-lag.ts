import type { LogShipper } from "./ship-log.ts";
import type { WriteLog } from "./write-log.ts";

/** How far behind the guests' writes each copy of them is. */
export interface LogLag {
  /** The last record that is durable in the log's folder, and when it was taken. */
  readonly capturedSequence: number;
  readonly capturedAtMs: number;
  /** Bytes taken and not durable yet. Nobody was told that they are captured. */
  readonly queuedBytes: number;
  /** The store alone brings back everything up to here; undefined where nothing ships. */
  readonly shippedSequence: number | undefined;
  /** Age of the oldest record that only the log's folder holds: what losing that disk would cost. 0: none. */
  readonly unshippedMs: number;
  /** Points hold everything up to here, of every volume. */
  readonly foldedSequence: number;
  readonly unfoldedBytes: number;
}

export function logLag(log: WriteLog, shipper?: LogShipper): LogLag {
  const { sequence, timeMs } = log.lastRecord;
  const members = log.volumes().filter(({ state }) => state !== "released");
  const foldedSequence = Math.min(sequence, ...members.map(({ id }) => log.baseOf(id)?.sequence ?? 0));
  const shippedSequence = shipper?.shippedSequence;
  const { segments } = log.shelf;
  const unshipped = segments.find(
    ({ header, end }) =>
      end.nextSequence > header.firstSequence && end.nextSequence - 1 > (shippedSequence ?? 0),
  );
  const unfolded = segments.filter(({ end }) => end.nextSequence - 1 > foldedSequence);
  return {
    capturedSequence: sequence,
    capturedAtMs: timeMs,
    queuedBytes: log.queuedBytes,
    shippedSequence,
    unshippedMs: unshipped === undefined ? 0 : Math.max(0, log.clock.now() - unshipped.header.timeMs),
    foldedSequence,
    unfoldedBytes: unfolded.reduce((sum, { end }) => sum + end.position, 0),
  };
}
