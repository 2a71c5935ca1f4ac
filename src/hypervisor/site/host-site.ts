/**
 * A bare host as a site of its own: what a cloud's API offers, over the machines of one host. What has no machine (networks,
 * groups, keys, addresses, tags) is on record; what a host can carry out of it, it carries out, and what it cannot it refuses.
 */
import { join } from "node:path";
import type { Catalogue, CreateRequest, ListFilter, Observed } from "#cloud/contract.ts";
import { refuse } from "#cloud/resource-book.ts";
import { makeFolder } from "#kernel/durable-file.ts";
import type { GuestDisks } from "#hypervisor/guests/guest-disks.ts";
import { type GuestKeeper, openGuestKeeper } from "#hypervisor/guests/guest-keeper.ts";
import type { Accelerator } from "#hypervisor/plan-command-line.ts";
import type { Clock } from "#kernel/clock.ts";
import { OperationalError } from "#kernel/errors.ts";
import type { ResourceId } from "#kernel/ids.ts";
import { canonicalJson } from "#kernel/json.ts";
import type { Log } from "#kernel/log.ts";
import type { Random } from "#kernel/random.ts";
import {
  type ResourceKind,
  type ResourceSpecs,
  type ServerSpec,
  type Tags,
  volumeAttachmentId,
} from "#model/resource.ts";
import { checkCapacity, useOf } from "./site-capacity.ts";
import { planChange } from "./site-change.ts";
import { createIn, refuseUnlessText, refuseWithoutMemory, takeAddress } from "./site-create.ts";
import { addressesOf, wishesOf } from "./site-guest.ts";
import { SitePower } from "./site-power.ts";
import { checkAddresses } from "./check-addresses.ts";
import { catalogueOf, type SiteSettings } from "./site-settings.ts";
import { openSiteStore, type SiteBook, type SiteRecord, type SiteStore } from "./site-store.ts";

export interface HostSiteOptions {
  /** Absolute. Records, machines and disks are below it. */
  readonly folder: string;
  readonly settings: SiteSettings;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** Default: what a timed probe boot says. */
  readonly accelerator?: Accelerator;
  /** Between asking a guest to turn itself off and ending it, in milliseconds. */
  readonly stopGraceMs?: number;
  /** A folder of certificates, for disks on other machines. */
  readonly certificates?: string | undefined;
  /** Of a listing; default 200. */
  readonly pageSize?: number;
}

export interface SitePage {
  readonly page: readonly Observed[];
  readonly more: boolean;
}

const mostTags = 50;

/** Errors: `config.invalid` for addresses that are not the host's, `machine.refused` where QEMU is missing, `state.conflict` when another agent has the folder, `store.*`. */
export async function openHostSite(options: HostSiteOptions): Promise<HostSite> {
  const { folder, settings, clock, log } = options;
  await makeFolder(folder);
  await checkAddresses(settings);
  const store = await openSiteStore(
    join(folder, "site.json"),
    { cloud: `host ${settings.name}`, catalogue: catalogueOf(settings), quotas: {} },
    (book) => takeAddress(book, settings),
  );
  const power: { current?: SitePower } = {};
  const ended = (id: string, how: "turned_off" | "died"): void => {
    if (how === "died") power.current?.died(id);
    else void turnedOff(store, id, log);
  };
  const keeper = await openGuestKeeper({
    dataDir: folder,
    wishes: wishesOf({ store, settings, ended }),
    speaker: "host",
    clock,
    log,
    certificates: options.certificates,
    limits: { memoryMiB: settings.limits.memoryMiB, guests: settings.limits.servers },
    ...(options.accelerator === undefined ? {} : { accelerator: options.accelerator }),
    ...(options.stopGraceMs === undefined ? {} : { stopGraceMs: options.stopGraceMs }),
  });
  power.current = new SitePower({ store, keeper, settings, clock, log });
  return new HostSite(options, store, keeper, power.current);
}

