/**
 * A faithful simulated cloud behind the contract: it refuses what clouds refuse, throttles, takes time, and counts its
 * calls. All time comes from the clock port, so that a virtual clock can drive it.
 */
import type {
  Catalogue,
  Cloud,
  CloudFacts,
  CreateRequest,
  ListFilter,
  Observed,
  ResourceStatus,
} from "#cloud/contract.ts";
import { formatIpv4 } from "#cloud/ipv4-range.ts";
import { type BookQuotas, type BookRecord, refuse, ResourceBook } from "#cloud/resource-book.ts";
import type { Clock } from "#kernel/clock.ts";
import type { ResourceId } from "#kernel/ids.ts";
import { canonicalJson } from "#kernel/json.ts";
import type { Random } from "#kernel/random.ts";
import type { Resource, ResourceKind } from "#model/resource.ts";
import { resourceKinds, securityGroupRuleId, volumeAttachmentId } from "#model/resource.ts";
import { memoryCatalogue } from "./memory-catalogue.ts";

interface MemoryRecord extends BookRecord {
  /** Servers: pending until then, in the clock's milliseconds. */
  readyAt: number;
  fault: string | null;
}

/** The benchmark range 198.18.0.0/15 (RFC 2544): never anyone's. */
const publicRange = 0xc6_12_00_00;

export interface MemoryCloudOptions {
  readonly clock: Clock;
  readonly random: Random;
  /** Of one call, both ways together. A change takes effect half-way. */
  readonly latencyMs?: number;
  /** Sustained rate; calls above it are throttled. Absent: no limit. */
  readonly callsPerSecond?: number;
  /** Calls that may come at once before the rate binds; default a tenth of a second's worth. */
  readonly burst?: number;
  readonly quotas?: BookQuotas;
  readonly catalogue?: Catalogue;
  /** Servers are `pending` for so long after create, start and resize. */
  readonly readyMs?: number;
  readonly pageSize?: number;
  readonly facts?: Partial<CloudFacts>;
  readonly account?: string;
}

export interface MemoryCloudInspection {
  /** Calls that arrived, throttled ones included. */
  readonly calls: number;
  readonly throttled: number;
  /** By method of the contract. */
  callsOf(method: keyof Cloud): number;
  /** Everything held, whoever made it. */
  resources(): readonly Resource[];
  /** How often a resource came to be; a token that makes two would show here. */
  readonly created: number;
  /** The next server that is created becomes `failed` with this fault instead of `ready`. */
  failNextServer(fault: string): void;
}

export type MemoryCloud = Cloud & { readonly inspect: MemoryCloudInspection };

function memoryFacts(options: MemoryCloudOptions): CloudFacts {
  return {
    driver: "memory",
    kinds: Object.fromEntries(resourceKinds.map((kind) => [kind, true])) as Record<ResourceKind, boolean>,
    unsupportedFields: {},
    publicAddressOnCreate: true,
    networkNeedsCidr: true,
    userDataMutable: true,
    concurrency: 64,
    callsPerSecond: options.callsPerSecond ?? null,
    maxTagsPerResource: 50,
    maxUserDataBytes: 16_384,
    ...options.facts,
  };
}

/** Token bucket in the clock's time; answers how long to wait, 0 for a call that may pass. */
function createRateLimit(options: MemoryCloudOptions): () => number {
  const rate = options.callsPerSecond;
  if (rate === undefined) return () => 0;
  const burst = options.burst ?? Math.max(1, rate / 10);
  let tokens = burst;
  let at = options.clock.monotonicMs();
  return () => {
    const now = options.clock.monotonicMs();
    tokens = Math.min(burst, tokens + ((now - at) * rate) / 1000);
    at = now;
    if (tokens < 1) return Math.max(1, Math.ceil(((1 - tokens) * 1000) / rate));
    tokens -= 1;
    return 0;
  };
}

function matchesFilter(record: MemoryRecord, filter: ListFilter): boolean {
  const { resource } = record;
  if (filter.scope !== undefined && record.scope !== filter.scope) return false;
  if (filter.ids !== undefined && !filter.ids.includes(resource.id)) return false;
  return Object.entries(filter.tags ?? {}).every(([key, value]) => resource.tags[key] === value);
}

