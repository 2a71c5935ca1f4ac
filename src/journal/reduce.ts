/**
 * Reduces a queue of changes to the least list with the same effect: what was created and deleted again vanishes, a
 * resource's updates become one, its tags become one. Pure; linear in the queue; memory for what the list names, not for
 * what the queue held.
 *
 * "The same effect" is `EnvironmentState`'s: applied to the state before the queue, the list gives the state after it.
 */
import type { ResourceId } from "#kernel/ids.ts";
import type { Change, CreateChange, TagChange, UpdateChange } from "#model/change.ts";
import { resourceKey } from "#model/environment-state.ts";
import type { Resource, ResourceKind } from "#model/resource.ts";
import { isLink } from "./links.ts";
import type { NetEntry, Span } from "./net-entry.ts";
import { extendSpan, referenceKeys, setsReferences, withTags } from "./net-entry.ts";
import { orderedChanges } from "./reduce-order.ts";

export interface PositionedChange {
  readonly position: number;
  readonly change: Change;
}

export interface NetChange {
  readonly change: Change;
  /** The commands that it stands for. */
  readonly from: Span;
}

export interface ReducedQueue {
  /** In an order in which each can be applied: what is referred to first, deletes after what let go of it. */
  readonly changes: readonly NetChange[];
  /** How many changes, of how many commands (positions), went in. */
  readonly changesRead: number;
  readonly commandsRead: number;
  /** Position of the last one; 0 for an empty queue. */
  readonly through: number;
}

/** The state before the queue, where the caller has it: it knows under which other ids its resources are named. */
export interface Before {
  get(kind: ResourceKind, id: string): Resource | undefined;
}

/** An earlier change of the queue took it away: then a change to it has no effect. */
function isGone(entry: NetEntry | undefined): boolean {
  if (entry === undefined) return false;
  return entry.spent !== undefined || (entry.deleted !== undefined && entry.created === undefined);
}

class Reduction {
  readonly entries = new Map<string, NetEntry>();
  readonly #before: Before | undefined;
  readonly #aliases = new Map<string, string>();
  /** Key -> keys of resources that the queue created and that refer to it. */
  readonly #referrers = new Map<string, Set<string>>();
  #tick = 0;
  #position = 0;

  constructor(before: Before | undefined) {
    this.#before = before;
  }

  readonly keyOf = (kind: ResourceKind, id: string): string => {
    const key = resourceKey(kind, id);
    const alias = this.#aliases.size === 0 ? undefined : this.#aliases.get(key);
    if (alias !== undefined) return alias;
    if (this.#before === undefined || this.entries.has(key)) return key;
    const known = this.#before.get(kind, id);
    return known === undefined ? key : resourceKey(kind, known.id);
  };

  readonly referrersOf = (key: string): Iterable<string> => this.#referrers.get(key) ?? [];

  add(position: number, change: Change): void {
    this.#position = position;
    this.#tick += 1;
    switch (change.type) {
      case "create":
        this.#create(change);
        return;
      case "update":
        this.#update(change);
        return;
      case "tag":
        this.#tag(change);
        return;
      case "delete":
        this.#delete(this.keyOf(change.kind, change.id), change.kind);
        return;
    }
  }

  #entry(key: string, kind: ResourceKind, known = this.entries.get(key)): NetEntry {
    let entry = known;
    if (entry === undefined) {
      entry = {
        kind,
        id: key.slice(kind.length + 1) as ResourceId,
        span: extendSpan(undefined, this.#position),
        deleted: undefined,
        created: undefined,
        updated: undefined,
        tagged: undefined,
        spent: undefined,
      };
      this.entries.set(key, entry);
    } else {
      entry.span = extendSpan(entry.span, this.#position);
    }
    return entry;
  }

  #create(change: CreateChange): void {
    const { type: _type, aliases = [], ...resource } = change;
    const key = resourceKey(change.kind, change.id);
    const entry = this.#entry(key, change.kind);
    const former = entry.created?.resource;
    const known = entry.created?.aliases ?? new Set<ResourceId>();
    const tick = this.#tick;
    entry.created = { tick, resource: resource as Resource, aliases: known, referred: tick };
    entry.updated = undefined;
    entry.tagged = undefined;
    entry.spent = undefined;
    for (const alias of aliases) {
      known.add(alias);
      this.#aliases.set(resourceKey(change.kind, alias), key);
    }
    this.#refer(key, former, entry.created.resource);
  }

  #update(change: UpdateChange): void {
    const key = this.keyOf(change.kind, change.id);
    const known = this.entries.get(key);
    if (isGone(known) || Object.keys(change.set).length === 0) return;
    const entry = this.#entry(key, change.kind, known);
    const tick = this.#tick;
    const refers = setsReferences(change.set);
    if (entry.created !== undefined) {
      const { resource } = entry.created;
      entry.created.resource = { ...resource, spec: { ...resource.spec, ...change.set } } as Resource;
      if (refers) entry.created.referred = tick;
      this.#refer(key, resource, entry.created.resource);
      return;
    }
    const former = entry.updated?.references;
    entry.updated = {
      set: { ...entry.updated?.set, ...change.set },
      tick,
      references: refers ? { first: former?.first ?? tick, last: tick } : former,
    };
  }

