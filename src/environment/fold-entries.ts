/** Folds commands into the state and keeps account of what that touched. */
import type { ResourceId } from "#kernel/ids.ts";
import type { Change } from "#model/change.ts";
import type { JournalEntry } from "#model/command.ts";
import type { EnvironmentState } from "#model/environment-state.ts";
import { resourceKey } from "#model/environment-state.ts";
import type { Gap } from "#model/gap.ts";
import type { Reference, Resource, ResourceKind } from "#model/resource.ts";
import { referencesOf } from "#model/resource.ts";
import type { LoadedState } from "./load-state.ts";

export interface Folded {
  /** Key -> position of the command that last changed it. */
  readonly written: ReadonlyMap<string, number>;
  readonly removed: readonly Resource[];
  readonly gaps: readonly { readonly gap: Gap; readonly at: number }[];
  /** What was named but never made by a command. */
  readonly missing: readonly Reference[];
  readonly position: number;
}

/** The sink that `loadState` tells of removals. */
export type Removals = Map<string, Resource>;

export class StateFold {
  readonly state: EnvironmentState;
  readonly #aliases: Map<string, readonly ResourceId[]>;
  readonly #removed: Removals;

  constructor(loaded: Pick<LoadedState, "state" | "aliases">, removed: Removals) {
    this.state = loaded.state;
    this.#aliases = loaded.aliases;
    this.#removed = removed;
  }

  /** All that the state refers to and does not have, and key pairs whose public key is not known. */
  missing(): Reference[] {
    const missing = new Map<string, Reference>();
    for (const resource of this.state.resources()) {
      for (const end of this.#unknownEnds(resource)) missing.set(resourceKey(end.kind, end.id), end);
    }
    return [...missing.values()];
  }

  aliases(key: string): readonly ResourceId[] {
    return this.#aliases.get(key) ?? [];
  }

  resource(key: string): Resource | undefined {
    const at = key.indexOf(":");
    return this.state.get(key.slice(0, at) as ResourceKind, key.slice(at + 1));
  }

  fold(entries: readonly JournalEntry[]): Folded {
    const written = new Map<string, number>();
    const missing = new Map<string, Reference>();
    const gaps: { gap: Gap; at: number }[] = [];
    let position = 0;
    this.#removed.clear();
    for (const entry of entries) {
      if (entry.outcome === null || entry.position === null) continue;
      position = entry.position;
      for (const gap of entry.outcome.gaps) gaps.push({ gap, at: entry.outcome.at });
      for (const change of entry.outcome.changes) this.#apply(change, position, written, missing);
    }
    const removed = [...this.#removed.values()];
    for (const { kind, id } of removed) this.#aliases.delete(resourceKey(kind, id));
    return { written, removed, gaps, missing: [...missing.values()], position };
  }

  /** What the cloud was seen to hold: as if a command had made it. */
  observe(resource: Resource): readonly Reference[] {
    this.state.put(resource, this.aliases(resourceKey(resource.kind, resource.id)));
    return this.#unknownEnds(resource);
  }

  #apply(
    change: Change,
    position: number,
    written: Map<string, number>,
    missing: Map<string, Reference>,
  ): void {
    const result = this.state.apply(change);
    if (result === "unknown") {
      // Gone is what a delete wants; everything else is about something made before Understudy.
      if (change.type !== "delete") missing.set(resourceKey(change.kind, change.id), change);
      return;
    }
    if (change.type === "delete") {
      for (const key of this.#removed.keys()) written.delete(key);
      return;
    }
    const resource = this.state.get(change.kind, change.id);
    if (resource === undefined) return;
    const key = resourceKey(resource.kind, resource.id);
    if (change.type === "create" && change.aliases !== undefined) this.#aliases.set(key, change.aliases);
    this.#removed.delete(key);
    written.set(key, position);
    for (const end of this.#unknownEnds(resource)) missing.set(resourceKey(end.kind, end.id), end);
  }

  #unknownEnds(resource: Resource): Reference[] {
    const ends = referencesOf(resource).filter(({ kind, id }) => !this.state.has(kind, id));
    const unread = resource.kind === "keyPair" && resource.spec.publicKey === undefined;
    return unread ? [...ends, { kind: "keyPair", id: resource.id }] : ends;
  }
}
