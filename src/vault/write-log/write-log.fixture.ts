/** What tests of the write log share. */
import { randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext } from "node:test";
import { systemClock } from "#kernel/clock.ts";
import { CaptureTarget } from "./capture-target.ts";
import { type LogHistory } from "./open-moment.ts";
import { openSegmentFolder } from "./open-segment-folder.ts";
import { noPoints } from "./point-store.ts";
import { openWriteLog } from "./open-write-log.ts";
import type { OpenWriteLogOptions, WriteLog } from "./write-log.ts";

export const logKey = randomBytes(32);
export const diskBytes = 3 * 1024 * 1024;

export async function newFolder(t: TestContext): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), "write-log-"));
  t.after(() => rm(path, { recursive: true, force: true }));
  return path;
}

export async function openLog(
  t: TestContext,
  options: Partial<OpenWriteLogOptions> & { path?: string } = {},
): Promise<WriteLog> {
  const folder = openSegmentFolder(options.path ?? (await newFolder(t)));
  const log = await openWriteLog({
    folder,
    group: "shop",
    logKey,
    clock: systemClock,
    points: noPoints,
    ...options,
  });
  t.after(() => log.close());
  return log;
}

export async function twoDisks(log: WriteLog): Promise<{ a: CaptureTarget; b: CaptureTarget }> {
  await log.addVolume("a", diskBytes);
  await log.addVolume("b", diskBytes);
  const [a, b] = [new CaptureTarget(log, "a"), new CaptureTarget(log, "b")];
  await a.completeSynchronisation();
  await b.completeSynchronisation();
  return { a, b };
}

export const until = async (condition: () => boolean): Promise<void> => {
  while (!condition()) await new Promise((resolve) => void setTimeout(resolve, 5));
};

/** What a moment is opened from, without the log's own life. */
export const historyOf = ({ group, shelf, points, lastRecord }: LogHistory): LogHistory => ({
  group,
  shelf,
  points,
  lastRecord,
});
