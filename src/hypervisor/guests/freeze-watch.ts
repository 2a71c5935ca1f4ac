/**
 * File systems of guests that stand still: never longer than was asked for, whoever dies meanwhile. That one is to be held is on record
 * before the guest is asked, so that the next agent lets go of it; and letting go is repeated until the guest has done it or is off.
 */
import type { Clock } from "#kernel/clock.ts";
import { isOperational, publicMessage } from "#kernel/errors.ts";
import type { Log } from "#kernel/log.ts";
import type { DiskLedger } from "./disk-ledger.ts";

/** Of a machine, what is needed for it. */
export interface FreezableMachine {
  readonly id: string;
  readonly isOn: boolean;
  readonly agent: {
    freeze(signal?: AbortSignal): Promise<number>;
    thaw(signal?: AbortSignal): Promise<number>;
  };
}

export interface FreezeWatchPorts {
  readonly ledger: Pick<DiskLedger, "records" | "setFrozen">;
  readonly clock: Clock;
  readonly log: Log;
}

interface Hold {
  /** Ends the wait for the limit. */
  readonly released: AbortController;
  readonly fileSystems: number;
}

const retryMs = 500;

export class FreezeWatch implements AsyncDisposable {
  readonly #ports: FreezeWatchPorts;
  readonly #holds = new Map<string, Hold>();
  readonly #closing = new AbortController();
  /** Machine -> its letting go, while that is under way. */
  readonly #lettingGo = new Map<string, Promise<void>>();

  constructor(ports: FreezeWatchPorts) {
    this.#ports = ports;
  }

  /**
   * Answers how many file systems stand still. Asked again, it counts anew. Errors: those of the guest agent, and then what it may
   * have held is let go.
   */
  async hold(machine: FreezableMachine, limitMs: number, signal: AbortSignal): Promise<number> {
    const { ledger } = this.#ports;
    await this.#lettingGo.get(machine.id);
    const present = this.#holds.get(machine.id);
    present?.released.abort();
    await ledger.setFrozen(machine.id, true);
    const released = new AbortController();
    // From before it is asked: a call that takes long has held some of them for as long.
    void this.#limit(machine, limitMs, released);
    try {
      const fileSystems = present?.fileSystems ?? (await machine.agent.freeze(signal));
      // The limit may have passed meanwhile.
      if (!released.signal.aborted) this.#holds.set(machine.id, { released, fileSystems });
      return fileSystems;
    } catch (error) {
      released.abort();
      void this.#letGo(machine);
      throw error;
    }
  }

  /** Whether they stood still until now. Errors: those of the guest agent; it is tried on until it is done. */
  async release(machine: FreezableMachine, signal: AbortSignal): Promise<boolean> {
    const hold = this.#holds.get(machine.id);
    if (hold === undefined) {
      await this.#lettingGo.get(machine.id);
      return false;
    }
    this.#holds.delete(machine.id);
    hold.released.abort();
    try {
      await machine.agent.thaw(signal);
    } catch (error) {
      void this.#letGo(machine);
      throw error;
    }
    await this.#ports.ledger.setFrozen(machine.id, false);
    return true;
  }

  /** What an agent before us may have left standing still. */
  resume(machines: Iterable<FreezableMachine>): void {
    const left = this.#ports.ledger.records.frozen ?? {};
    for (const machine of machines) if (left[machine.id] === true) void this.#letGo(machine);
  }

  /** What still stands still is on record. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort(new Error("the host agent closes"));
    for (const { released } of this.#holds.values()) released.abort();
    await Promise.all(this.#lettingGo.values());
  }

  async #limit(machine: FreezableMachine, limitMs: number, released: AbortController): Promise<void> {
    const { clock, log } = this.#ports;
    const over = await clock.sleep(limitMs, released.signal).then(
      () => true,
      () => false,
    );
    if (!over) return;
    released.abort();
    this.#holds.delete(machine.id);
    log.warn({ machine: machine.id, limitMs }, "file systems were held still to the limit, and are let go");
    await this.#letGo(machine);
  }

  #letGo(machine: FreezableMachine): Promise<void> {
    const present = this.#lettingGo.get(machine.id);
    if (present !== undefined) return present;
    const done = this.#thawUntilDone(machine).finally(() => this.#lettingGo.delete(machine.id));
    this.#lettingGo.set(machine.id, done);
    return done;
  }

  async #thawUntilDone(machine: FreezableMachine): Promise<void> {
    const { clock, log, ledger } = this.#ports;
    const { signal } = this.#closing;
    let told = false;
    while (machine.isOn && !signal.aborted) {
      try {
        await machine.agent.thaw(signal);
        break;
      } catch (error) {
        if (signal.aborted) return;
        if (!isOperational(error)) throw error;
        // An agent that can't thaw could not freeze either.
        if (error.remoteCode === "CommandNotFound") break;
        if (!told) log.warn({ machine: machine.id }, `not let go yet: ${publicMessage(error)}`);
        told = true;
      }
      await clock.sleep(retryMs, signal).catch(() => {});
    }
    if (!signal.aborted) await ledger.setFrozen(machine.id, false);
  }
}
