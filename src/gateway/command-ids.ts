import { type CommandId, commandId } from "#kernel/ids.ts";
import type { Random } from "#kernel/random.ts";

let lastMs = -1;
let lastPrefix = "";

/**
 * A UUID whose first 48 bits are the time (RFC 9562, version 7). The journal finds commands by id: with ids that rise, the
 * ones of one batch lie side by side in its index, where random ones touch (and log) a page each.
 */
export function newCommandId(random: Random, nowMs: number): CommandId {
  if (nowMs !== lastMs) {
    const time = Math.max(nowMs, 0).toString(16).padStart(12, "0");
    lastMs = nowMs;
    lastPrefix = `${time.slice(0, 8)}-${time.slice(8)}-7`;
  }
  return commandId(lastPrefix + random.uuid().slice(15));
}
