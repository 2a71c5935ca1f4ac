/** The agent: passes over the disks of this machine, and what they find on its way to the vault, until it is told to stop. */
import type { Clock } from "#kernel/clock.ts";
import { isOperational, OperationalError, publicMessage } from "#kernel/errors.ts";
import type { Log } from "#kernel/log.ts";
import type { Random } from "#kernel/random.ts";
import { backoffMs } from "#kernel/retry.ts";
import { serveLocalApi } from "#wire/local-api/local-api-server.ts";
import type { AgentSettings } from "./agent-settings.ts";
import { AgentState } from "./agent-state.ts";
import { agentMethods, agentSocketIn, type AgentStatus } from "./agent-status.ts";
import { beginStream } from "./begin-stream.ts";
import { checkFreezable, letGo } from "./hold-disks.ts";
import { IntakeClient } from "./intake-client.ts";
import { type PassOutcome, type PassProgress, runPass, volumesOf } from "./run-pass.ts";
import { ReadPlan } from "./read-plan.ts";
import { sendParts, type SenderView } from "./send-parts.ts";
import { createReadBuffer } from "./source-disk.ts";
import { TokenBucket } from "./token-bucket.ts";

export interface AgentPorts {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

interface AgentView {
  state: AgentStatus["state"];
  progress: PassProgress | null;
  nextPassMs: number | null;
  lastPass: PassOutcome | null;
  problem: string | null;
  readonly sender: SenderView;
}

interface Workshop {
  readonly settings: AgentSettings;
  readonly ports: AgentPorts;
  readonly state: AgentState;
  readonly client: IntakeClient;
  readonly bucket: TokenBucket | null;
  readonly buffer: Buffer;
  readonly plan: ReadPlan;
  readonly view: AgentView;
}

const patience = { attempts: Number.POSITIVE_INFINITY, baseMs: 1000, capMs: 60_000 };

/**
 * `onReady` is called once it can be asked for its status. Errors: `config.*`, `state.conflict` (another agent has the state folder, or
 * sends these disks), `state.fenced` (the environment has moved), `auth.*`.
 */
export async function runAgent(
  settings: AgentSettings,
  ports: AgentPorts,
  onReady: () => void,
  signal: AbortSignal,
): Promise<void> {
  const { stateFolder, disks, hold, vault, bytesPerSecond, spoolLimitBytes, wholeEveryMs } = settings;
  const { clock, log } = ports;
  const buffer = createReadBuffer();
  const names = disks.map(({ volume }) => volume);
  await using state = await AgentState.open(stateFolder, names, spoolLimitBytes);
  await letGo(stateFolder, log);
  if (hold !== null) await checkFreezable(stateFolder, hold.freeze);
  // What is wrong with the configuration is said at once.
  await volumesOf(disks, buffer);
  await using client = new IntakeClient(vault);
  await using plan = new ReadPlan({ stateFolder, wholeEveryMs, clock, log });
  const bucket = bytesPerSecond === null ? null : new TokenBucket(clock, bytesPerSecond);
  const sender: SenderView = { state: "idle", problem: null, sentBytes: 0 };
  const view: AgentView = {
    state: "beginning",
    progress: null,
    nextPassMs: null,
    lastPass: null,
    problem: null,
    sender,
  };
  const shop: Workshop = { settings, ports, state, client, bucket, buffer, plan, view };
  await using _api = await serveLocalApi({
    socketPath: agentSocketIn(stateFolder),
    methods: agentMethods,
    handlers: { status: async () => statusOf(shop) },
    log,
  });
  onReady();
  while (!signal.aborted) {
    try {
      await work(shop, signal);
    } catch (error) {
      if (signal.aborted) return;
      if (isOperational(error, "state.fenced")) throw moved(error, stateFolder);
      if (!isOperational(error, "not_found")) throw error;
      log.warn({}, `the vault is asked anew what it has: ${error.message}`);
      await state.beginAnew(ports.random.hex(16), names);
      await clock.sleep(1000, signal).catch(() => {});
    }
  }
}

/** A stream, from its beginning until it cannot go on. */
async function work(shop: Workshop, signal: AbortSignal): Promise<void> {
  const { settings, ports, state, client, bucket, plan, view } = shop;
  await begin(shop, signal);
  plan.readWhole();
  const stop = new AbortController();
  const either = AbortSignal.any([signal, stop.signal]);
  const { clock, random, log } = ports;
  const { window } = settings;
  const parts = { state, client, window, bucket, clock, random, log, view: view.sender };
  const loops = [sendParts(parts, either), passes(shop, either)];
  try {
    await Promise.all(loops);
  } finally {
    stop.abort(new OperationalError("aborted", "the agent begins anew"));
    await Promise.allSettled(loops);
  }
}

/** As often as it takes: the vault may be away. */
async function begin(shop: Workshop, signal: AbortSignal): Promise<void> {
  const { settings, ports, state, client, buffer, view } = shop;
  const { clock, random, log } = ports;
  for (let failures = 1; ; failures += 1) {
    view.state = "beginning";
    try {
      const volumes = await volumesOf(settings.disks, buffer);
      await beginStream({ state, client, random, log }, volumes, signal);
      view.problem = null;
      return;
    } catch (error) {
      signal.throwIfAborted();
      if (!isOperational(error) || error.retry === "never") throw error;
      view.problem = publicMessage(error);
      if (failures === 1) log.warn({ code: error.code }, `the agent cannot begin now: ${view.problem}`);
      await clock.sleep(backoffMs(patience, failures, random, error.retryAfterMs), signal);
    }
  }
}

/**
 * Until the signal aborts. A pass that fails is said, and the next one goes on from what it spooled. While one is on its way to a vault that
 * answers, however slowly, no other is begun: it would only wait behind it. When nothing can be sent, passes are kept in the spool.
 */
async function passes(shop: Workshop, signal: AbortSignal): Promise<void> {
  const { settings, ports, state, buffer, plan, view } = shop;
  const { clock, log } = ports;
  const { disks, hold, everyMs } = settings;
  for (;;) {
    const startedMs = clock.now();
    view.state = "reading";
    view.nextPassMs = null;
    view.progress = { phase: "live", readBytes: 0, totalBytes: 0 };
    try {
      const { progress } = view;
      view.lastPass = await runPass({ state, disks, hold, buffer, plan, clock, log, progress }, signal);
      view.problem = null;
    } catch (error) {
      signal.throwIfAborted();
      if (!isOperational(error)) throw error;
      view.problem = publicMessage(error);
      log.error({ code: error.code }, `a pass failed: ${view.problem}`);
    }
    view.state = "waiting";
    view.progress = null;
    view.nextPassMs = startedMs + everyMs;
    await clock.sleep(Math.max(0, view.nextPassMs - clock.now()), signal);
    await state.spool.drained(() => ["away", "outside_window"].includes(view.sender.state), signal);
  }
}

function statusOf({ settings, ports, state, plan, view }: Workshop): AgentStatus {
  const { spool, record } = state;
  const point = record?.point ?? null;
  return {
    pid: process.pid,
    stream: record?.stream ?? null,
    state: view.state,
    disks: settings.disks.map(({ volume, path }) => ({ volume, path })),
    reading: view.progress === null ? null : { ...view.progress },
    nextPassMs: view.nextPassMs,
    lastPass: view.lastPass,
    wholeReads: plan.reason,
    problem: view.problem,
    sending: { ...view.sender },
    spool: { parts: spool.numbers.length, bytes: spool.bytes, limitBytes: spool.limitBytes },
    point,
    lagMs: point === null ? null : Math.max(0, ports.clock.now() - point.instantMs),
  };
}

function moved(error: OperationalError, stateFolder: string): OperationalError {
  return new OperationalError(
    "state.fenced",
    `${error.message}. If it is this machine that serves it now, remove ${stateFolder} and start the agent again`,
    { cause: error },
  );
}
