/**
 * Puts net changes into an order in which each can be applied. The queue's own order is the start, since a cloud
 * accepted it; merging moves a change away from its place, so what it now depends on is drawn before it.
 */
import type { Change } from "#model/change.ts";
import type { ResourceKind } from "#model/resource.ts";
import { isLink } from "./links.ts";
import type { NetEntry, Span } from "./net-entry.ts";
import { referenceKeys, referenceKeysSet } from "./net-entry.ts";

/** What other resources than links refer to: it cannot go before they have let go of it. */
const holdable: ReadonlySet<ResourceKind> = new Set(["network", "subnet", "securityGroup", "keyPair"]);

interface Part {
  readonly tick: number;
  readonly change: Change;
  readonly from: Span;
  /** Keys of resources that must have been created before, if this list creates them. */
  readonly needs: readonly string[];
  /** When `needs` was said last: a name may stand for one thing before and for another after. */
  readonly referred?: number | undefined;
  /** For a delete: the key of what goes. */
  readonly ends?: string;
  /** The tick of the first change that moved references: of an update, or of one that a delete made needless. */
  readonly moved?: number | undefined;
  /** Another part of the same resource that comes first. */
  readonly after?: Part | undefined;
  placed: boolean;
}

interface Source {
  readonly entries: ReadonlyMap<string, NetEntry>;
  readonly referrersOf: (key: string) => Iterable<string>;
}

interface PartsOf {
  readonly all: Part[];
  readonly creates: Map<string, Part>;
}

function deletePart(
  key: string,
  entry: NetEntry,
  { tick, moved }: NonNullable<NetEntry["deleted"]>,
  after?: Part,
): Part {
  const change: Change = { type: "delete", kind: entry.kind, id: entry.id };
  return { tick, change, from: entry.span, needs: [], ends: key, moved, after, placed: false };
}

function createPart(entry: NetEntry, after: Part | undefined): Part | undefined {
  if (entry.created === undefined) return undefined;
  const { resource, aliases, tick, referred } = entry.created;
  const named = aliases.size === 0 ? {} : { aliases: [...aliases] };
  const change = { type: "create", ...resource, ...named } as Change;
  return {
    tick,
    change,
    from: entry.span,
    needs: referenceKeys(resource),
    referred,
    after,
    placed: false,
  };
}

function changeParts(entry: NetEntry): Part[] {
  const { kind, id, span: from } = entry;
  const parts: Part[] = [];
  if (entry.updated !== undefined) {
    const { set, tick, references } = entry.updated;
    const change = { type: "update", kind, id, set } as Change;
    const needs = referenceKeysSet(kind, id, set);
    const { first: moved, last: referred } = references ?? {};
    parts.push({ tick, change, from, needs, referred, moved, placed: false });
  }
  if (entry.tagged !== undefined) {
    const keys = [...entry.tagged.keys];
    const set = Object.fromEntries(keys.filter((pair): pair is [string, string] => pair[1] !== null));
    const remove = keys.filter(([, value]) => value === null).map(([name]) => name);
    const change: Change = { type: "tag", kind, id, set, remove };
    parts.push({ tick: entry.tagged.tick, change, from, needs: [], placed: false });
  }
  return parts;
}

function partsOf(source: Source): PartsOf {
  const all: Part[] = [];
  const creates = new Map<string, Part>();
  for (const [key, entry] of source.entries) {
    const first = entry.deleted === undefined ? undefined : deletePart(key, entry, entry.deleted);
    const create = createPart(entry, first);
    if (first !== undefined) all.push(first);
    if (create !== undefined) {
      all.push(create);
      creates.set(key, create);
    }
    all.push(...changeParts(entry));
    if (entry.spent !== undefined) all.push(deletePart(key, entry, entry.spent, create));
  }
  return { all: all.sort((a, b) => a.tick - b.tick), creates };
}

export function orderedChanges(source: Source): { change: Change; from: Span }[] {
  const { all, creates } = partsOf(source);
  const ordered: { change: Change; from: Span }[] = [];
  const moved = all
    .filter((part) => part.moved !== undefined)
    .sort((a, b) => (a.moved ?? 0) - (b.moved ?? 0));
  const movers = moved.filter((part) => part.ends === undefined);
  const leavers = moved.filter((part) => part.ends !== undefined);
  const links = all.filter(({ change }) => isLink(change.kind) && change.type !== "create");
  let nextMover = 0;
  let nextLeaver = 0;
  let nextLink = 0;

  /** A merged update may have let go, early in the queue, of what is deleted here. */
  function placeMoversBefore(tick: number): void {
    for (;;) {
      const mover = movers[nextMover];
      if (mover?.moved === undefined || mover.moved > tick) return;
      nextMover += 1;
      place(mover);
    }
  }

  /** So may one that a delete made needless: then that delete comes first, after what had become of its links by then. */
  function placeLeaversBefore(tick: number): void {
    for (;;) {
      const leaver = leavers[nextLeaver];
      if (leaver?.moved === undefined || leaver.moved > tick) return;
      nextLeaver += 1;
      if (leaver.placed) continue;
      for (
        let link = links[nextLink];
        link !== undefined && link.tick < leaver.tick;
        link = links[nextLink]
      ) {
        nextLink += 1;
        place(link);
      }
      place(leaver);
    }
  }

  function place(part: Part | undefined): void {
    if (part === undefined || part.placed) return;
    part.placed = true;
    place(part.after);
    for (const key of part.needs) {
      const create = creates.get(key);
      // The one that the list deletes was meant, not its successor of the same name: that stands already.
      const predecessor = create?.after;
      if (predecessor === undefined || (part.referred ?? 0) > predecessor.tick) place(create);
    }
    if (part.ends !== undefined) {
      placeMoversBefore(part.tick);
      if (holdable.has(part.change.kind)) placeLeaversBefore(part.tick);
      // What is created with it must be there before it goes; what is created with its successor comes later.
      for (const key of source.referrersOf(part.ends)) {
        const referrer = creates.get(key);
        if (referrer !== undefined && referrer.tick < part.tick) place(referrer);
      }
    }
    ordered.push({ change: part.change, from: part.from });
  }

  for (const part of all) place(part);
  return ordered;
}
