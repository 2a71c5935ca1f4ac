/**
 * A bare host as a cloud: its host agent serves the contract's nouns and keeps all state; here they are only
 * asked for, and errors get the contract's codes.
 */
import type {
  Catalogue,
  Cloud,
  CloudFacts,
  CloudIdentity,
  CreateRequest,
  ListFilter,
  Observed,
} from "#cloud/contract.ts";
import { forwardedRules } from "#cloud/rule-forms.ts";
import { OperationalError } from "#kernel/errors.ts";
import type { ResourceId } from "#kernel/ids.ts";
import { type ResourceKind, resourceKinds, type ResourceSpecs, type Tags } from "#model/resource.ts";
import { type ObservedOnWire, type SiteMethods, siteMethods } from "#wire/host/site-methods.ts";
import type { InputOf, OutputOf } from "#wire/local-api/local-api.ts";
import { type ApiPlace, LocalApiClient, nameOfPlace } from "#wire/local-api/local-api-client.ts";
import { hostError } from "./host-error.ts";

export interface HypervisorCloudOptions {
  /** The host agent's. */
  readonly place: ApiPlace;
  /** As the host's own configuration says: guests may reach the host, and what the host reaches. */
  readonly outbound: boolean;
}

/** What one host can hold, and what it can carry out of it. */
export function hypervisorFacts(outbound: boolean): CloudFacts {
  return {
    driver: "hypervisor",
    kinds: Object.fromEntries(resourceKinds.map((kind) => [kind, true])) as Record<ResourceKind, boolean>,
    unsupportedFields: {
      // A host is one place.
      subnet: ["zone"],
      volume: ["zone", "type", "iops", "encrypted", "snapshotId"],
      // Guests are reached at addresses of the host; inside, each is alone in a network of its own.
      server: ["zone", "privateIp"],
      addressAssociation: ["privateIp"],
    },
    enforcedRules: forwardedRules(outbound),
    publicAddressOnCreate: true,
    networkNeedsCidr: false,
    userDataMutable: true,
    concurrency: 8,
    callsPerSecond: null,
    maxTagsPerResource: 50,
    maxUserDataBytes: 65_536,
  };
}

/** Nothing is asked of the host before the first call. Errors of calls: `cloud.*`; `cloud.unreachable` when no agent answers. */
export function openHypervisorCloud({ place, outbound }: HypervisorCloudOptions): Cloud {
  return new HypervisorCloud(place, hypervisorFacts(outbound));
}

class HypervisorCloud implements Cloud {
  readonly facts: CloudFacts;
  /** As an address. */
  readonly #where: string;
  readonly #client: LocalApiClient<SiteMethods>;

  constructor(place: ApiPlace, facts: CloudFacts) {
    this.facts = facts;
    this.#where = nameOfPlace(place);
    this.#client = new LocalApiClient({
      place,
      methods: siteMethods,
      peer: `the host agent at ${this.#where}`,
      unreachable: "cloud.unreachable",
    });
  }

  async identify(signal: AbortSignal): Promise<CloudIdentity> {
    const { account } = await this.#call("identify", {}, signal);
    return { account, endpoint: this.#where.startsWith("https:") ? this.#where : `unix:${this.#where}` };
  }

  catalogue(signal: AbortSignal): Promise<Catalogue> {
    return this.#call("catalogue", {}, signal);
  }

  async create<K extends ResourceKind>(request: CreateRequest<K>, signal: AbortSignal): Promise<Observed<K>> {
    const { kind, spec, tags, token, scope, mayExist } = request;
    const taken = { ...spec } as Record<string, unknown>;
    for (const field of this.facts.unsupportedFields[kind] ?? []) delete taken[field];
    const made = await this.#call(
      "create",
      { kind, spec: taken, tags: { ...tags }, token, scope, mayExist },
      signal,
    );
    return observed<K>(made);
  }

  async get<K extends ResourceKind>(
    kind: K,
    id: ResourceId,
    signal: AbortSignal,
  ): Promise<Observed<K> | undefined> {
    const found = await this.#call("get", { kind, id }, signal);
    return found === null ? undefined : observed<K>(found);
  }

  async *list<K extends ResourceKind>(
    kind: K,
    filter: ListFilter,
    signal: AbortSignal,
  ): AsyncIterable<readonly Observed<K>[]> {
    const { scope, tags, ids } = filter;
    const asked = {
      ...(scope === undefined ? {} : { scope }),
      ...(tags === undefined ? {} : { tags: { ...tags } }),
      ...(ids === undefined ? {} : { ids: [...ids] }),
    };
    let after: ResourceId | null = null;
    for (;;) {
      const { page, more }: OutputOf<SiteMethods["list"]> = await this.#call(
        "list",
        { kind, filter: asked, after },
        signal,
      );
      yield page.map((one) => observed<K>(one));
      after = page.at(-1)?.resource.id ?? null;
      if (!more || after === null) return;
    }
  }

  async update<K extends ResourceKind>(
    kind: K,
    id: ResourceId,
    set: Partial<ResourceSpecs[K]>,
    signal: AbortSignal,
  ): Promise<void> {
    const taken = { ...set } as Record<string, unknown>;
    for (const field of this.facts.unsupportedFields[kind] ?? []) delete taken[field];
    await this.#call("update", { kind, id, set: taken }, signal);
  }

  async setTags(
    kind: ResourceKind,
    id: ResourceId,
    set: Tags,
    remove: readonly string[],
    signal: AbortSignal,
  ): Promise<void> {
    await this.#call("setTags", { kind, id, set: { ...set }, remove: [...remove] }, signal);
  }

  async delete(kind: ResourceKind, id: ResourceId, signal: AbortSignal): Promise<void> {
    await this.#call("delete", { kind, id }, signal);
  }

  close(): Promise<void> {
    return this.#client[Symbol.asyncDispose]();
  }

  async #call<Name extends keyof SiteMethods>(
    name: Name,
    input: InputOf<SiteMethods[Name]>,
    signal: AbortSignal,
  ): Promise<OutputOf<SiteMethods[Name]>> {
    signal.throwIfAborted();
    try {
      return await this.#client.call(name, input, signal);
    } catch (error) {
      signal.throwIfAborted();
      if (error instanceof OperationalError) throw hostError(error, this.#where);
      throw error;
    }
  }
}

/** The spec is that of its kind: our own agent, of our own version, told it. */
function observed<K extends ResourceKind>({
  resource,
  status,
  fault,
  addresses,
}: ObservedOnWire): Observed<K> {
  return {
    resource,
    status,
    ...(fault === undefined ? {} : { fault }),
    addresses,
  } as unknown as Observed<K>;
}
