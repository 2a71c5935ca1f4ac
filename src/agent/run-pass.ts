/**
 * One pass over all disks. First while they are in use: what changed is sent ahead. Then while they are held still, so that what is left to be
 * read and spooled is one moment of all of them. Without a hold, or when it does not last, the pass is fuzzy: its content serves the
 * next one, and is never offered.
 */
import type { Clock } from "#kernel/clock.ts";
import { isOperational, publicMessage } from "#kernel/errors.ts";
import { invariant } from "#kernel/invariant.ts";
import type { Log } from "#kernel/log.ts";
import type { PassConsistency, PassEnd, PassVolume } from "#wire/agent/pass-part.ts";
import type { AgentDisk, HoldSettings } from "./agent-settings.ts";
import type { AgentState } from "./agent-state.ts";
import { type Held, holdDisks } from "./hold-disks.ts";
import { PartBuilder } from "./part-builder.ts";
import type { ReadPlan, ToRead } from "./read-plan.ts";
import { scanDisk } from "./scan-disk.ts";
import { openSourceDisk, type SourceDisk } from "./source-disk.ts";

export type PassPhase = "live" | "held";

export interface PassProgress {
  phase: PassPhase;
  readBytes: number;
  totalBytes: number;
}

export interface PassOutcome {
  readonly pass: number;
  readonly startedMs: number;
  readonly instantMs: number;
  readonly consistency: PassConsistency;
  /** Why it is fuzzy. */
  readonly reason: string | null;
  readonly diskBytes: number;
  /** Of disks in use and of held ones together. */
  readonly readBytes: number;
  /** Content that differed from what the vault has, in whole blocks. */
  readonly changedBytes: number;
  readonly heldMs: number;
}

export interface RunPassOptions {
  readonly state: AgentState;
  readonly disks: readonly AgentDisk[];
  readonly hold: HoldSettings | null;
  readonly buffer: Buffer;
  readonly clock: Clock;
  readonly log: Log;
  readonly progress: PassProgress;
  readonly plan: ReadPlan;
  /** Told apart from the real one by tests alone. */
  readonly holdDisks?: typeof holdDisks;
}

/** Errors: `config.invalid`, `disk.failing`, `store.*`: what was spooled until then counts, and the next pass goes on from it. */
export async function runPass(options: RunPassOptions, signal: AbortSignal): Promise<PassOutcome> {
  const { state, hold, clock, disks, plan } = options;
  const startedMs = clock.now();
  const { record } = state;
  invariant(record !== null && record.ready, "a pass belongs to a stream that the vault knows");
  const pass = record.pass + 1;
  await state.remember({ pass });
  const begun: BegunPass = { pass, startedMs, readBytes: 0 };
  const volumes = await volumesOf(disks, options.buffer);
  await plan.begin(volumes.map(({ sizeBytes }, at) => ({ path: disks[at]?.path ?? "", sizeBytes })));
  const builder = new PartBuilder({ state, stream: record.stream, pass, volumes });
  // Snapshots hold nobody up: they are read once, however long that takes.
  const unhurried = hold !== null && disks.every(({ snapshot }) => snapshot !== null);
  if (!unhurried) {
    await scanAll(options, builder, begun, "live", signal);
    await builder.flush(null, signal);
  }
  if (hold !== null) return heldPass(options, begun, builder, unhurried, signal);
  plan.ended();
  const reason = "nothing holds the disks still: configure `consistency` (freeze, or a hook)";
  return finish(options, begun, builder, { instantMs: clock.now(), consistency: "fuzzy", reason }, 0, signal);
}

interface BegunPass {
  readonly pass: number;
  readonly startedMs: number;
  readBytes: number;
}

async function heldPass(
  options: RunPassOptions,
  begun: BegunPass,
  builder: PartBuilder,
  unhurried: boolean,
  signal: AbortSignal,
): Promise<PassOutcome> {
  const { state, hold, clock, log } = options;
  invariant(hold !== null, "there is something to hold the disks with");
  const { before, after, freeze, limitMs, hookLimitMs, gives } = hold;
  const plan = { before: copyOf(before), freeze: [...freeze], after: copyOf(after), limitMs, hookLimitMs };
  const held = await (options.holdDisks ?? holdDisks)(state.folder, plan, log);
  const fuzzy = (reason: string): PassEnd => ({ instantMs: clock.now(), consistency: "fuzzy", reason });
  if (!held.ok) return finish(options, begun, builder, fuzzy(held.problem), 0, signal);
  const from = clock.monotonicMs();
  builder.mayWait = unhurried;
  const problem = await readHeld(options, builder, begun, held, signal);
  builder.mayWait = true;
  const heldMs = clock.monotonicMs() - from;
  const end: PassEnd =
    problem === null ? { instantMs: held.instantMs, consistency: gives, reason: null } : fuzzy(problem);
  return finish(options, begun, builder, end, heldMs, signal);
}

