/**
 * The highest epoch that a switch was ever asked to apply, for things that cannot keep it themselves (an HAProxy,
 * a DNS zone). It is raised before the switch acts: after a crash between the two, the older epoch stays refused.
 */
import { OperationalError } from "#kernel/errors.ts";
import { readFileIfAny, replaceFile } from "#kernel/durable-file.ts";
import { checkEpoch } from "./traffic-switch.ts";

export interface EpochRecord {
  /** Null: nothing was ever applied. */
  last(): Promise<number | null>;
  /** Never called with less than `last`. */
  raise(epoch: number): Promise<void>;
}

export function memoryEpochRecord(start: number | null = null): EpochRecord {
  let last = start;
  return {
    last: () => Promise.resolve(last),
    raise: (epoch) => {
      last = epoch;
      return Promise.resolve();
    },
  };
}

/** One decimal number in a file of its own; one process a file. */
export function fileEpochRecord(path: string): EpochRecord {
  return {
    async last() {
      const text = await readFileIfAny(path);
      if (text === null) return null;
      if (!/^\d{1,15}\n$/.test(text)) {
        throw new OperationalError(
          "store.failing",
          `${path} does not hold an epoch: restore it, or remove it if no other site may serve`,
          { retry: "never" },
        );
      }
      return Number(text);
    },
    raise: (epoch) => replaceFile(path, `${epoch}\n`),
  };
}

/** Refuses a fenced epoch; otherwise makes it the highest one, durably. */
export async function takeEpoch(record: EpochRecord, route: string, epoch: number): Promise<void> {
  const last = await record.last();
  checkEpoch(route, epoch, last);
  if (last !== epoch) await record.raise(epoch);
}
