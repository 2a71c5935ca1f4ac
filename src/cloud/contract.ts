/**
 * The contract of a cloud driver. A driver maps the model's kinds to one cloud's own API and nothing more: it
 * decides no policy, keeps no state beyond caches and connections, and never retries by itself what may
 * have been applied. The conformance suite (`conformance.ts`) is this contract as tests; every driver passes
 * it, and `understudy cloud verify SITE` runs it against a user's own account.
 *
 * Guarantees every driver gives
 * - Errors are OperationalError with a `cloud.*` code, and an honest `outcome`: `unknown` whenever the request
 *   may have reached the cloud and its answer did not reach us.
 * - `create` is idempotent by token: called again with the same token, it returns the same resource and never makes a
 *   second one, also after an `unknown` outcome, a crash, and by another process.
 * - A resource that `create` returned is seen by `get` and `list` (read after write): where the cloud is
 *   eventually consistent, the driver waits, within the signal.
 * - `delete` of what is already gone succeeds. `setTags` and `update` are idempotent.
 * - `list` yields every matching resource once, over all pages; a page is held in memory, never the whole list.
 * - Every wait honours the signal.
 */
import type { RuleForms } from "#cloud/rule-forms.ts";
import type { SnapshotSource } from "#cloud/snapshot-source.ts";
import type { ResourceId } from "#kernel/ids.ts";
import type { Resource, ResourceKind, ResourceOf, ResourceSpecs, Tags } from "#model/resource.ts";

/** Names the tag (or metadata key) that marks what Understudy made: its value says for whom. */
export const scopeTag = "understudy:scope";
/** Names the tag that carries a create's token where the cloud has no idempotency tokens of its own. */
export const tokenTag = "understudy:token";

export interface CloudFacts {
  /** For display and logs only: no caller may branch on it. */
  readonly driver: string;
  /** Kinds that this cloud cannot hold become gaps. */
  readonly kinds: Readonly<Record<ResourceKind, boolean>>;
  /** Fields of a kind that this cloud cannot express: named gaps, dropped on create. */
  readonly unsupportedFields: Readonly<Partial<Record<ResourceKind, readonly string[]>>>;
  /** The forms of security group rules that this cloud enforces; absent: all. Others are named gaps, and refused. */
  readonly enforcedRules?: RuleForms;
  /** A server can be given a public address when it is created; otherwise callers make an address and associate it. */
  readonly publicAddressOnCreate: boolean;
  /** Networks need a prefix of their own. */
  readonly networkNeedsCidr: boolean;
  /** `userData` can be changed after creation. */
  readonly userDataMutable: boolean;
  /** At most so many requests in flight to this cloud; a starting point that the caller adapts. */
  readonly concurrency: number;
  /** The cloud's published sustained rate of calls per second, where there is one; else null. */
  readonly callsPerSecond: number | null;
  readonly maxTagsPerResource: number;
  /** Largest user data the cloud takes, in bytes before base64. */
  readonly maxUserDataBytes: number;
}

/** How a resource stands in its cloud, beside what was asked for. */
export type ResourceStatus = "pending" | "ready" | "stopped" | "failed" | "deleting";

export interface Observed<K extends ResourceKind = ResourceKind> {
  readonly resource: K extends ResourceKind ? ResourceOf<K> : never;
  readonly status: ResourceStatus;
  /** The cloud's own words for a failure, e.g. `No valid host was found`. */
  readonly fault?: string;
  /** Servers and addresses: where they can be reached. */
  readonly addresses: { readonly private: readonly string[]; readonly public: readonly string[] };
}

export interface ServerType {
  readonly name: string;
  readonly vcpus: number;
  readonly memoryMiB: number;
  readonly gpus: number;
  readonly architecture: string;
}

export interface ImageInfo {
  readonly id: string;
  readonly name: string;
  readonly architecture: string;
}

/** What a site offers; kept by callers, since it must be known when the site is gone. */
export interface Catalogue {
  readonly types: readonly ServerType[];
  readonly images: readonly ImageInfo[];
  readonly zones: readonly string[];
}

export interface CloudIdentity {
  /** Account, project or user, for display. */
  readonly account: string;
  readonly endpoint: string;
}

export interface CreateRequest<K extends ResourceKind> {
  readonly kind: K;
  readonly spec: ResourceSpecs[K];
  /** `Name` is the display name. */
  readonly tags: Tags;
  /** Unique per intended resource; at most 64 characters of [A-Za-z0-9-]. */
  readonly token: string;
  /** For whom it is made, e.g. `shop` or `shop/drill-7f3a`; found again by `list({scope})`. */
  readonly scope: string;
  /** False only if this token was certainly never sent before: spares drivers a look-up. */
  readonly mayExist: boolean;
}

export interface ListFilter {
  /** Only what was created for this scope. */
  readonly scope?: string;
  readonly tags?: Tags;
  readonly ids?: readonly ResourceId[];
}

export interface Cloud {
  readonly facts: CloudFacts;

  /** Proves endpoint and credentials with one harmless call. */
  identify(signal: AbortSignal): Promise<CloudIdentity>;

  catalogue(signal: AbortSignal): Promise<Catalogue>;

  /** Returns as soon as the cloud accepted it; a server may still be `pending`. */
  create<K extends ResourceKind>(request: CreateRequest<K>, signal: AbortSignal): Promise<Observed<K>>;

  /** `undefined`: the cloud says that there is no such resource. */
  get<K extends ResourceKind>(kind: K, id: ResourceId, signal: AbortSignal): Promise<Observed<K> | undefined>;

  /** Pages; for many servers, one call here costs far less than a `get` each. */
  list<K extends ResourceKind>(
    kind: K,
    filter: ListFilter,
    signal: AbortSignal,
  ): AsyncIterable<readonly Observed<K>[]>;

  /**
   * Changes only what `set` names. It may take several calls of the cloud (stop, change, start) and returns when the cloud
   * shows the new value; repeated after an interruption, it finishes the work.
   */
  update<K extends ResourceKind>(
    kind: K,
    id: ResourceId,
    set: Partial<ResourceSpecs[K]>,
    signal: AbortSignal,
  ): Promise<void>;

  setTags(
    kind: ResourceKind,
    id: ResourceId,
    set: Tags,
    remove: readonly string[],
    signal: AbortSignal,
  ): Promise<void>;

  /** Returns when the cloud no longer counts it (quotas, dependants); links to it go with it. */
  delete(kind: ResourceKind, id: ResourceId, signal: AbortSignal): Promise<void>;

  /** Undefined: the cloud gives out no content of volumes. */
  readonly snapshots?: SnapshotSource;

  /** Ends connections; later calls fail. */
  close(): Promise<void>;
}

/** Collects a listing that is known to be small. */
export async function collect<K extends ResourceKind>(
  pages: AsyncIterable<readonly Observed<K>[]>,
): Promise<Observed<K>[]> {
  const all: Observed<K>[] = [];
  for await (const page of pages) all.push(...page);
  return all;
}

export type { Resource };
