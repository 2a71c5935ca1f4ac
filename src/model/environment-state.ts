/** The environment as the journal tells it: a pure fold of changes. */
import type { ResourceId } from "#kernel/ids.ts";
import type { Change } from "#model/change.ts";
import type { Resource, ResourceKind } from "#model/resource.ts";
import { referencesOf } from "#model/resource.ts";

const linkKinds: ReadonlySet<ResourceKind> = new Set([
  "securityGroupRule",
  "volumeAttachment",
  "addressAssociation",
]);

export function resourceKey(kind: ResourceKind, id: string): string {
  return `${kind}:${id}`;
}

/** Mutable by design: one owner folds a long journal into it. */
export class EnvironmentState {
  readonly #resources = new Map<string, Resource>();
  readonly #aliases = new Map<string, string>();
  /** Key of a resource -> keys of the links that refer to it. */
  readonly #links = new Map<string, Set<string>>();

  readonly #onRemoved: ((resource: Resource) => void) | undefined;

  /** `onRemoved` is told of each resource that goes, those that end with another one included. */
  constructor(onRemoved?: (resource: Resource) => void) {
    this.#onRemoved = onRemoved;
  }

  static of(resources: Iterable<Resource>, onRemoved?: (resource: Resource) => void): EnvironmentState {
    const state = new EnvironmentState(onRemoved);
    for (const resource of resources) state.put(resource);
    return state;
  }

  get size(): number {
    return this.#resources.size;
  }

  get(kind: ResourceKind, id: string): Resource | undefined {
    return this.#resources.get(this.#key(kind, id));
  }

  has(kind: ResourceKind, id: string): boolean {
    return this.#resources.has(this.#key(kind, id));
  }

  resources(): Iterable<Resource> {
    return this.#resources.values();
  }

  put(resource: Resource, aliases: readonly ResourceId[] = []): void {
    const key = resourceKey(resource.kind, resource.id);
    this.#unlink(key);
    this.#resources.set(key, resource);
    for (const alias of aliases) this.#aliases.set(resourceKey(resource.kind, alias), key);
    if (!linkKinds.has(resource.kind)) return;
    for (const end of referencesOf(resource)) {
      const endKey = resourceKey(end.kind, end.id);
      const links = this.#links.get(endKey) ?? new Set();
      links.add(key);
      this.#links.set(endKey, links);
    }
  }

  /**
   * Applies one change. A change to an unknown resource is ignored here and returned as `unknown`, because what to do
   * about it (read it from the cloud, or name a gap) is a decision of the caller.
   */
  apply(change: Change): "applied" | "unknown" {
    switch (change.type) {
      case "create": {
        const { type: _type, aliases, ...resource } = change;
        this.put(resource, aliases);
        return "applied";
      }
      case "update": {
        const current = this.get(change.kind, change.id);
        if (current === undefined) return "unknown";
        this.put({ ...current, spec: { ...current.spec, ...change.set } } as Resource);
        return "applied";
      }
      case "tag": {
        const current = this.get(change.kind, change.id);
        if (current === undefined) return "unknown";
        const tags: Record<string, string> = { ...current.tags, ...change.set };
        for (const key of change.remove) delete tags[key];
        this.put({ ...current, tags });
        return "applied";
      }
      case "delete": {
        if (!this.has(change.kind, change.id)) return "unknown";
        this.#remove(this.#key(change.kind, change.id));
        return "applied";
      }
    }
  }

  #key(kind: ResourceKind, id: string): string {
    const key = resourceKey(kind, id);
    return this.#aliases.get(key) ?? key;
  }

  #unlink(key: string): void {
    const current = this.#resources.get(key);
    if (current === undefined || !linkKinds.has(current.kind)) return;
    for (const end of referencesOf(current)) this.#links.get(resourceKey(end.kind, end.id))?.delete(key);
  }

  /** A resource goes, and with it its links, and the volumes that a link says end with the server. */
  #remove(key: string): void {
    const current = this.#resources.get(key);
    if (current === undefined) return;
    this.#unlink(key);
    this.#resources.delete(key);
    this.#onRemoved?.(current);
    const links = this.#links.get(key);
    this.#links.delete(key);
    for (const linkKey of links ?? []) {
      const link = this.#resources.get(linkKey);
      this.#remove(linkKey);
      if (current.kind === "server" && link?.kind === "volumeAttachment" && link.spec.deleteOnTermination) {
        this.#remove(resourceKey("volume", link.spec.volumeId));
      }
    }
  }
}
