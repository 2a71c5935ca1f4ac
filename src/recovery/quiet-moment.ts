/**
 * A moment at which the applications' own files are whole: the file systems of every server with a kept disk stand still while it is
 * taken, all at once and for no longer than a limit. Where that can't be had, the moment is one of the disks alone, and says why.
 */
import type { DiskHost } from "#cloud/disk-host.ts";
import type { Clock } from "#kernel/clock.ts";
import { isOperational, publicMessage } from "#kernel/errors.ts";
import type { ResourceId } from "#kernel/ids.ts";
import type { Log } from "#kernel/log.ts";
import type { EnvironmentState } from "#model/environment-state.ts";
import { serversOfVolumes } from "#model/recovered-volumes.ts";
import type { DiskMoment } from "#recovery/disk-mover.ts";

export type Consistency =
  | { readonly consistency: "application" }
  /** As after a power cut. `why`: what kept it from being more; null: more was not asked for. */
  | { readonly consistency: "crash"; readonly why: string | null };

export interface QuietMomentPorts {
  readonly state: Pick<EnvironmentState, "resources">;
  readonly kept: ReadonlySet<ResourceId>;
  /** Undefined: no host agent runs the site's machines. */
  readonly host: DiskHost | undefined;
  readonly limitMs: number;
  /** The last moment: everything that was written until now is in it. */
  readonly moment: () => Promise<DiskMoment>;
  readonly clock: Clock;
  readonly log: Log;
}

/** Errors: those of `moment`. What was held is let go before it returns, also on failure. */
export async function quietMoment(
  ports: QuietMomentPorts,
  signal: AbortSignal,
): Promise<DiskMoment & Consistency> {
  const { host, moment } = ports;
  const crash = async (why: string): Promise<DiskMoment & Consistency> => ({
    ...(await moment()),
    consistency: "crash",
    why,
  });
  if (host === undefined)
    return crash("no host agent runs its servers: nobody can hold their file systems still");
  const servers = writingServers(ports);
  const deaf = await whoDoesNotAnswer(host, servers, signal);
  if (deaf.length > 0) return crash(`no guest agent answers in ${deaf.join(", ")}`);
  const begunMs = ports.clock.monotonicMs();
  // Each is waited for, also when another one fails: what is asked to stand still is to be let go.
  const held = await Promise.allSettled(servers.map((id) => hold(host, id, ports.limitMs, signal)));
  const problems: (string | null)[] = [];
  let taken: DiskMoment;
  try {
    for (const one of held) {
      if (one.status === "rejected") throw one.reason as Error;
      problems.push(one.value);
    }
    if (!problems.some((problem) => problem !== null)) {
      problems.push(await whatIsNotCaptured(ports, host, signal));
    }
    taken = await moment();
  } finally {
    problems.push(...(await Promise.all(servers.map((id) => release(host, id, ports.log)))));
  }
  const heldMs = Math.round(ports.clock.monotonicMs() - begunMs);
  const why = problems.find((problem) => problem !== null) ?? null;
  ports.log.debug({ servers: servers.length, heldMs, why }, "file systems stood still for a moment");
  return why === null ? { ...taken, consistency: "application" } : { ...taken, consistency: "crash", why };
}

/** A server that is off writes nothing: its file systems are whole already. */
function writingServers({ state, kept }: QuietMomentPorts): readonly ResourceId[] {
  const users = serversOfVolumes(state, kept);
  return [...state.resources()].flatMap((one) =>
    one.kind === "server" && users.has(one.id) && one.spec.power === "running" ? [one.id] : [],
  );
}

/** Asked first: while one is waited for in vain, the others would stand still. */
async function whoDoesNotAnswer(
  host: DiskHost,
  servers: readonly ResourceId[],
  signal: AbortSignal,
): Promise<readonly ResourceId[]> {
  const answers = await Promise.all(
    servers.map(async (id) => {
      try {
        return await host.agentAnswers(id, signal);
      } catch (error) {
        signal.throwIfAborted();
        if (!isOperational(error)) throw error;
        return false;
      }
    }),
  );
  return servers.filter((_, index) => answers[index] === false);
}

/** Answers what is wrong. */
async function hold(
  host: DiskHost,
  id: ResourceId,
  limitMs: number,
  signal: AbortSignal,
): Promise<string | null> {
  try {
    const { fileSystems } = await host.freeze(id, limitMs, signal);
    return fileSystems > 0 ? null : `no file system of ${id} could be held still`;
  } catch (error) {
    signal.throwIfAborted();
    if (!isOperational(error)) throw error;
    return `the file systems of ${id} could not be held still: ${publicMessage(error)}`;
  }
}

/** A write that waits in a host's bitmap is not in the moment, however still the guest stands. */
async function whatIsNotCaptured(
  { kept }: QuietMomentPorts,
  host: DiskHost,
  signal: AbortSignal,
): Promise<string | null> {
  try {
    const captures = await host.captures(signal);
    const behind = [...kept].filter(
      (id) => captures.find(({ volumeId }) => volumeId === id)?.state !== "continuous",
    );
    return behind.length === 0 ? null : `the capture of ${behind.join(", ")} is not continuous`;
  } catch (error) {
    signal.throwIfAborted();
    if (!isOperational(error)) throw error;
    return `what is captured could not be asked: ${publicMessage(error)}`;
  }
}

/** Also while everything else ends: a guest that stands still serves nobody. The host's own limit stands behind it. */
async function release(host: DiskHost, id: ResourceId, log: Log): Promise<string | null> {
  try {
    const { held } = await host.thaw(id, AbortSignal.timeout(thawLimitMs));
    return held ? null : `the file systems of ${id} did not stand still long enough`;
  } catch (error) {
    log.warn({ server: id }, `its file systems were not let go at once: ${publicMessage(error)}`);
    return `the file systems of ${id} may have moved: ${publicMessage(error)}`;
  }
}

const thawLimitMs = 10_000;
