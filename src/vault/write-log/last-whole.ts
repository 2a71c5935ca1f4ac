/** The last moment at which the group was whole, followed record by record: nobody has to look for it in a log that is long. */
import type { LogVolume } from "./log-event.ts";
import type { LogHistory } from "./open-moment.ts";
import { isWhole, lastWholeMoment, oldestImageMs, type WholeMoment } from "./whole-moments.ts";

export class LastWhole {
  readonly #table: ReadonlyMap<number, LogVolume>;
  #whole = false;
  #oldestImageMs = Number.POSITIVE_INFINITY;
  #last: WholeMoment | undefined;
  /** What was before this log was opened is not known yet. */
  #unknown = true;

  /** `last` is the log's last durable record, `table` its volumes: as they are now, whenever it is looked at. */
  constructor(
    table: ReadonlyMap<number, LogVolume>,
    last: { readonly sequence: number; readonly timeMs: number },
  ) {
    this.#table = table;
    this.recorded(last.sequence, last.timeMs, true);
  }

  /** A record became durable; the table has it already. */
  recorded(sequence: number, timeMs: number, isEvent: boolean): void {
    if (isEvent) {
      this.#whole = isWhole(this.#table.values());
      this.#oldestImageMs = oldestImageMs(this.#table.values());
    }
    if (!this.#whole) return;
    this.#last = { sequence, timeMs: Math.min(timeMs, this.#oldestImageMs) };
    this.#unknown = false;
  }

  /** Undefined: there is none in the log. It may have left the log since: then a point holds it, or nothing does. */
  async find(history: LogHistory, signal?: AbortSignal): Promise<WholeMoment | undefined> {
    if (!this.#unknown) return this.#last;
    const found = await lastWholeMoment(history, undefined, signal);
    if (this.#unknown) this.#last = found;
    this.#unknown = false;
    return this.#last;
  }
}
