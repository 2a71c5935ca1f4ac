/** How a moment is named on the command line, and what every run takes. */
import type { Command } from "commander";
import type { ApiClient } from "#cli/api-client.ts";
import { environmentPath } from "#cli/environment-commands.ts";
import { parseMoment } from "#cli/parse-moment.ts";
import { noSuchPoint } from "#cli/point-commands.ts";
import { OperationalError } from "#kernel/errors.ts";
import type { PointsView } from "#takeover/control.ts";

export interface MomentFlags {
  readonly at?: string;
  readonly point?: string;
}

export interface RunFlags extends MomentFlags {
  readonly reason?: string;
  readonly confirm?: string;
  readonly wait: boolean;
}

/** What the API is told: a point is its write, not its millisecond. */
export interface NamedMoment {
  readonly at?: number;
  readonly sequence?: number;
}

const momentHelp = 'as they were then: 2026-03-01T12:00:00Z, or "20s ago"';

export function withMoment(command: Command, what: string): Command {
  return command
    .option("--at <time>", `${what} ${momentHelp}`)
    .option("--point <point>", `${what} as at a recovery point: see "understudy point list"`);
}

export function withRun(command: Command): Command {
  return command.option("--reason <text>", "kept with the run").option("--no-wait", "begin it and return");
}

/** Errors: `input.invalid` for both or, where one is needed, neither; `not_found`. */
export async function momentOf(
  api: ApiClient,
  environment: string,
  { at, point }: MomentFlags,
  needed: boolean,
): Promise<NamedMoment> {
  if (at !== undefined && point !== undefined) {
    throw new OperationalError("input.invalid", "--at and --point both name a moment: give one of them");
  }
  if (at !== undefined) return { at: parseMoment(at, Date.now()) };
  if (point === undefined) {
    if (!needed) return {};
    throw new OperationalError("input.invalid", "name the moment with --at, or with --point");
  }
  const { points } = await api.get<PointsView>(environmentPath(environment, "/points"));
  const found = points.find(({ id }) => id === point);
  if (found === undefined) throw noSuchPoint(environment, point);
  return { at: found.at, sequence: found.sequence };
}

export function describeMoment({ at, sequence }: NamedMoment): string {
  const time = at === undefined ? "the last moment" : new Date(at).toISOString();
  return sequence === undefined ? time : `${time} (write ${sequence})`;
}
