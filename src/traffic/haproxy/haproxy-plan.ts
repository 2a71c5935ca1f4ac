/** Which HAProxy server (slot) gets which backend, and in what order the commands go out. Pure. */
import { OperationalError } from "#kernel/errors.ts";
import type { Backend } from "#traffic/traffic-switch.ts";

export interface Slot {
  readonly name: string;
  readonly host: string;
  readonly port: number;
  readonly weight: number;
  /** Takes new requests as far as its administrator says: neither in maintenance nor drained. */
  readonly ready: boolean;
}

/**
 * Any bit of maintenance (0x01 forced, 0x02 inherited, 0x20 name resolution, 0x40 host name) or drain (0x08, 0x10).
 * Not 0x04: it says that haproxy.cfg had the server disabled, and stays when it is made ready.
 */
const OUT_OF_SERVICE = 0x7b;

/** Reads the answer to `show servers state BACKEND` (format version 1, HAProxy management guide, 9.3). */
export function decodeServersState(answer: string, backend: string): Slot[] {
  const lines = answer.split("\n");
  if (lines[0]?.trim() !== "1")
    throw new OperationalError(
      answer.startsWith("Permission denied") ? "auth.invalid" : "traffic.refused",
      answer.startsWith("Permission denied")
        ? "HAProxy's socket does not permit this: give it `level admin`"
        : `HAProxy has no readable backend ${backend}: check its name in haproxy.cfg`,
      { detail: answer.slice(0, 500) },
    );
  const columns = (lines[1] ?? "").replace(/^#\s*/, "").trim().split(/\s+/);
  const at = (row: readonly string[], column: string): string => row[columns.indexOf(column)] ?? "";
  return lines
    .slice(2)
    .map((line) => line.trim().split(/\s+/))
    .filter((row) => at(row, "be_name") === backend)
    .map((row) => ({
      name: at(row, "srv_name"),
      host: at(row, "srv_addr"),
      port: Number(at(row, "srv_port")),
      weight: Number(at(row, "srv_uweight")),
      ready: (Number(at(row, "srv_admin_state")) & OUT_OF_SERVICE) === 0,
    }));
}

export interface SlotAssignment {
  readonly slot: string;
  readonly backend: Backend;
}

export interface SlotPlan {
  /** Slots that get an address, a weight and `ready`, in this order: unused ones before those that serve now. */
  readonly assign: readonly SlotAssignment[];
  /** Slots whose address stays; only weight and state are set. */
  readonly keep: readonly SlotAssignment[];
  /** Slots that serve now and must not any more. */
  readonly remove: readonly string[];
}

/** Throws `traffic.refused` when there are fewer slots than backends. */
export function planSlots(
  slots: readonly Slot[],
  backends: readonly Backend[],
  haproxyBackend: string,
): SlotPlan {
  if (backends.length > slots.length)
    throw new OperationalError(
      "traffic.refused",
      `HAProxy backend ${haproxyBackend} has ${slots.length} servers and ${backends.length} are needed: ` +
        `raise its \`server-template\` to at least ${backends.length} (twice that keeps the old set apart) and reload`,
    );
  const free = new Map(slots.map((slot) => [slot.name, slot]));
  const keep: SlotAssignment[] = [];
  const rest: Backend[] = [];
  for (const backend of backends) {
    const same = [...free.values()].filter(
      (slot) => slot.host === backend.host && slot.port === backend.port,
    );
    const slot = same.find((one) => one.ready) ?? same[0];
    if (slot === undefined) rest.push(backend);
    else {
      free.delete(slot.name);
      keep.push({ slot: slot.name, backend });
    }
  }
  const unusedFirst = [...free.values()].sort((a, b) => Number(a.ready) - Number(b.ready));
  const assign = rest.map((backend, index) => ({ slot: unusedFirst[index]?.name ?? "", backend }));
  for (const { slot } of assign) free.delete(slot);
  return { assign, keep, remove: [...free.values()].filter((slot) => slot.ready).map((slot) => slot.name) };
}
