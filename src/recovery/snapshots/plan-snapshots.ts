/**
 * What to do next with the snapshots that protect an environment's volumes, from what the cloud and the vault say of them. Pure: nothing
 * else is remembered, so that whoever was killed goes on.
 */
import type { DiskSnapshot } from "#cloud/snapshot-source.ts";
import type { KeptImage } from "#recovery/vault-desk.ts";

/** Bears the environment whose volume it is. */
export const environmentTag = "understudy:snapshot-of";
/** Taken together: the same for all of them. */
export const setTag = "understudy:snapshot-set";
/** How many there are in the set. */
export const membersTag = "understudy:snapshot-members";

export interface SnapshotMember {
  /** The cloud's own id. */
  readonly volumeId: string;
  /** What the vault's content of it is, or is being brought to. */
  readonly image: KeptImage | null;
  /** All of `image` is there. */
  readonly whole: boolean;
}

export interface SnapshotsSeen {
  readonly members: readonly SnapshotMember[];
  readonly snapshots: readonly DiskSnapshot[];
  readonly nowMs: number;
  readonly everyMs: number;
  /** When this process last had a set taken, by its own clock: the cloud's may differ. */
  readonly takenAtMs?: number;
  /** This very set is wanted, whatever the interval says. */
  readonly wantedSet?: string;
  /** A listing may lag behind a call by so much. */
  readonly listingLagMs: number;
}

/** One volume's content to be brought to a snapshot. */
export interface ImageCopy {
  readonly volumeId: string;
  readonly snapshot: DiskSnapshot;
  /** Null: as a whole, for the reason given. */
  readonly base: string | null;
  readonly reason: "first" | "changes" | "base_lost" | "other_content";
  readonly fromBytes: number;
}

export interface SnapshotsPlan {
  /** Of no use to anyone any more. */
  readonly remove: readonly DiskSnapshot[];
  readonly next:
    | { readonly do: "take" }
    | { readonly do: "copy"; readonly copies: readonly ImageCopy[] }
    /** Null: something has to happen in the cloud first. */
    | { readonly do: "wait"; readonly untilMs: number | null };
}

interface SnapshotSet {
  readonly snapshots: readonly DiskSnapshot[];
  readonly startedAt: number;
  readonly state: "whole" | "incomplete" | "failed";
}

function setsOf(snapshots: readonly DiskSnapshot[]): SnapshotSet[] {
  const groups = Map.groupBy(snapshots, ({ id, tags }) => tags[setTag] ?? id);
  const sets = Array.from(groups.values(), (all): SnapshotSet => {
    const members = Number(all[0]?.tags[membersTag] ?? Number.NaN);
    const failed = all.some(({ state }) => state === "failed");
    return {
      snapshots: all,
      startedAt: Math.min(...all.map(({ startedAt }) => startedAt)),
      state: failed ? "failed" : all.length === members ? "whole" : "incomplete",
    };
  });
  return sets.sort((a, b) => b.startedAt - a.startedAt);
}

export function planSnapshots(seen: SnapshotsSeen): SnapshotsPlan {
  const { members, nowMs, everyMs, listingLagMs } = seen;
  const byId = new Map(seen.snapshots.map((snapshot) => [snapshot.id, snapshot]));
  const sets = setsOf(seen.snapshots);
  const newest = sets.find(({ state }) => state === "whole");
  // What was begun is ended first: its changes are counted from what was there before it.
  const begun = sets.find(
    ({ state, snapshots }) =>
      state === "whole" &&
      snapshots.some(({ id }) => members.some(({ image, whole }) => !whole && image?.id === id)),
  );
  const current = begun ?? newest;
  const needed = new Set(members.flatMap(({ image, whole }) => [image?.id, whole ? null : image?.base]));
  const young = (set: SnapshotSet): boolean =>
    set.state === "incomplete" && set.startedAt + listingLagMs > nowMs;
  const kept = new Set(
    sets.flatMap((set) => (set === newest || set === current || young(set) ? set.snapshots : [])),
  );
  const remove = seen.snapshots.filter((one) => !kept.has(one) && (!needed.has(one.id) || isFailed(one)));

  const copies = current === undefined ? [] : copiesOf(current, members, byId);
  if (copies.length > 0) {
    const complete = copies.every(({ snapshot }) => snapshot.state === "complete");
    return { remove, next: complete ? { do: "copy", copies } : { do: "wait", untilMs: null } };
  }
  if (members.length === 0) return { remove, next: { do: "wait", untilMs: nowMs + everyMs } };
  if (sets.some(young)) return { remove, next: { do: "wait", untilMs: null } };
  const lacks = members.some(
    ({ volumeId }) => newest?.snapshots.some((one) => one.volumeId === volumeId) !== true,
  );
  const lastMs = Math.max(newest?.startedAt ?? 0, seen.takenAtMs ?? 0);
  const dueMs = newest === undefined || lacks ? nowMs : lastMs + everyMs;
  const other = seen.wantedSet !== undefined && newest?.snapshots[0]?.tags[setTag] !== seen.wantedSet;
  return { remove, next: other || dueMs <= nowMs ? { do: "take" } : { do: "wait", untilMs: dueMs } };
}

const isFailed = ({ state }: DiskSnapshot): boolean => state === "failed";

/** What is still to come of a set. */
function copiesOf(
  set: SnapshotSet,
  members: readonly SnapshotMember[],
  byId: ReadonlyMap<string, DiskSnapshot>,
): readonly ImageCopy[] {
  return members.flatMap(({ volumeId, image, whole }): ImageCopy[] => {
    const snapshot = set.snapshots.find((one) => one.volumeId === volumeId);
    if (snapshot === undefined || (whole && image?.id === snapshot.id)) return [];
    const fresh = { volumeId, snapshot, fromBytes: 0 };
    if (image === null) return [{ ...fresh, base: null, reason: "first" }];
    const baseId = whole ? image.id : image.base;
    const baseIsThere = baseId === null || byId.get(baseId)?.volumeId === volumeId;
    if (!baseIsThere) return [{ ...fresh, base: null, reason: "base_lost" }];
    if (whole) return [{ ...fresh, base: baseId, reason: "changes" }];
    if (image.id !== snapshot.id) return [{ ...fresh, base: null, reason: "other_content" }];
    const reason = baseId === null ? "first" : "changes";
    return [{ ...fresh, base: baseId, reason, fromBytes: image.throughBytes }];
  });
}