/** A rule, an attachment and an association are their content: the same one again is the same one. */
function isSameLink(held: Resource, asked: Resource): boolean {
  if (held.kind !== "addressAssociation" || asked.kind !== "addressAssociation") return true;
  return held.spec.serverId === asked.spec.serverId;
}

export function createMemoryCloud(options: MemoryCloudOptions): MemoryCloud {
  const { clock, random } = options;
  const catalogue = options.catalogue ?? memoryCatalogue;
  let publicAddresses = 0;
  const store = new ResourceBook<MemoryRecord>({
    cloud: "the simulated cloud",
    catalogue,
    quotas: options.quotas ?? {},
    takePublicAddress: () => formatIpv4(publicRange + ++publicAddresses),
  });
  const facts = memoryFacts(options);
  const overLimit = createRateLimit(options);
  const halfMs = (options.latencyMs ?? 0) / 2;
  const pageSize = options.pageSize ?? 500;
  const counts = new Map<string, number>();
  const faults: string[] = [];
  let [calls, throttled, created, closed] = [0, 0, 0, false];

  /** One call over the simulated wire: `work` happens at the cloud, half-way. */
  async function call<T>(method: keyof Cloud, signal: AbortSignal, work: () => T): Promise<T> {
    signal.throwIfAborted();
    if (closed)
      throw refuse("cloud.unreachable", "Closed", "the connection to the simulated cloud is closed");
    if (halfMs > 0) await clock.sleep(halfMs, signal);
    calls += 1;
    counts.set(method, (counts.get(method) ?? 0) + 1);
    const waitMs = overLimit();
    let answer: { readonly value: T } | { readonly error: unknown };
    if (waitMs > 0) {
      throttled += 1;
      const message = "the simulated cloud throttles: call it less often";
      answer = { error: refuse("cloud.throttled", "Throttling", message, { retryAfterMs: waitMs }) };
    } else {
      try {
        answer = { value: work() };
      } catch (error) {
        answer = { error };
      }
    }
    if (halfMs > 0) await clock.sleep(halfMs, signal);
    if ("error" in answer) throw answer.error;
    return answer.value;
  }

  function idOf(resource: Omit<Resource, "id">): ResourceId {
    const { kind, spec } = resource as Resource;
    if (kind === "keyPair") return spec.name as ResourceId;
    if (kind === "securityGroupRule") return securityGroupRuleId(spec);
    if (kind === "volumeAttachment") return volumeAttachmentId(spec.volumeId, spec.serverId);
    if (kind === "addressAssociation") return `${spec.addressId}/association` as ResourceId;
    return `${kind}-${random.hex(8)}` as ResourceId;
  }

  function statusOf(record: MemoryRecord): ResourceStatus {
    if (record.resource.kind !== "server") return "ready";
    if (clock.now() < record.readyAt) return "pending";
    if (record.fault !== null) return "failed";
    return record.resource.spec.power === "stopped" ? "stopped" : "ready";
  }

  function observe<K extends ResourceKind>(record: MemoryRecord): Observed<K> {
    const publicIps = record.publicIp === null ? [] : [record.publicIp];
    for (const { resource } of store.dependants("server", record.resource.id)) {
      if (resource.kind !== "addressAssociation") continue;
      const publicIp = store.get("address", resource.spec.addressId)?.publicIp;
      if (record.resource.kind === "server" && publicIp) publicIps.push(publicIp);
    }
    const status = statusOf(record);
    return {
      resource: record.resource,
      status,
      ...(status === "failed" && record.fault !== null ? { fault: record.fault } : {}),
      addresses: { private: record.privateIp === null ? [] : [record.privateIp], public: publicIps },
    } as unknown as Observed<K>;
  }

  function createNow<K extends ResourceKind>(request: CreateRequest<K>): Observed<K> {
    if (!facts.kinds[request.kind]) {
      throw refuse("cloud.unsupported", "Unsupported", `this cloud holds no ${request.kind} resources`);
    }
    const known = store.byToken(request.token);
    if (known !== undefined) {
      if (known.resource.kind === request.kind) return observe<K>(known);
      const message = `the token ${request.token} was used for a ${known.resource.kind}`;
      throw refuse("cloud.conflict", "IdempotentParameterMismatch", message, { retry: "never" });
    }
    const { kind, spec, tags } = request;
    const resource = { kind, id: idOf({ kind, spec, tags }), spec, tags } as Resource;
    const twin = resource.kind === "keyPair" ? undefined : store.get(kind, resource.id);
    if (twin !== undefined && isSameLink(twin.resource, resource)) return observe<K>(twin);
    store.check(resource);
    const record: MemoryRecord = {
      resource,
      scope: request.scope,
      token: request.token,
      readyAt: clock.now() + (kind === "server" ? (options.readyMs ?? 0) : 0),
      fault: kind === "server" ? (faults.shift() ?? null) : null,
      privateIp: null,
      publicIp: null,
    };
    store.insert(record);
    created += 1;
    return observe<K>(record);
  }

  function updateNow(kind: ResourceKind, id: ResourceId, set: object): void {
    const record = existing(kind, id);
    const next = { ...record.resource, spec: { ...record.resource.spec, ...set } } as Resource;
    if (canonicalJson(next.spec) === canonicalJson(record.resource.spec)) return;
    if (next.kind === "server" && record.resource.kind === "server") {
      const { privateIp: _kept, ...spec } = next.spec;
      store.checkServer({ ...next, spec });
      const restarted = next.spec.power === "running" && record.resource.spec.power === "stopped";
      const resized = next.spec.type !== record.resource.spec.type;
      if ((restarted || resized) && next.spec.power === "running") {
        record.readyAt = clock.now() + (options.readyMs ?? 0);
      }
    }
    store.replace(record, next);
  }

  function existing(kind: ResourceKind, id: ResourceId): MemoryRecord {
    const record = store.get(kind, id);
    if (record === undefined) {
      throw refuse("cloud.not_found", `Invalid.${kind}.NotFound`, `there is no ${kind} ${id}`);
    }
    return record;
  }

  return {
    facts,
    identify: (signal) =>
      call("identify", signal, () => ({ account: options.account ?? "memory", endpoint: "memory:" })),
    catalogue: (signal) => call("catalogue", signal, () => catalogue),
    create: (request, signal) => call("create", signal, () => createNow(request)),
    get: (kind, id, signal) =>
      call("get", signal, () => {
        const record = store.get(kind, id);
        return record === undefined ? undefined : observe(record);
      }),
    async *list(kind, filter, signal) {
      const matching = [...store.records(kind)].filter((record) => matchesFilter(record, filter));
      for (let from = 0; from === 0 || from < matching.length; from += pageSize) {
        const page = matching.slice(from, from + pageSize);
        yield await call("list", signal, () =>
          page.filter(({ resource }) => store.get(kind, resource.id)).map((record) => observe(record)),
        );
      }
    },
    update: (kind, id, set, signal) => call("update", signal, () => updateNow(kind, id, set)),
    setTags: (kind, id, set, remove, signal) =>
      call("setTags", signal, () => {
        const record = existing(kind, id);
        const tags: Record<string, string> = { ...record.resource.tags, ...set };
        for (const key of remove) delete tags[key];
        if (Object.keys(tags).length > facts.maxTagsPerResource) {
          throw refuse("cloud.refused", "TagLimitExceeded", `${kind} ${id} would have too many tags`);
        }
        record.resource = { ...record.resource, tags };
      }),
    delete: (kind, id, signal) => call("delete", signal, () => store.remove(kind, id)),
    close: async () => {
      closed = true;
    },
    inspect: {
      get calls() {
        return calls;
      },
      get throttled() {
        return throttled;
      },
      get created() {
        return created;
      },
      callsOf: (method) => counts.get(method) ?? 0,
      resources: () => [...store.records()].map(({ resource }) => resource),
      failNextServer: (fault) => {
        faults.push(fault);
      },
    },
  };
}
