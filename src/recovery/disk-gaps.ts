/** What stands between an environment's disks and a recovery of them, as gaps. Pure. */
import type { CaptureStatus } from "#cloud/disk-host.ts";
import type { Gap, GapCode } from "#model/gap.ts";
import { isFirstCopy } from "#recovery/kept-volumes.ts";
import type { KeptVolume } from "#recovery/vault-desk.ts";

export const diskGapCodes: readonly GapCode[] = ["data.behind", "data.half_restored", "data.points_behind"];

export interface DiskStanding {
  readonly volumeId: string;
  readonly lineage: string;
  /** Null: nothing captures it. */
  readonly capture: CaptureStatus | null;
  readonly problem: string | null;
}

export interface DiskFacts {
  readonly disks: readonly DiskStanding[];
  /** What the vault says of them. */
  readonly kept: readonly KeptVolume[];
  /** When the last write was captured up to which all is whole, in milliseconds since the epoch; null: there is no such moment. */
  readonly lastMomentAt: number | null;
  /** The first moment that can be named; null: there is none. */
  readonly firstMomentAt: number | null;
  /** Of the newest recovery point; null: there is none. */
  readonly lastPointAt: number | null;
  readonly pointsEveryMs: number;
  /** Ids of volumes that are part old and part new. */
  readonly half: readonly string[];
  readonly now: number;
}

/** A copy that takes longer than this is told of, in milliseconds. */
const copyWithinMs = 60_000;

/** Whether something is to be told that depends on the last whole moment: asking for it is not free. */
export function asksForMoment({
  disks,
  lastPointAt,
  pointsEveryMs,
  now,
}: Omit<DiskFacts, "lastMomentAt" | "firstMomentAt">): boolean {
  return (
    disks.some(({ capture }) => copiesForLong(capture, now)) ||
    (disks.length > 0 && now - (lastPointAt ?? 0) > 2 * pointsEveryMs)
  );
}

export function gapsOfDisks(facts: DiskFacts): readonly Gap[] {
  const half = facts.half.map((id): Gap => ({
    code: "data.half_restored",
    severity: "lost",
    resource: { kind: "volume", id },
    message: `volume ${id} is part old and part new, since a restore of it broke off: its servers start when a restore of it has come to its end, or when it is taken as it is ("understudy restore ${id} --as-it-is")`,
  }));
  return [...facts.disks.flatMap((disk) => gapOf(disk, facts) ?? []), ...half, ...pointsGap(facts)];
}

function copiesForLong(capture: CaptureStatus | null, now: number): boolean {
  return capture?.state === "synchronising" && now - capture.since > copyWithinMs;
}

function gapOf(disk: DiskStanding, { kept, lastMomentAt, now }: DiskFacts): Gap | undefined {
  const { volumeId: id, lineage, capture, problem } = disk;
  const behind = (message: string): Gap => ({
    code: "data.behind",
    severity: "degraded",
    resource: { kind: "volume", id },
    message,
  });
  if (problem !== null) return behind(`the writes of volume ${id} are not captured: ${problem}`);
  if (capture?.state === "interrupted") {
    return behind(
      `the capture of volume ${id} is interrupted: a takeover now would lose what it has written since`,
    );
  }
  if (capture === null || !copiesForLong(capture, now)) return undefined;
  const since = new Date(capture.since).toISOString();
  const what =
    capture.reason === "not_attached"
      ? `no machine has volume ${id}, so that it is not copied: attach it to a server that runs`
      : `volume ${id} is being copied since ${since}`;
  const volume = kept.find((one) => one.volume === lineage);
  if (volume === undefined || isFirstCopy(volume))
    return behind(`${what}; a takeover now would be without it`);
  if (volume.state === "continuous") return undefined;
  const last =
    lastMomentAt === null
      ? "no moment can be recovered to"
      : `no moment newer than ${new Date(lastMomentAt).toISOString()} can be recovered to`;
  return behind(`${what}; ${last}`);
}

/** Something was captured since the newest point, and no point of it was made. */
function pointsGap(facts: DiskFacts): readonly Gap[] {
  const { firstMomentAt, lastMomentAt, lastPointAt, pointsEveryMs, disks } = facts;
  const from = lastPointAt ?? firstMomentAt;
  if (lastMomentAt === null || from === null || disks.length === 0) return [];
  if (lastMomentAt - from <= 2 * pointsEveryMs) return [];
  const newest =
    lastPointAt === null ? "there is none" : `the newest is of ${new Date(lastPointAt).toISOString()}`;
  const every = Math.round(pointsEveryMs / 1000);
  const message = `a recovery point is to be made every ${every} s, and ${newest}: see the log of the engine for why`;
  return [{ code: "data.points_behind", severity: "degraded", message }];
}
