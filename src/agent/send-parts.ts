/** Sends what is spooled, in order, while the network, the window and the limit allow it. */
import type { Clock } from "#kernel/clock.ts";
import { isOperational, OperationalError, publicMessage } from "#kernel/errors.ts";
import { invariant } from "#kernel/invariant.ts";
import type { Log } from "#kernel/log.ts";
import type { Random } from "#kernel/random.ts";
import { backoffMs } from "#kernel/retry.ts";
import type { AgentState } from "./agent-state.ts";
import type { IntakeClient } from "./intake-client.ts";
import { isOpen, type SendWindow, waitForWindowMs } from "./send-window.ts";
import type { TokenBucket } from "./token-bucket.ts";

/** `away`: the vault does not answer, or not well; `problem` says how. */
export type SenderState = "idle" | "sending" | "outside_window" | "away";

export interface SenderView {
  state: SenderState;
  problem: string | null;
  sentBytes: number;
}

export interface SendPartsOptions {
  readonly state: AgentState;
  readonly client: IntakeClient;
  readonly window: SendWindow;
  /** Null: as fast as it goes. */
  readonly bucket: TokenBucket | null;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly view: SenderView;
}

const patience = { attempts: Number.POSITIVE_INFINITY, baseMs: 1000, capMs: 60_000 };

/**
 * Until the signal aborts. Errors: what no repetition mends; `not_found` when the vault does not have what it acknowledged, so that the
 * stream must begin anew.
 */
export async function sendParts(options: SendPartsOptions, signal: AbortSignal): Promise<void> {
  const { state, window, clock, view } = options;
  let known = false;
  for (let failures = 0; ;) {
    view.state = failures === 0 ? "idle" : "away";
    if (known) await state.spool.filled(signal);
    if (!isOpen(window, clock.now())) {
      view.state = "outside_window";
      state.spool.look();
      await clock.sleep(waitForWindowMs(window, clock.now()), signal);
      continue;
    }
    try {
      if (!known) await reconcile(options, signal);
      known = true;
      if (state.spool.oldest !== undefined) await sendOldest(options, signal);
      if (failures > 0) options.log.info({}, "the vault answers again");
      failures = 0;
      view.problem = null;
    } catch (error) {
      signal.throwIfAborted();
      if (!isOperational(error) || error.retry === "never") throw error;
      known = false;
      failures += 1;
      view.state = "away";
      view.problem = publicMessage(error);
      state.spool.look();
      if (failures === 1) options.log.warn({ code: error.code }, `nothing can be sent now: ${view.problem}`);
      await clock.sleep(backoffMs(patience, failures, options.random, error.retryAfterMs), signal);
    }
  }
}

/** The vault still has what it acknowledged: it may have been set back to an older state of its own. */
async function reconcile({ state, client }: SendPartsOptions, signal: AbortSignal): Promise<void> {
  const { record } = state;
  invariant(record !== null, "a stream has begun");
  const { received } = await client.standing(record.stream, signal);
  if (received >= record.acknowledged) return;
  throw new OperationalError(
    "not_found",
    `the vault has parts up to ${received}, and had acknowledged ${record.acknowledged}: it was set back`,
  );
}

async function sendOldest(options: SendPartsOptions, signal: AbortSignal): Promise<void> {
  const { state, client, bucket, view } = options;
  const number = state.spool.oldest;
  if (number === undefined) return;
  view.state = "sending";
  const bytes = await state.spool.read(number);
  const pace = async (length: number, leaving: AbortSignal): Promise<void> => {
    await bucket?.take(length, leaving);
    view.sentBytes += length;
  };
  const { received, point } = await client.part(bytes, pace, signal);
  if (received < number) {
    throw new OperationalError("cloud.protocol", `the vault answers that part ${number} has not arrived`);
  }
  await state.acknowledge(number, point);
}