/** Lets go in any case. Answers why what was read is not one moment; null: it is. */
async function readHeld(
  options: RunPassOptions,
  builder: PartBuilder,
  begun: BegunPass,
  held: Held & { readonly ok: true },
  signal: AbortSignal,
): Promise<string | null> {
  let problem: string | null;
  try {
    problem = await scanAll(options, builder, begun, "held", signal);
    await builder.flush(null, signal);
  } catch (error) {
    builder.drop();
    if (!isOperational(error, "store.full")) {
      await held.release();
      throw error;
    }
    problem = publicMessage(error);
  }
  const cut = await held.release();
  return problem ?? cut;
}

async function finish(
  { state, disks, clock, log, plan }: RunPassOptions,
  { pass, startedMs, readBytes }: BegunPass,
  builder: PartBuilder,
  end: PassEnd,
  heldMs: number,
  signal: AbortSignal,
): Promise<PassOutcome> {
  // That nothing has changed is worth telling only if it is known for one moment.
  if (end.consistency !== "fuzzy" || builder.parts > 0) await builder.flush(end, signal);
  const { instantMs, consistency, reason } = end;
  if (consistency !== "fuzzy") plan.ended();
  const outcome: PassOutcome = {
    pass,
    startedMs,
    instantMs,
    consistency,
    reason,
    diskBytes: builder.diskBytes,
    readBytes,
    changedBytes: builder.changedBytes,
    heldMs: Math.round(heldMs),
  };
  const spent = {
    ...outcome,
    disks: disks.length,
    tookMs: clock.now() - startedMs,
    spool: state.spool.bytes,
  };
  if (consistency === "fuzzy") log.warn(spent, "a pass has ended, and is no moment of the disks");
  else log.info(spent, "a pass has ended");
  return outcome;
}

/** As large as the disks are now. Errors: `config.invalid`. */
export async function volumesOf(disks: readonly AgentDisk[], buffer: Buffer): Promise<readonly PassVolume[]> {
  const volumes: PassVolume[] = [];
  for (const { volume, path } of disks) {
    await using disk = await openSourceDisk(path, buffer);
    volumes.push({ volume, sizeBytes: disk.sizeBytes });
  }
  return volumes;
}

/** Null: no disk was seen to be written to meanwhile, and each has the size it had. */
async function scanAll(
  { state, disks, hold, buffer, progress, plan }: RunPassOptions,
  builder: PartBuilder,
  begun: BegunPass,
  phase: PassPhase,
  signal: AbortSignal,
): Promise<string | null> {
  // Without a hold, the pass over disks in use is all there is.
  const toRead: ToRead = phase === "live" && hold !== null ? await plan.live(signal) : await plan.held();
  progress.phase = phase;
  progress.readBytes = 0;
  progress.totalBytes = toRead?.reduce((sum, { bytes }) => sum + bytes, 0) ?? builder.diskBytes;
  const open: { readonly path: string; readonly disk: SourceDisk; readonly activity: string }[] = [];
  try {
    for (const { path: own, snapshot } of disks) {
      const path = phase === "held" ? (snapshot ?? own) : own;
      const disk = await openSourceDisk(path, buffer);
      open.push({ path, disk, activity: await disk.activity() });
    }
    const resized = open.find(({ disk }, index) => disk.sizeBytes !== builder.sizeOf(index));
    if (resized !== undefined) return `${resized.path} was resized meanwhile`;
    for (const [volume, { disk }] of open.entries()) {
      const leaves = state.leavesOf(disks[volume]?.volume ?? "");
      const onProgress = (bytes: number): void => {
        progress.readBytes += bytes;
        begun.readBytes += bytes;
      };
      const only = toRead?.[volume] ?? null;
      await scanDisk({ disk, volume, leaves, builder, only, onProgress }, signal);
    }
    for (const { path, disk, activity } of open) {
      if ((await disk.activity()) !== activity) return `${path} was written to while it was held still`;
    }
    return null;
  } finally {
    for (const { disk } of open) await disk[Symbol.asyncDispose]();
  }
}

function copyOf(command: readonly string[] | null): string[] | null {
  return command === null ? null : [...command];
}
