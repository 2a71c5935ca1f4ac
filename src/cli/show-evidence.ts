/** What was seen of a point when it was booted and probed, for people. */
import { writeFile } from "node:fs/promises";
import { formatTime } from "#cli/table.ts";
import { OperationalError } from "#kernel/errors.ts";
import type { Evidence, ServerEvidence } from "#model/evidence.ts";

const consoleLines = 5;

export function describeEvidence(evidence: Evidence | null): readonly string[] {
  if (evidence === null) return [];
  const { at, good, summary, servers } = evidence;
  return [
    `  booted         ${formatTime(at)}, ${good ? "good" : "NOT good"}: ${summary}`,
    ...servers.flatMap((server) => [
      ...server.verdicts.map(
        ({ check, problem }) =>
          `  ${server.name.padEnd(13)}  ${check}: ${problem === null ? "holds" : `fails: ${problem}`}`,
      ),
      ...lastLines(server.console).map((line) => `  ${server.name.padEnd(13)}  | ${line}`),
      ...(server.screenshot === null ? [] : [`  ${server.name.padEnd(13)}  a screenshot: --screenshot FILE`]),
    ]),
  ];
}

/** What a guest prints is for terminals of its own, not for ours: no control characters. */
function lastLines(console: string | null): readonly string[] {
  const lines = (console ?? "").split(/\r?\n/u).map((line) => line.replaceAll(/\p{Cc}/gu, ""));
  return lines.filter((line) => line.trim() !== "").slice(-consoleLines);
}

/** Errors: `not_found` where none is kept, `input.invalid` where several are and none was named, `state.conflict` for a file that exists. */
export async function saveScreenshot(
  evidence: Evidence | null,
  server: string | undefined,
  file: string,
): Promise<void> {
  const all = (evidence?.servers ?? []).filter(({ screenshot }) => screenshot !== null);
  const named = all.filter(({ id, name }) => server === undefined || id === server || name === server);
  const [one, ...others] = named;
  if (one?.screenshot == null) throw noScreenshot(all, server);
  if (others.length > 0) {
    const names = named.map(({ name, id }) => `${name} (${id})`).join(", ");
    throw new OperationalError("input.invalid", `say whose screenshot with --server: ${names}`);
  }
  try {
    await writeFile(file, Buffer.from(one.screenshot, "base64"), { flag: "wx" });
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new OperationalError("state.conflict", `the screenshot can't be written: ${why}`, { cause: error });
  }
}

function noScreenshot(all: readonly ServerEvidence[], server: string | undefined): OperationalError {
  const names = all.map(({ name }) => name).join(", ");
  const kept =
    names === "" ? "no server that was booted had a display" : `those that are kept are of: ${names}`;
  return new OperationalError(
    "not_found",
    `no screenshot ${server === undefined ? "" : `of "${server}" `}is kept: ${kept}`,
  );
}
