/** A booted copy, server by server: what the user wants to hold of it, what it printed, and what its display shows. */
import type { Observed } from "#cloud/contract.ts";
import type { DiskHost } from "#cloud/disk-host.ts";
import { runProbe } from "#health/probe.ts";
import { runScript } from "#health/run-script.ts";
import type { Verification } from "#health/verification.ts";
import type { Clock } from "#kernel/clock.ts";
import { isOperational, publicMessage } from "#kernel/errors.ts";
import type { ResourceId } from "#kernel/ids.ts";
import type { CheckVerdict, ServerEvidence } from "#model/evidence.ts";
import type { Tags } from "#model/resource.ts";
import { isSelected } from "#takeover/route-targets.ts";

export interface ExaminedServer {
  /** Where the environment is served. */
  readonly id: ResourceId;
  readonly name: string;
  readonly tags: Tags;
  /** Its copy as its site knows it; undefined: it is not there. */
  readonly copy: Observed<"server"> | undefined;
}

export interface Examination {
  readonly environment: string;
  readonly site: string;
  readonly servers: readonly ExaminedServer[];
  readonly verifications: readonly Verification[];
  /** Undefined: no host agent of ours runs the site's machines. */
  readonly host: DiskHost | undefined;
  readonly clock: Clock;
}

const pauseMs = 500;

export function examineServers(
  examination: Examination,
  signal: AbortSignal,
): Promise<readonly ServerEvidence[]> {
  return Promise.all(examination.servers.map((server) => examineServer(examination, server, signal)));
}

/** The console last: what the checks have brought about is on it. */
async function examineServer(
  examination: Examination,
  server: ExaminedServer,
  signal: AbortSignal,
): Promise<ServerEvidence> {
  const { host, verifications } = examination;
  const { id, name, tags, copy } = server;
  const meant = verifications.filter(({ select }) => isSelected(tags, select));
  const verdicts = await Promise.all(
    meant.map(async (one): Promise<CheckVerdict> => {
      if (copy !== undefined) return untilItHolds(examination, one, { server, copy }, signal);
      return { check: one.name, problem: "the server is not there", output: "" };
    }),
  );
  const copyId = copy?.resource.id ?? "";
  if (host === undefined || copy === undefined) {
    return { id, name, copyId, verdicts, console: null, screenshot: null };
  }
  const console = await askedFor(() => host.console(copyId, signal), signal);
  const picture = await askedFor(() => host.screenshot(copyId, signal), signal);
  return { id, name, copyId, verdicts, console, screenshot: picture?.toString("base64") ?? null };
}

interface Subject {
  readonly server: ExaminedServer;
  readonly copy: Observed<"server">;
}

/** Until it holds, or for as long as the user gives it: then what was seen last. */
async function untilItHolds(
  examination: Examination,
  verification: Verification,
  subject: Subject,
  signal: AbortSignal,
): Promise<CheckVerdict> {
  const { clock } = examination;
  const deadline = clock.monotonicMs() + verification.withinMs;
  for (;;) {
    const { problem, output = "" } = await look(examination, verification, subject, signal);
    if (problem === null || clock.monotonicMs() >= deadline) {
      return { check: verification.name, problem, output };
    }
    await clock.sleep(pauseMs, signal);
  }
}

interface Seen {
  readonly problem: string | null;
  readonly output?: string;
}

async function look(
  { host, environment, site }: Examination,
  { name, check, timeoutMs }: Verification,
  { server, copy }: Subject,
  signal: AbortSignal,
): Promise<Seen> {
  const address = copy.addresses.public[0] ?? copy.addresses.private[0];
  if (check.type === "agent") return askAgent(host, copy.resource.id, { check, timeoutMs }, signal);
  if (address === undefined) return { problem: "it has no address to reach it by" };
  if (check.type === "script") {
    const variables = {
      UNDERSTUDY_ENVIRONMENT: environment,
      UNDERSTUDY_SITE: site,
      UNDERSTUDY_SERVER_ID: copy.resource.id,
      UNDERSTUDY_SERVER_NAME: server.name,
      UNDERSTUDY_SERVER_ADDRESS: address,
    };
    return runScript({ path: check.path, variables, limitMs: timeoutMs }, signal);
  }
  const shown = address.includes(":") ? `[${address}]` : address;
  const probe =
    check.type === "tcp"
      ? ({ type: "tcp", host: address, port: check.port } as const)
      : ({
          type: "http",
          url: `http://${shown}:${check.port}${check.path}`,
          status: check.status,
          ...(check.contains === undefined ? {} : { contains: check.contains }),
        } as const);
  const result = await runProbe({ name, everyMs: pauseMs, timeoutMs, check: probe }, signal);
  return { problem: result.ok ? null : result.detail };
}

async function askAgent(
  host: DiskHost | undefined,
  copyId: ResourceId,
  asked: { readonly check: Extract<Verification["check"], { type: "agent" }>; readonly timeoutMs: number },
  signal: AbortSignal,
): Promise<Seen> {
  if (host === undefined)
    return { problem: "its site has no host agent, which the guest's agent is asked through" };
  const { program } = asked.check;
  try {
    if (program === null) {
      return { problem: (await host.agentAnswers(copyId, signal)) ? null : "no guest agent answers" };
    }
    const { exitCode, output } = await host.exec(copyId, { ...program, limitMs: asked.timeoutMs }, signal);
    if (exitCode === 0) return { problem: null, output };
    return {
      problem: `${program.path} ended ${exitCode === null ? "by a signal" : `with ${exitCode}`}`,
      output,
    };
  } catch (error) {
    signal.throwIfAborted();
    if (!isOperational(error)) throw error;
    return { problem: publicMessage(error) };
  }
}

/** What can't be had is left out: it is no verdict. */
async function askedFor<Value>(ask: () => Promise<Value>, signal: AbortSignal): Promise<Value | null> {
  try {
    return await ask();
  } catch (error) {
    signal.throwIfAborted();
    if (!isOperational(error)) throw error;
    return null;
  }
}

/** Every server's first problem, as one line; null: all of it held. */
export function describeFailures(servers: readonly ServerEvidence[]): string | null {
  const failed = servers.flatMap(({ name, verdicts }) =>
    verdicts.flatMap(({ check, problem }) =>
      problem === null ? [] : [`${name}: ${check} fails: ${problem}`],
    ),
  );
  if (failed.length === 0) return null;
  const rest = failed.length > 5 ? `, and ${failed.length - 5} more` : "";
  return `${failed.slice(0, 5).join(", ")}${rest}`;
}
