/**
 * Switches an HAProxy backend through the runtime API (management guide, 9.3). Its servers are slots, made once:
 *
 *     backend web
 *       server-template slot 8 127.0.0.1:1 check disabled
 *
 * with `stats socket PATH level admin`. Runtime state is lost when HAProxy reloads, unless it has
 * `load-server-state-from-file global` and the state is saved before: apply the target again after a reload
 * (`read` shows whether it is in force).
 */
import { isIP } from "node:net";
import { isOperational, OperationalError } from "#kernel/errors.ts";
import type { Log } from "#kernel/log.ts";
import { type EpochRecord, takeEpoch } from "#traffic/epoch-record.ts";
import { oneAtATime } from "#traffic/one-at-a-time.ts";
import {
  addressOf,
  type Backend,
  checkTarget,
  type RouteTarget,
  type TrafficSwitch,
} from "#traffic/traffic-switch.ts";
import { decodeServersState, planSlots, type Slot, type SlotAssignment } from "./haproxy-plan.ts";
import { askHaproxy, type HaproxySocket } from "./haproxy-socket.ts";

export interface HaproxySwitchConfig {
  readonly socket: HaproxySocket;
  /** The backend's name in haproxy.cfg. */
  readonly backend: string;
  /** For one command. Default 2000. */
  readonly timeoutMs?: number;
  /**
   * What is under way with removed servers is cut so long after the switch (0: with it). Absent: never. A timer of
   * this process: it does not outlive it.
   */
  readonly drainMs?: number;
}

const NAME = /^[A-Za-z0-9_.:-]{1,100}$/;

/** How HAProxy says that a command did nothing. An empty answer is success. */
function checkAnswer(command: string, answer: string): void {
  if (answer === "" || /^(IP|port|no need to change|nothing changed)/i.test(answer)) return;
  if (/permission denied/i.test(answer))
    throw new OperationalError(
      "auth.invalid",
      "HAProxy's socket does not permit changes: give it `level admin`",
      {
        detail: `${command}: ${answer}`,
      },
    );
  throw new OperationalError(
    "traffic.refused",
    "HAProxy refused a change of its servers: see the log for its words",
    {
      detail: `${command}: ${answer.slice(0, 500)}`,
    },
  );
}

export class HaproxySwitch implements TrafficSwitch {
  readonly kind = "haproxy";
  readonly #config: HaproxySwitchConfig;
  readonly #epochs: EpochRecord;
  readonly #log: Log;
  readonly #cuts = new Map<NodeJS.Timeout, readonly string[]>();
  readonly #queue = oneAtATime();

  constructor(config: HaproxySwitchConfig, ports: { readonly epochs: EpochRecord; readonly log: Log }) {
    if (!NAME.test(config.backend))
      throw new OperationalError(
        "config.invalid",
        `${JSON.stringify(config.backend)} is no HAProxy backend's name`,
      );
    this.#config = config;
    this.#epochs = ports.epochs;
    this.#log = ports.log;
  }

  apply(target: RouteTarget, signal: AbortSignal): Promise<void> {
    return this.#queue.run(() => this.#apply(target, signal));
  }

