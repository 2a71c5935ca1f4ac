/**
 * Saved memory beside the images of servers that keep nothing: the first one of a kind boots, and is kept when it is ready; those that come
 * after it go on from there instead of booting. A state that does not serve is thrown away, and the server boots.
 */
import { createHash } from "node:crypto";
import { mkdir, readdir, realpath, rm, stat, utimes } from "node:fs/promises";
import { join } from "node:path";
import { decodeMachineSpec, type MachineSpecInput } from "#hypervisor/machine-spec.ts";
import type { Machine } from "#hypervisor/machine.ts";
import type { HypervisorHost } from "#hypervisor/open-host.ts";
import { readTemplate, saveTemplate } from "#hypervisor/template.ts";
import type { Clock } from "#kernel/clock.ts";
import { isOperational, publicMessage } from "#kernel/errors.ts";
import { canonicalJson } from "#kernel/json.ts";
import type { Log } from "#kernel/log.ts";
import type { Random } from "#kernel/random.ts";

export interface MemoryStatesOptions {
  /** Each state is a folder in it. */
  readonly folder: string;
  readonly host: HypervisorHost;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

export interface PreparedGuest {
  readonly machine: Machine;
  readonly spec: MachineSpecInput;
  /** Of servers that keep nothing: those of one kind may have one memory. Null: it has its own. */
  readonly kind: string | null;
  /** From the kept memory of its kind. */
  readonly goesOn: boolean;
}

/** Each holds as much as the memory that its guest had in use. The one that was not used for longest goes. */
const mostStates = 8;
/** For what a guest is told after it went on, in milliseconds. */
const tellWithinMs = 60_000;

export class MemoryStates {
  readonly #options: MemoryStatesOptions;
  /** Ends with this process. */
  readonly #closing: AbortSignal;
  /** Kinds that are being kept. */
  readonly #making = new Set<string>();

  constructor(options: MemoryStatesOptions, closing: AbortSignal) {
    this.#options = options;
    this.#closing = closing;
  }

  /** What must be the same for memory to be good: all that the guest sees but its name, and the images that it came from. */
  async kindOf(input: MachineSpecInput): Promise<string> {
    const { id: _id, hostname: _hostname, networks, ...same } = decodeMachineSpec(input);
    // How they are reached is not seen from inside.
    const shape = networks.map(({ kind }) => kind);
    const images = await Promise.all(imagesOf(input).map(identityOf));
    return createHash("sha256").update(canonicalJson({ same, shape, images })).digest("hex").slice(0, 40);
  }

  /** A machine that goes on from the kept state of the kind; undefined: there is none. */
  async create(kind: string, input: MachineSpecInput, signal: AbortSignal): Promise<Machine | undefined> {
    const folder = this.#folderOf(kind);
    try {
      await readTemplate(folder);
    } catch (error) {
      if (isOperational(error, "not_found")) return undefined;
      await this.#discard(kind, error);
      return undefined;
    }
    const { id, networks } = decodeMachineSpec(input);
    const used = new Date(this.#options.clock.now());
    await utimes(folder, used, used);
    return this.#options.host.createFromTemplate(folder, { id, networks }, signal);
  }

  /** Ready when it returns. Errors: those of a machine's start. */
  async boot({ machine, spec, kind, goesOn }: PreparedGuest, signal: AbortSignal): Promise<void> {
    const { host } = this.#options;
    let started = machine;
    if (goesOn && kind !== null) {
      try {
        await machine.start(signal);
        // What it serves does not wait for that.
        void this.#acquaint(machine, spec.hostname, this.#closing);
        return;
      } catch (error) {
        signal.throwIfAborted();
        if (!isOperational(error)) throw error;
        await this.#discard(kind, error);
        await host.destroy(machine.id);
        started = await host.create(spec, signal);
      }
    }
    await started.start(signal);
    if (kind !== null) await this.#keep(kind, started, signal);
  }

  /** The state did not serve. */
  async #discard(kind: string, why: unknown): Promise<void> {
    const { log } = this.#options;
    log.warn({ kind, error: publicMessage(why) }, "a memory state does not serve: it is thrown away");
    await rm(this.#folderOf(kind), { recursive: true, force: true });
  }

  /** The machine is ready, and nobody uses it yet: it stands still for some 100 ms. Nothing is lost where it cannot be kept. */
  async #keep(kind: string, machine: Machine, signal: AbortSignal): Promise<void> {
    const { folder, log } = this.#options;
    if (this.#making.has(kind)) return;
    this.#making.add(kind);
    try {
      await mkdir(folder, { recursive: true, mode: 0o700 });
      await saveTemplate(machine, this.#folderOf(kind), signal);
      await this.#letGo();
    } catch (error) {
      signal.throwIfAborted();
      if (!isOperational(error)) throw error;
      if (error.code !== "state.conflict")
        log.warn(
          { machine: machine.id, code: error.code },
          `its memory was not kept: ${publicMessage(error)}`,
        );
    } finally {
      this.#making.delete(kind);
    }
  }

  /**
   * A guest that went on is told the time, its name, and something that no other one was told for its random numbers. Where no
   * guest agent answers, it goes on without.
   */
  async #acquaint(machine: Machine, hostname: string | undefined, signal: AbortSignal): Promise<void> {
    const { clock, random, log } = this.#options;
    const name = hostname === undefined ? "" : `hostname ${hostname};`;
    const until = clock.monotonicMs() + tellWithinMs;
    while (!signal.aborted && machine.isOn) {
      // Nothing in it is to be escaped: see guest-agent in the small guest.
      const said = `date -s @${Math.round(clock.now() / 1000)}; ${name} echo ${random.hex(64)} > /dev/urandom`;
      try {
        await machine.agent.exec("/bin/sh", ["-c", said], signal);
        return;
      } catch (error) {
        if (signal.aborted) return;
        if (!isOperational(error)) throw error;
        if (clock.monotonicMs() < until) continue;
        log.warn({ machine: machine.id }, "a guest that went on from a memory state was not told the time");
        return;
      }
    }
  }

  #folderOf(kind: string): string {
    return join(this.#options.folder, kind);
  }

  async #letGo(): Promise<void> {
    const { folder } = this.#options;
    const states = await Promise.all(
      (await readdir(folder)).map(async (name) => ({ name, at: (await stat(join(folder, name))).mtimeMs })),
    );
    states.sort((a, b) => b.at - a.at);
    for (const { name } of states.slice(mostStates))
      await rm(join(folder, name), { recursive: true, force: true });
  }
}

function imagesOf({ boot }: MachineSpecInput): readonly string[] {
  return Object.values(boot).filter(
    (value): value is string => typeof value === "string" && value.startsWith("/"),
  );
}

/** An image that was replaced is another one. */
async function identityOf(path: string): Promise<object> {
  const real = await realpath(path);
  const { size, mtimeMs } = await stat(real);
  return { real, size, mtimeMs };
}
