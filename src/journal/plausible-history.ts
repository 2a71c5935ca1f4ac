/**
 * Command histories such as a cloud would have accepted: each change is possible in the state before it. Driven by
 * numbers, so that a property test shrinks them and a benchmark makes any length of them lazily.
 */
import type { ResourceId } from "#kernel/ids.ts";
import type { Change, CreateChange } from "#model/change.ts";
import { EnvironmentState } from "#model/environment-state.ts";
import type { Resource, ResourceKind, ResourceOf, SecurityGroupRuleSpec } from "#model/resource.ts";
import { referencesOf, resourceKinds, securityGroupRuleId, volumeAttachmentId } from "#model/resource.ts";
import { isLink } from "./links.ts";

/** Four numbers decide one step: what is done, and to which of the candidates. */
export type Step = readonly [action: number, which: number, other: number, value: number];

type Of<K extends ResourceKind> = Extract<Resource, ResourceOf<K>>;

const tagNames = ["Name", "tier", "owner", "__proto__"] as const;

function pick<T>(items: readonly T[], number: number): T | undefined {
  return items[number % Math.max(items.length, 1)];
}

export class PlausibleHistory {
  readonly state = new EnvironmentState();
  readonly #byKind = new Map<ResourceKind, Map<string, Resource>>();
  readonly #aliasOf = new Map<string, ResourceId>();
  #serial = 0;

  /** The changes of one command; none if the step is not possible now. They are applied to `state`. */
  next(step: Step): Change[] {
    const changes = this.#propose(step);
    for (const change of changes) {
      this.state.apply(change);
      this.#track(change);
    }
    return changes;
  }