export class HostSite implements AsyncDisposable {
  readonly #options: HostSiteOptions;
  readonly #store: SiteStore;
  readonly #keeper: GuestKeeper;
  readonly #power: SitePower;

  constructor(options: HostSiteOptions, store: SiteStore, keeper: GuestKeeper, power: SitePower) {
    this.#options = options;
    this.#store = store;
    this.#keeper = keeper;
    this.#power = power;
  }

  get name(): string {
    return this.#options.settings.name;
  }

  /** Content of the site's volumes. */
  get disks(): GuestDisks {
    return this.#keeper.disks;
  }

  catalogue(): Catalogue {
    return catalogueOf(this.#options.settings);
  }

  /** On record when it returns; a server is then started. Errors: `cloud.*`, `store.*`. */
  async create<K extends ResourceKind>(request: CreateRequest<K>): Promise<Observed<K>> {
    const id = await this.#store.transact((draft) => createIn(draft, request, this.#options));
    return this.#observe<K>(this.#existing(request.kind, id));
  }

  get<K extends ResourceKind>(kind: K, id: ResourceId): Observed<K> | undefined {
    const record = this.#store.book.get(kind, id);
    return record === undefined ? undefined : this.#observe<K>(record);
  }

  /** In the order of ids, after `after`. */
  list(kind: ResourceKind, filter: ListFilter, after: ResourceId | null): SitePage {
    const { book } = this.#store;
    const size = this.#options.pageSize ?? 200;
    const found = Array.from(book.records(kind))
      .filter((record) => matches(record, filter) && (after === null || record.resource.id > after))
      .toSorted((a, b) => (a.resource.id < b.resource.id ? -1 : 1));
    return { page: found.slice(0, size).map((one) => this.#observe(one)), more: found.length > size };
  }

  /** A server that is to be off is off when it returns. Errors: `cloud.*`, `store.*`. */
  async update<K extends ResourceKind>(
    kind: K,
    id: ResourceId,
    set: Partial<ResourceSpecs[K]>,
  ): Promise<void> {
    const { settings } = this.#options;
    await this.#store.transact((draft) => {
      const record = existingIn(draft, kind, id);
      const before = useOf(draft, settings);
      const failed = this.#power.statusOf(record).status === "failed";
      const { next, boots } = planChange(record.resource, set, failed);
      if (boots) {
        record.boot += 1;
        refuseWithoutMemory(next, settings);
      }
      if (canonicalJson(next) === canonicalJson(record.resource)) return;
      if (next.kind === "server") {
        refuseUnlessText(next.spec);
        draft.checkServer(next);
      }
      draft.replace(record, next);
      checkCapacity(before, draft, settings);
    });
    if (kind === "server" && "power" in set && set.power === "stopped") await this.#power.settled(id);
  }

  async setTags(kind: ResourceKind, id: ResourceId, set: Tags, remove: readonly string[]): Promise<void> {
    await this.#store.transact((draft) => {
      const record = existingIn(draft, kind, id);
      const tags: Record<string, string> = { ...record.resource.tags, ...set };
      for (const key of remove) delete tags[key];
      if (Object.keys(tags).length > mostTags) {
        throw refuse("cloud.refused", "TooManyTags", `${kind} ${id} would have more than ${mostTags} tags`);
      }
      record.resource = { ...record.resource, tags };
    });
  }

  /** Its machine is gone, or its disk out of the guest, when it returns. Errors: `cloud.conflict`, `store.*`. */
  async delete(kind: ResourceKind, id: ResourceId): Promise<void> {
    const held = this.#store.book.get(kind, id)?.resource;
    if (held?.kind === "server") await this.#keepOwnDisks(id);
    await this.#store.transact((draft) => draft.remove(kind, id));
    if (kind === "server") await this.#keeper.forget(id);
    if (kind === "volume" || kind === "server") await this.#keeper.settled();
    if (held?.kind === "volumeAttachment") await this.#letGo(held.spec.serverId, held.spec.volumeId);
  }

  /** Guests run on. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#power[Symbol.asyncDispose]();
    await this.#keeper[Symbol.asyncDispose]();
  }

  /** Those that outlive their server are volumes from now on, before it goes. */
  async #keepOwnDisks(serverId: ResourceId): Promise<void> {
    await this.#store.transact((draft) => {
      const record = draft.get("server", serverId);
      for (const disk of record?.ownDisks ?? []) {
        if (disk.deleteOnTermination || draft.get("volume", disk.id) !== undefined) continue;
        const spec = { sizeGiB: disk.sizeGiB };
        const resource = { kind: "volume", id: disk.id as ResourceId, spec, tags: {} } as const;
        draft.insert({
          resource,
          scope: record?.scope ?? "",
          token: `${disk.id}-kept`,
          boot: 0,
          ownDisks: [],
          privateIp: null,
          publicIp: null,
        });
      }
    });
  }

  async #letGo(serverId: string, volumeId: string): Promise<void> {
    await this.#keeper.settled();
    if (!this.#keeper.has(serverId, volumeId)) return;
    const attached = this.#store.book.get("volumeAttachment", volumeAttachmentId(volumeId, serverId));
    if (attached !== undefined) return;
    throw new OperationalError("cloud.conflict", `the guest of ${serverId} does not let go of ${volumeId}`, {
      outcome: "applied",
    });
  }

  #existing(kind: ResourceKind, id: ResourceId): SiteRecord {
    return existingIn(this.#store.book, kind, id);
  }

  #observe<K extends ResourceKind>(record: SiteRecord): Observed<K> {
    const { resource, privateIp, publicIp } = record;
    const { book } = this.#store;
    const associated = addressesOf(record, book).filter((address) => address !== privateIp);
    const isServer = resource.kind === "server";
    return {
      resource,
      ...this.#statusOf(record),
      addresses: {
        private: privateIp === null ? [] : [privateIp],
        public: isServer
          ? [...(publicIp === null ? [] : [publicIp]), ...associated]
          : publicIp === null
            ? []
            : [publicIp],
      },
    } as unknown as Observed<K>;
  }

  #statusOf(record: SiteRecord): Pick<Observed, "status" | "fault"> {
    const { resource } = record;
    if (resource.kind !== "volumeAttachment") return this.#power.statusOf(record);
    const { serverId, volumeId } = resource.spec;
    // A machine that is off has it at its next start.
    const isOn = this.#keeper.status(serverId) === "running";
    return { status: isOn && !this.#keeper.has(serverId, volumeId) ? "pending" : "ready" };
  }
}

function existingIn(book: SiteBook, kind: ResourceKind, id: ResourceId): SiteRecord {
  const record = book.get(kind, id);
  if (record === undefined) throw refuse("cloud.not_found", `${kind}.NotFound`, `there is no ${kind} ${id}`);
  return record;
}

function matches({ resource, scope }: SiteRecord, filter: ListFilter): boolean {
  if (filter.scope !== undefined && scope !== filter.scope) return false;
  if (filter.ids !== undefined && !filter.ids.includes(resource.id)) return false;
  return Object.entries(filter.tags ?? {}).every(([key, value]) => resource.tags[key] === value);
}

/** From inside: as most clouds do, the server is stopped from then on. */
async function turnedOff(store: SiteStore, id: string, log: Log): Promise<void> {
  try {
    await store.transact((draft) => {
      const record = draft.get("server", id);
      if (record?.resource.kind !== "server") return;
      const spec: ServerSpec = { ...record.resource.spec, power: "stopped" };
      draft.replace(record, { ...record.resource, spec });
    });
  } catch (error) {
    log.error({ server: id, err: error }, "that a guest turned itself off could not be recorded");
  }
}
