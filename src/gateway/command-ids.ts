import { type CommandId, commandId } from "#kernel/ids.ts";
import type { Random } from "#kernel/random.ts";

const perMs = 4096;

/**
 * UUIDs whose first 48 bits are the time and whose next 12 count within a millisecond (RFC 9562, version 7, method 1), so that
 * each is greater than the one before, also where the clock stands still or goes back. The journal finds commands by id: with ids that
 * rise, the ones of one batch lie side by side in its index, and an id that is greater than all before is known to be new.
 */
export class CommandIds {
  #ms = -1;
  #count = 0;
  #prefix = "";

  next(random: Random, nowMs: number): CommandId {
    this.#count += 1;
    if (nowMs > this.#ms || this.#count === perMs) {
      this.#ms = Math.max(nowMs, this.#ms + 1);
      this.#count = 0;
      const time = this.#ms.toString(16).padStart(12, "0");
      this.#prefix = `${time.slice(0, 8)}-${time.slice(8)}-7`;
    }
    const count = this.#count.toString(16).padStart(3, "0");
    return commandId(this.#prefix + count + random.uuid().slice(18));
  }
}
