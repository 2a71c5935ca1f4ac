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
  readonly queue: Queue;
  readonly ticket: Ticket;
  readonly exclusive: boolean;
  granted: boolean;
  before: Place | undefined;
  after: Place | undefined;
}

/** Places in arrival order. Many commands may share one key (the subnet that all servers go to): joining and leaving must not count them. */
class Queue {
  readonly key: string;
  exclusives = 0;
  first: Place | undefined;
  #last: Place | undefined;

  constructor(key: string) {
    this.key = key;
  }

  add(ticket: Ticket, exclusive: boolean): Place {
    const granted = exclusive ? this.first === undefined : this.exclusives === 0;
    const place: Place = { queue: this, ticket, exclusive, granted, before: this.#last, after: undefined };
    if (this.#last === undefined) this.first = place;
    else this.#last.after = place;
    this.#last = place;
    if (exclusive) this.exclusives += 1;
    return place;
  }

  remove(place: Place): void {
    const { before, after } = place;
    if (before === undefined) this.first = after;
    else before.after = after;
    if (after === undefined) this.#last = before;
    else after.before = before;
    place.before = undefined;
    place.after = undefined;
    if (place.exclusive) this.exclusives -= 1;
  }
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

/** Idle queues that are kept, so that the next command finds them. */
const idleQueues = 256;

export class ResourceLocks {
  /**
   * Idle queues stay until there are too many, and then a map is made without them. Keys that are deleted one by one make V8 lay out
   * a map's table anew every few commands, and each table that is left behind leads to the next: one that has grown old keeps what
   * was ever in all later ones, requests and answers with it, until a full collection.
   */
  #queues = new Map<string, Queue>();
  #sweepAt = idleQueues;
  #waiting = 0;

  /** Commands that wait for a lock now. */
  get waiting(): number {
    return this.#waiting;
  }

  /** Keys that are held or waited for now. */
  get size(): number {
    return this.#queues.values().reduce((busy, { first }) => busy + (first === undefined ? 0 : 1), 0);
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
    if (ticket.places.some(({ queue }) => queue.key === key)) return;
    const place = this.#queueOf(key).add(ticket, exclusive);
    if (!place.granted) ticket.waitingFor += 1;
    ticket.places.push(place);
  }

  #queueOf(key: string): Queue {
    const known = this.#queues.get(key);
    if (known !== undefined) return known;
    if (this.#queues.size >= this.#sweepAt) {
      this.#queues = new Map(this.#queues.entries().filter(([, { first }]) => first !== undefined));
      this.#sweepAt = this.#queues.size * 2 + idleQueues;
    }
    const queue = new Queue(key);
    this.#queues.set(key, queue);
    return queue;
  }

  #leave(ticket: Ticket): void {
    for (const place of ticket.places) {
      const { queue } = place;
      const held = place.exclusive || queue.exclusives > 0;
      queue.remove(place);
      // Among sharers alone, nobody waits.
      if (held) grantFront(queue.first);
    }
  }
}

/** The front of a queue runs: one exclusive place, or all shared ones before the first exclusive one. */
function grantFront(front: Place | undefined): void {
  for (let place = front; place !== undefined; place = place.after) {
    if (place.exclusive && place !== front) return;
    if (!place.granted) {
      place.granted = true;
      place.ticket.waitingFor -= 1;
      if (place.ticket.waitingFor === 0) place.ticket.granted?.();
    }
    if (place.exclusive) return;
  }
}