  #tag(change: TagChange): void {
    const key = this.keyOf(change.kind, change.id);
    const known = this.entries.get(key);
    if (isGone(known)) return;
    if (change.remove.length === 0 && Object.keys(change.set).length === 0) return;
    const entry = this.#entry(key, change.kind, known);
    if (entry.created !== undefined) {
      const { resource } = entry.created;
      entry.created.resource = { ...resource, tags: withTags(resource.tags, change.set, change.remove) };
      return;
    }
    entry.tagged ??= { keys: new Map(), tick: this.#tick };
    entry.tagged.tick = this.#tick;
    for (const [name, value] of Object.entries(change.set)) entry.tagged.keys.set(name, value);
    for (const name of change.remove) entry.tagged.keys.set(name, null);
  }

  /** As `EnvironmentState` does: links go with either end, and volumes with their server where a link says so. */
  #delete(key: string, kind: ResourceKind): void {
    const known = this.entries.get(key);
    if (isGone(known)) return;
    this.#tick += 1;
    this.#end(key, this.#entry(key, kind, known));
    const referrers = this.#referrers.get(key);
    if (referrers === undefined) return;
    for (const referrer of Array.from(referrers)) {
      const link = this.entries.get(referrer)?.created?.resource;
      if (link === undefined || !isLink(link.kind)) continue;
      this.#delete(referrer, link.kind);
      if (kind === "server" && link.kind === "volumeAttachment" && link.spec.deleteOnTermination) {
        const volume = link.spec.volumeId;
        this.#delete(resourceKey("volume", volume), "volume");
      }
    }
  }

  #end(key: string, entry: NetEntry): void {
    const moved = entry.updated?.references?.first;
    entry.updated = undefined;
    entry.tagged = undefined;
    if (entry.created === undefined) {
      entry.deleted = { tick: this.#tick, moved };
      return;
    }
    this.#refer(key, entry.created.resource, undefined);
    if (this.#madeSomethingThatStays(key)) {
      entry.spent = { tick: this.#tick };
      return;
    }
    this.#forgetCreated(key, entry);
  }

  #madeSomethingThatStays(key: string): boolean {
    for (const referrer of this.referrersOf(key)) {
      const resource = this.entries.get(referrer)?.created?.resource;
      if (resource !== undefined && !isLink(resource.kind)) return true;
    }
    return false;
  }

  /** Created and deleted again: as if it had never been, unless there was another of that id before the queue. */
  #forgetCreated(key: string, entry: NetEntry): void {
    for (const alias of entry.created?.aliases ?? []) this.#aliases.delete(resourceKey(entry.kind, alias));
    const former = entry.deleted === undefined ? this.#before?.get(entry.kind, entry.id) : undefined;
    const replaced = former !== undefined && !this.#endsWithAnEnd(former);
    entry.created = undefined;
    entry.spent = undefined;
    if (replaced) entry.deleted = { tick: this.#tick };
    if (entry.deleted === undefined) this.entries.delete(key);
  }

  /** A link from before the queue goes with the first of its ends that the queue deletes: nothing is left to be deleted. */
  #endsWithAnEnd(resource: Resource): boolean {
    return (
      isLink(resource.kind) &&
      referenceKeys(resource).some((end) => this.entries.get(end)?.deleted !== undefined)
    );
  }

  /** A resource that the queue created refers to something else now than before. */
  #refer(key: string, former: Resource | undefined, present: Resource | undefined): void {
    const ends = present === undefined ? [] : referenceKeys(present);
    for (const end of ends) {
      const referrers = this.#referrers.get(end) ?? new Set();
      this.#referrers.set(end, referrers.add(key));
    }
    for (const end of former === undefined ? [] : referenceKeys(former)) {
      if (!ends.includes(end)) this.#letGo(key, end);
    }
  }

  #letGo(key: string, end: string): void {
    const referrers = this.#referrers.get(end);
    referrers?.delete(key);
    if (referrers?.size === 0) this.#referrers.delete(end);
    const entry = this.entries.get(end);
    if (entry?.spent !== undefined && !this.#madeSomethingThatStays(end)) this.#forgetCreated(end, entry);
  }
}

/** A reduction that is fed as the queue is read, so that the queue is never in memory. */
export interface RunningReduction {
  /** In the order of positions. */
  add(entry: PositionedChange): void;
  result(): ReducedQueue;
}

/**
 * @param before the state before the first change. Without it, a resource that was created before the queue must be named
 *   by the same id throughout the queue.
 */
export function startReduction(before?: Before): RunningReduction {
  const reduction = new Reduction(before);
  let changesRead = 0;
  let commandsRead = 0;
  let through = 0;
  return {
    add({ position, change }) {
      changesRead += 1;
      if (position !== through) commandsRead += 1;
      through = position;
      reduction.add(position, change);
    },
    result: () => ({ changes: orderedChanges(reduction), changesRead, commandsRead, through }),
  };
}

/** Reduces a queue that is at hand; see `startReduction` for `before`. */
export function reduceChanges(changes: Iterable<PositionedChange>, before?: Before): ReducedQueue {
  const reduction = startReduction(before);
  for (const entry of changes) reduction.add(entry);
  return reduction.result();
}