  #track(change: Change): void {
    if (change.type === "delete") {
      // Cascades make the state the only judge of what is left.
      for (const kind of resourceKinds) {
        for (const id of this.#byKind.get(kind)?.keys() ?? []) {
          if (!this.state.has(kind, id)) this.#byKind.get(kind)?.delete(id);
        }
      }
      return;
    }
    const now = this.state.get(change.kind, change.id);
    if (now === undefined) return;
    const kin = this.#byKind.get(change.kind) ?? new Map<string, Resource>();
    this.#byKind.set(change.kind, kin.set(now.id, now));
    if (change.type === "create" && change.aliases?.[0] !== undefined) {
      this.#aliasOf.set(`${change.kind}:${change.id}`, change.aliases[0]);
    }
  }

  #all<K extends ResourceKind>(kind: K): Of<K>[] {
    return [...(this.#byKind.get(kind)?.values() ?? [])] as Of<K>[];
  }

  #some<K extends ResourceKind>(kind: K, number: number): Of<K> | undefined {
    return pick(this.#all(kind), number);
  }

  #id(prefix: string): ResourceId {
    this.#serial += 1;
    return `${prefix}-${this.#serial}` as ResourceId;
  }

  #propose([action, which, other, value]: Step): Change[] {
    const kind = resourceKinds[which % resourceKinds.length] ?? "server";
    switch (action % 8) {
      case 0:
      case 1:
      case 2:
        return this.#create(kind, other, value);
      case 3:
      case 4:
        return this.#update(kind, other, value);
      case 5:
        return this.#tag(kind, other, value);
      default:
        return this.#delete(kind, other, value);
    }
  }

  #create(kind: ResourceKind, other: number, value: number): Change[] {
    const change = this.#creation(kind, other, value);
    if (change === undefined || this.state.has(change.kind, change.id)) return [];
    return [change];
  }

  #creation(kind: ResourceKind, other: number, value: number): CreateChange | undefined {
    const tags = value % 3 === 0 ? { Name: `n${value}` } : {};
    const head = { type: "create", tags } as const;
    switch (kind) {
      case "network":
        return { ...head, kind, id: this.#id("vpc"), spec: { internet: value % 2 === 0 } };
      case "subnet": {
        const network = this.#some("network", other);
        if (network === undefined) return undefined;
        const spec = { networkId: network.id, cidr: `10.0.${value}.0/24`, publicAddresses: false };
        return { ...head, kind, id: this.#id("subnet"), spec };
      }
      case "securityGroup": {
        const network = this.#some("network", other);
        const placed = network === undefined ? {} : { networkId: network.id };
        return {
          ...head,
          kind,
          id: this.#id("sg"),
          spec: { ...placed, name: `g${value}`, description: "d" },
        };
      }
      case "keyPair": {
        const id = `key${value % 3}` as ResourceId;
        const aliases = [this.#id("key")];
        return { ...head, kind, id, aliases, spec: { name: id, publicKey: `ssh ${this.#serial}` } };
      }
      case "volume":
        return { ...head, kind, id: this.#id("vol"), spec: { sizeGiB: 1 + (value % 9) } };
      case "address":
        return { ...head, kind, id: this.#id("eip"), spec: {} };
      case "server":
        return this.#server(other, value, tags);
      case "securityGroupRule":
      case "volumeAttachment":
      case "addressAssociation":
        return this.#link(kind, other, value);
    }
  }

  #server(other: number, value: number, tags: Record<string, string>): CreateChange {
    const subnet = this.#some("subnet", other);
    const group = this.#some("securityGroup", value);
    const pair = value % 2 === 0 ? this.#some("keyPair", other) : undefined;
    const spec = {
      imageId: "ami",
      type: `t${value % 4}`,
      groupIds: group === undefined ? [] : [group.id],
      publicAddress: false,
      power: "running",
      blockDevices: [],
      ...(subnet === undefined ? {} : { subnetId: subnet.id }),
      ...(pair === undefined ? {} : { keyName: pair.id }),
    } as const;
    return { type: "create", kind: "server", id: this.#id("i"), spec, tags };
  }

  #link(
    kind: "securityGroupRule" | "volumeAttachment" | "addressAssociation",
    other: number,
    value: number,
  ): CreateChange | undefined {
    const head = { type: "create", tags: {} } as const;
    if (kind === "securityGroupRule") {
      const group = this.#some("securityGroup", other);
      const peerGroup = this.#some("securityGroup", value);
      if (group === undefined || peerGroup === undefined) return undefined;
      const peer = value % 2 === 0 ? { cidr: "0.0.0.0/0" } : { groupId: peerGroup.id };
      const spec: SecurityGroupRuleSpec = {
        groupId: group.id,
        direction: "ingress",
        protocol: "tcp",
        fromPort: value % 3,
        toPort: value % 3,
        peer,
        description: `r${value}`,
      };
      return { ...head, kind, id: securityGroupRuleId(spec), aliases: [this.#id("sgr")], spec };
    }
    const server = this.#some("server", other);
    if (server === undefined) return undefined;
    if (kind === "volumeAttachment") {
      const taken = new Set(this.#all("volumeAttachment").map((link) => link.spec.volumeId));
      const volume = pick(
        this.#all("volume").filter(({ id }) => !taken.has(id)),
        value,
      );
      if (volume === undefined) return undefined;
      const id = volumeAttachmentId(volume.id, server.id);
      const deleteOnTermination = value % 2 === 0;
      const spec = { volumeId: volume.id, serverId: server.id, device: "/dev/sdf", deleteOnTermination };
      return { ...head, kind, id, spec };
    }
    const taken = new Set(this.#all("addressAssociation").map((link) => link.spec.addressId));
    const address = pick(
      this.#all("address").filter(({ id }) => !taken.has(id)),
      value,
    );
    if (address === undefined) return undefined;
    const id = `assoc-${address.id}-${value % 2}` as ResourceId;
    const spec = { addressId: address.id, serverId: server.id };
    return { ...head, kind: "addressAssociation", id, spec };
  }

  /** Under its own id, or where it has one and the number says so, under its alias. */
  #name(resource: Resource, number: number): ResourceId {
    const alias = this.#aliasOf.get(`${resource.kind}:${resource.id}`);
    return alias !== undefined && number % 2 === 1 ? alias : resource.id;
  }

  #update(kind: ResourceKind, other: number, value: number): Change[] {
    const target = this.#some(kind, other);
    if (target === undefined) return [];
    const id = this.#name(target, value);
    const head = { type: "update", id } as const;
    switch (target.kind) {
      case "network":
        return [{ ...head, kind: target.kind, set: { internet: value % 2 === 0 } }];
      case "subnet":
        return [{ ...head, kind: target.kind, set: { publicAddresses: value % 2 === 0 } }];
      case "securityGroupRule":
        return [{ ...head, kind: target.kind, set: { description: `u${value}` } }];
      case "volume":
        return [{ ...head, kind: target.kind, set: { sizeGiB: target.spec.sizeGiB + 1 } }];
      case "volumeAttachment":
        return [{ ...head, kind: target.kind, set: { deleteOnTermination: value % 2 === 0 } }];
      case "server": {
        const group = this.#some("securityGroup", value);
        if (value % 3 === 0) return [{ ...head, kind: target.kind, set: { type: `t${value}` } }];
        if (value % 3 === 1) return [{ ...head, kind: target.kind, set: { power: "stopped" } }];
        return [{ ...head, kind: target.kind, set: { groupIds: group === undefined ? [] : [group.id] } }];
      }
      case "securityGroup":
      case "keyPair":
      case "address":
      case "addressAssociation":
        return [];
    }
  }

  #tag(kind: ResourceKind, other: number, value: number): Change[] {
    const target = this.#some(kind, other);
    if (target === undefined) return [];
    const name = tagNames[value % tagNames.length] ?? "Name";
    const second = tagNames[(value + 1) % tagNames.length] ?? "Name";
    const set = value % 5 === 0 ? {} : Object.fromEntries([[name, `v${value}`]]);
    const remove = value % 4 === 0 ? [second] : [];
    return [{ type: "tag", kind, id: this.#name(target, value), set, remove }];
  }

  /** Links go with their ends; what anything else still refers to stays, but for key pairs, which a cloud lets go. */
  #delete(kind: ResourceKind, other: number, value: number): Change[] {
    const target = this.#some(kind, other);
    if (target === undefined) return [];
    const held =
      target.kind !== "keyPair" &&
      resourceKinds
        .filter((user) => !isLink(user))
        .flatMap((user) => this.#all(user))
        .some((user) => referencesOf(user).some((end) => end.kind === kind && end.id === target.id));
    return held ? [] : [{ type: "delete", kind, id: this.#name(target, value) }];
  }
}