  async read(signal: AbortSignal): Promise<{ readonly backends: readonly Backend[] }> {
    const serving = (await this.#slots(signal)).filter((slot) => slot.ready);
    return {
      backends: serving.map(({ name, host, port, weight }) => ({
        id: name,
        host,
        port,
        ...(weight === 1 ? {} : { weight }),
      })),
    };
  }

  /** Cuts that are still due happen now. */
  async close(): Promise<void> {
    await this.#queue.idle();
    for (const [timer, slots] of this.#cuts) {
      clearTimeout(timer);
      await this.#cut(slots, AbortSignal.timeout(this.#timeoutMs));
    }
    this.#cuts.clear();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  get #timeoutMs(): number {
    return this.#config.timeoutMs ?? 2_000;
  }

  async #apply(target: RouteTarget, signal: AbortSignal): Promise<void> {
    checkTarget(target);
    const named = target.backends.find((backend) => isIP(backend.host) === 0);
    if (named !== undefined)
      throw new OperationalError(
        "input.invalid",
        `backend ${named.id} is ${named.host}: HAProxy's runtime API takes IP addresses only`,
      );
    const before = await this.#slots(signal);
    const plan = planSlots(before, target.backends, this.#config.backend);
    await takeEpoch(this.#epochs, this.#config.backend, target.epoch);
    try {
      // The new ones take requests before the old ones stop: at no moment is there nobody.
      for (const one of plan.assign) await this.#assign(one, signal);
      for (const one of plan.keep) await this.#ready(one, signal);
      for (const slot of plan.remove) await this.#command(`set server ${this.#at(slot)} state maint`, signal);
      await this.#confirm(target.backends, signal);
    } catch (error) {
      throw await this.#undone(error, before);
    }
    await this.#cutLater(plan.remove, signal);
  }

  /** Puts the old set back. The error that comes out says which set serves. */
  async #undone(error: unknown, before: readonly Slot[]): Promise<unknown> {
    if (!(error instanceof OperationalError)) return error;
    const signal = AbortSignal.timeout(this.#timeoutMs * 2);
    let outcome: "not_applied" | "unknown" = "unknown";
    let detail = error.detail ?? "";
    try {
      for (const slot of before.filter((one) => one.ready))
        await this.#assign({ slot: slot.name, backend: { ...slot, id: slot.name } }, signal);
      for (const slot of before.filter((one) => !one.ready))
        await this.#command(`set server ${this.#at(slot.name)} state maint`, signal);
      outcome = "not_applied";
    } catch (second) {
      // Both are told: the first as the error, this one as its detail.
      detail += `; the old set could not be put back: ${isOperational(second) ? second.detail : String(second)}`;
    }
    return new OperationalError(error.code, error.message, {
      outcome,
      detail,
      retry: error.retry,
      cause: error,
    });
  }

  async #assign({ slot, backend }: SlotAssignment, signal: AbortSignal): Promise<void> {
    await this.#command(`set server ${this.#at(slot)} addr ${backend.host} port ${backend.port}`, signal);
    await this.#ready({ slot, backend }, signal);
  }

  async #ready({ slot, backend }: SlotAssignment, signal: AbortSignal): Promise<void> {
    await this.#command(`set server ${this.#at(slot)} weight ${backend.weight ?? 1}`, signal);
    await this.#command(`set server ${this.#at(slot)} state ready`, signal);
  }

  /** A success is what HAProxy itself says is in force, not the absence of an error. */
  async #confirm(backends: readonly Backend[], signal: AbortSignal): Promise<void> {
    const wanted = backends.map(addressOf).sort();
    const found = (await this.read(signal)).backends.map(addressOf).sort();
    if (wanted.join() === found.join()) return;
    throw new OperationalError(
      "traffic.refused",
      `HAProxy backend ${this.#config.backend} did not take the new servers: something else changes it at the same time`,
      { outcome: "unknown", detail: `wanted ${wanted.join(" ")}; found ${found.join(" ")}`, retry: "later" },
    );
  }

  async #cutLater(slots: readonly string[], signal: AbortSignal): Promise<void> {
    const { drainMs } = this.#config;
    if (drainMs === undefined || slots.length === 0) return;
    if (drainMs === 0) {
      await this.#cut(slots, signal);
      return;
    }
    const timer = setTimeout(() => {
      this.#cuts.delete(timer);
      // The switch itself is done; a HAProxy that is gone by now has no sessions to cut.
      this.#cut(slots, AbortSignal.timeout(this.#timeoutMs)).catch((error: unknown) =>
        this.#log.warn({ slots, error: String(error) }, "sessions of removed HAProxy servers were not cut"),
      );
    }, drainMs);
    timer.unref();
    this.#cuts.set(timer, slots);
  }

  async #cut(slots: readonly string[], signal: AbortSignal): Promise<void> {
    const now = new Map((await this.#slots(signal)).map((slot) => [slot.name, slot]));
    for (const slot of slots) {
      // A slot that serves again by now has sessions of its own.
      if (now.get(slot)?.ready !== false) continue;
      await this.#command(`shutdown sessions server ${this.#at(slot)}`, signal);
    }
  }

  #at(slot: string): string {
    return `${this.#config.backend}/${slot}`;
  }

  async #slots(signal: AbortSignal): Promise<Slot[]> {
    const command = `show servers state ${this.#config.backend}`;
    return decodeServersState(
      await askHaproxy(this.#config.socket, command, this.#timeoutMs, signal),
      this.#config.backend,
    );
  }

  async #command(command: string, signal: AbortSignal): Promise<void> {
    checkAnswer(command, await askHaproxy(this.#config.socket, command, this.#timeoutMs, signal));
  }
}
