/**
 * Locks on named resources, shared or exclusive. They give conflicting commands one order, from before the intent is recorded
 * until the outcome is, and let independent ones run side by side.
 *
 * A command joins the queues of all its keys in one step, in arrival order, and runs when it stands at the front of each.
 * Since every queue has the same order, a circle of waiting commands cannot arise, and nobody is overtaken on any key.
 */

export interface LockKeys {
  /** Resources that the command refers to: they must not change meanwhile. */
  readonly shared: readonly string[];
  /** Resources that the command changes. A key in both counts as exclusive. */
  readonly exclusive: readonly string[];
}

export interface Hold {
  /** Lets the next ones go; a second call does nothing. */
  release(): void;
}

interface Place {
  readonly key: string;
  readonly ticket: Ticket;
  readonly exclusive: boolean;
  granted: boolean;
}

/** Many commands may share one key (the subnet that all servers go to): joining and leaving must not count them. */
interface Queue {
  /** In arrival order. */
  readonly places: Set<Place>;
  exclusives: number;
}

class Ticket implements Hold {
  readonly places: Place[] = [];
  waitingFor = 0;
  granted: (() => void) | undefined;
  readonly #leave: (ticket: Ticket) => void;
  #held = true;

  constructor(leave: (ticket: Ticket) => void) {
    this.#leave = leave;
  }

  release(): void {
    if (!this.#held) return;
    this.#held = false;
    this.#leave(this);
  }
}

export class ResourceLocks {
  readonly #queues = new Map<string, Queue>();
  #waiting = 0;

  /** Commands that wait for a lock now. */
  get waiting(): number {
    return this.#waiting;
  }

  /** Keys that are held or waited for now. */
  get size(): number {
    return this.#queues.size;
  }

  /**
   * The hold at once if nothing is in the way, else a promise of it. When the signal aborts first, the place in every queue is
   * given up and the promise rejects with the signal's reason. `signal` is asked for only if there is something to wait for.
   */
  acquire(keys: LockKeys, signal?: () => AbortSignal): Hold | Promise<Hold> {
    const ticket = new Ticket((leaving) => this.#leave(leaving));
    for (const key of keys.exclusive) this.#join(ticket, key, true);
    for (const key of keys.shared) this.#join(ticket, key, false);
    return ticket.waitingFor === 0 ? ticket : this.#wait(ticket, signal?.());
  }

  async #wait(ticket: Ticket, signal: AbortSignal | undefined): Promise<Hold> {
    this.#waiting += 1;
    try {
      await new Promise<void>((resolve, reject) => {
        const abort = (): void => {
          ticket.release();
          reject(signal?.reason as Error);
        };
        if (signal?.aborted === true) {
          abort();
          return;
        }
        signal?.addEventListener("abort", abort, { once: true });
        ticket.granted = () => {
          signal?.removeEventListener("abort", abort);
          resolve();
        };
      });
    } finally {
      this.#waiting -= 1;
    }
    return ticket;
  }

  #join(ticket: Ticket, key: string, exclusive: boolean): void {
    // A command has few keys: a scan is cheaper than a set.
    if (ticket.places.some((place) => place.key === key)) return;
    let queue = this.#queues.get(key);
    if (queue === undefined) {
      queue = { places: new Set(), exclusives: 0 };
      this.#queues.set(key, queue);
    }
    const granted = exclusive ? queue.places.size === 0 : queue.exclusives === 0;
    const place: Place = { key, ticket, exclusive, granted };
    queue.places.add(place);
    if (exclusive) queue.exclusives += 1;
    if (!granted) ticket.waitingFor += 1;
    ticket.places.push(place);
  }

  #leave(ticket: Ticket): void {
    for (const place of ticket.places) {
      const queue = this.#queues.get(place.key);
      if (queue === undefined) continue;
      const held = place.exclusive || queue.exclusives > 0;
      queue.places.delete(place);
      if (place.exclusive) queue.exclusives -= 1;
      if (queue.places.size === 0) this.#queues.delete(place.key);
      // Among sharers alone, nobody waits.
      else if (held) grantFront(queue.places);
    }
  }
}

/** The front of a queue runs: one exclusive place, or all shared ones before the first exclusive one. */
function grantFront(places: Iterable<Place>): void {
  let first = true;
  for (const place of places) {
    if (place.exclusive && !first) return;
    first = false;
    if (!place.granted) {
      place.granted = true;
      place.ticket.waitingFor -= 1;
      if (place.ticket.waitingFor === 0) place.ticket.granted?.();
    }
    if (place.exclusive) return;
  }
}
