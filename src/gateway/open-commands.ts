/**
 * Commands whose outcome is not known, or known and not recorded. Each keeps its locks, so that whatever touches the same
 * resources or carries the same token waits, until the cloud has been asked what became of it and the answer is durable.
 */
import type { Clock } from "#kernel/clock.ts";
import { isOperational } from "#kernel/errors.ts";
import type { Log } from "#kernel/log.ts";
import type { Random } from "#kernel/random.ts";
import { type RetryPolicy, backoffMs } from "#kernel/retry.ts";
import type { Journal } from "#journal/contract.ts";
import type { CommandOutcome, Intent } from "#model/command.ts";
import type { Dialect } from "./dialect.ts";
import type { EnvironmentLane } from "./environment-lane.ts";
import type { StatsRecorder } from "./gateway-stats.ts";
import type { Hold } from "./resource-locks.ts";

export interface OpenCommand {
  readonly intent: Intent;
  readonly lane: EnvironmentLane;
  readonly dialect: Dialect;
  readonly hold: Hold;
  /** Known already, only not yet recorded; null: the cloud is to be asked. */
  readonly outcome: CommandOutcome | null;
}

export interface OpenCommandPorts {
  readonly journal: Journal;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly stats: StatsRecorder;
  readonly settleMs: number;
}

/** Never given up: an open command blocks others, and only the cloud can tell. */
const pace: RetryPolicy = { attempts: Number.POSITIVE_INFINITY, baseMs: 200, capMs: 5_000 };
const attemptsAtTheCap = 10;
const holdWaitMs = 5_000;

/** Locks beside the command's own, until its outcome is recorded or it is asked about anew. */
class Holds implements Disposable {
  readonly #holds: Hold[] = [];

  add(hold: Hold): void {
    this.#holds.push(hold);
  }

  release(): void {
    for (const hold of this.#holds.splice(0)) hold.release();
  }

  [Symbol.dispose](): void {
    this.release();
  }
}

export class OpenCommands {
  readonly #ports: OpenCommandPorts;
  readonly #closing = new AbortController();
  readonly #running = new Set<Promise<void>>();

  constructor(ports: OpenCommandPorts) {
    this.#ports = ports;
  }

  get size(): number {
    return this.#running.size;
  }

  /** Takes over the command with its locks. */
  adopt(command: OpenCommand): void {
    command.lane.open += 1;
    const run = this.#settle(command).finally(() => {
      command.lane.open -= 1;
      this.#running.delete(run);
    });
    this.#running.add(run);
  }

  /** What is still open stays so in the journal, and is taken up at the next start. */
  async close(): Promise<void> {
    this.#closing.abort(new Error("the gateway closes"));
    await Promise.all(this.#running);
  }

  async #settle(command: OpenCommand): Promise<void> {
    const { clock, random, journal, stats } = this.#ports;
    const { intent } = command;
    const signal = this.#closing.signal;
    const log = this.#ports.log.child({
      environment: intent.environment,
      command: intent.id,
      operation: intent.operation,
    });
    const since = clock.now();
    let outcome = command.outcome;
    using held = new Holds();
    for (let attempt = 1; !signal.aborted; attempt += 1) {
      try {
        // One at a time for each operation: what one command is found to have made is nobody else's.
        using _turn = outcome === null ? await command.lane.turns.take(intent.operation) : undefined;
        outcome ??= await this.#ask(command, clock.now() - since, held);
        if (outcome !== null) {
          await journal.recordOutcome(intent.environment, intent.id, outcome);
          stats.changes[outcome.result] += 1;
          if (outcome.resolvedLater) stats.resolvedLater += 1;
          log.info({ result: outcome.result, attempt }, "what became of the command is known and recorded");
          command.hold.release();
          return;
        }
      } catch (error) {
        if (isOperational(error, "state.conflict")) {
          log.info({ attempt }, "the command's outcome had been recorded already");
          command.hold.release();
          return;
        }
        if (signal.aborted) return;
        log.warn(
          { attempt, error },
          "what became of the command could not be found out or recorded; asking again",
        );
      }
      if (outcome === null) held.release();
      const wait = backoffMs(pace, Math.min(attempt, attemptsAtTheCap), random);
      await clock.sleep(wait, signal).catch(() => undefined);
    }
  }

  /** Null: too early to say that it was not applied. */
  async #ask(command: OpenCommand, openForMs: number, held: Holds): Promise<CommandOutcome | null> {
    const { intent, lane, dialect } = command;
    const { journal } = this.#ports;
    const signal = this.#closing.signal;
    const resolution = await dialect.resolve(intent, {
      ask: (service, request) => lane.ask(dialect, service, request, signal),
      knownIds: async () => {
        await lane.underWay.settled(intent.operation);
        return lane.made.upToDate(journal);
      },
      hold: async (keys) => {
        // Whoever has them may wait for this command's turn: then both give way, and this one asks again.
        const patience = AbortSignal.any([signal, AbortSignal.timeout(holdWaitMs)]);
        held.add(await lane.locks.acquire(keys, () => patience));
      },
      signal,
    });
    const at = this.#ports.clock.now();
    const later = { status: null, resolvedLater: true, at } as const;
    switch (resolution.result) {
      case "applied":
        return {
          ...later,
          result: "applied",
          errorCode: null,
          changes: resolution.changes,
          gaps: resolution.gaps,
        };
      case "refused":
        // The request may still be on its way, or the cloud's own views lag: look twice.
        if (openForMs < this.#ports.settleMs) return null;
        return { ...later, result: "refused", errorCode: resolution.errorCode, changes: [], gaps: [] };
      case "undecidable":
        // Final, and seen by readers as a gap: an `unknown` would stay open and block its resources for ever.
        return { ...later, result: "applied", errorCode: null, changes: [], gaps: resolution.gaps };
    }
  }
}
