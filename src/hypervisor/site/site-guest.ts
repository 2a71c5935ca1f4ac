/** What guest a server of the site becomes, and what the keeper of guests is to bring about. Pure, from what is on record. */
import type { GuestServer } from "#hypervisor/guests/guest-plan.ts";
import type { GuestWishes, VolumeWish } from "#hypervisor/guests/guest-wishes.ts";
import type { ForwardRule } from "#hypervisor/guests/forwards.ts";
import { OperationalError } from "#kernel/errors.ts";
import type { ResourceOf, SecurityGroupRuleSpec, ServerSpec } from "#model/resource.ts";
import type { SiteSettings } from "./site-settings.ts";
import type { OwnDisk, SiteBook, SiteRecord, SiteStore } from "./site-store.ts";

/** Errors: `machine.refused` when the host's configuration does not have its type or image any more. */
export function guestOf(
  { privateIp }: SiteRecord,
  { id, spec, tags }: ResourceOf<"server">,
  book: SiteBook,
  settings: SiteSettings,
): GuestServer {
  const type = settings.types[spec.type];
  const image = settings.images[spec.imageId];
  if (type === undefined || image === undefined) {
    const what = type === undefined ? `type ${spec.type}` : `image ${spec.imageId}`;
    throw new OperationalError("machine.refused", `host ${settings.name} has no ${what} any more`);
  }
  const key = spec.keyName === undefined ? undefined : book.get("keyPair", spec.keyName)?.resource;
  const publicKey = key?.kind === "keyPair" ? key.spec.publicKey : undefined;
  return {
    id,
    name: tags["Name"] ?? id,
    mac: macOf(privateIp ?? ""),
    cpus: type.cpus,
    memoryMiB: type.memoryMiB,
    boot: image.boot,
    userData: spec.userData ?? null,
    readyLine: image.readyLine,
    outbound: settings.outbound && isLetOut(book, spec),
    ...(publicKey === undefined ? {} : { publicKeys: [publicKey] }),
  };
}

/** Locally administered, and its own as long as it has its address: 02:00 and the four bytes. */
function macOf(address: string): string {
  const bytes = address.split(".").map((part) => Number(part).toString(16).padStart(2, "0"));
  return ["02", "00", ...bytes].join(":");
}

function rulesOf(book: SiteBook, { groupIds }: ServerSpec): readonly SecurityGroupRuleSpec[] {
  return groupIds.flatMap((groupId) =>
    book
      .dependants("securityGroup", groupId)
      .flatMap(({ resource }) =>
        resource.kind === "securityGroupRule" && resource.spec.groupId === groupId ? [resource.spec] : [],
      ),
  );
}

/** Only what lets out everything is held here at all. */
function isLetOut(book: SiteBook, spec: ServerSpec): boolean {
  return rulesOf(book, spec).some(({ direction }) => direction === "egress");
}

function forwardRule({ groupId, direction, protocol, fromPort, toPort }: SecurityGroupRuleSpec): ForwardRule {
  return { groupId, direction, protocol, fromPort: fromPort ?? null, toPort: toPort ?? null };
}

interface WishParts {
  readonly store: SiteStore;
  readonly settings: SiteSettings;
  readonly ended: GuestWishes["ended"];
}

export function wishesOf({ store, settings, ended }: WishParts): GuestWishes {
  const ownWish = ({ spec }: ResourceOf<"server">, { id, sizeGiB, device }: OwnDisk): VolumeWish => {
    const image = device === "root" ? settings.images[spec.imageId]?.disk : undefined;
    return { id, sizeGiB, ...(image === undefined ? {} : { image }) };
  };
  const ownOf = ({ resource, ownDisks }: SiteRecord): readonly VolumeWish[] =>
    resource.kind === "server" ? ownDisks.map((disk) => ownWish(resource, disk)) : [];
  const volumeOf = (id: string): readonly VolumeWish[] => {
    const found = store.book.get("volume", id)?.resource;
    return found?.kind === "volume" ? [{ id, sizeGiB: found.spec.sizeGiB }] : [];
  };
  const all = (): readonly VolumeWish[] => [
    ...Array.from(store.book.records("volume"), ({ resource }) => volumeOf(resource.id)).flat(),
    ...Array.from(store.book.records("server"), ownOf).flat(),
  ];
  return {
    volumes: all,
    volume: (id) => volumeOf(id)[0] ?? all().find((one) => one.id === id),
    volumesOf: (serverId) => {
      const server = store.book.get("server", serverId);
      if (server === undefined) return [];
      const attached = store.book
        .dependants("server", serverId)
        .flatMap(({ resource }) =>
          resource.kind === "volumeAttachment" ? volumeOf(resource.spec.volumeId) : [],
        );
      // The image's disk comes first: the guest may boot from it.
      return [...ownOf(server), ...attached];
    },
    isGone: (serverId) => store.book.get("server", serverId) === undefined,
    inletsOf: (serverId) => {
      const record = store.book.get("server", serverId);
      if (record?.resource.kind !== "server") return undefined;
      const rules = rulesOf(store.book, record.resource.spec).map(forwardRule);
      return { addresses: addressesOf(record, store.book), rules };
    },
    durable: () => store.durable(),
    onChange: (listener) => store.onChange(listener),
    ended,
  };
}

/** Its own, and those associated with it. */
export function addressesOf({ resource, privateIp }: SiteRecord, book: SiteBook): readonly string[] {
  const associated = book.dependants("server", resource.id).flatMap(({ resource: link }) => {
    if (link.kind !== "addressAssociation") return [];
    return book.get("address", link.spec.addressId)?.publicIp ?? [];
  });
  return [...(privateIp === null ? [] : [privateIp]), ...associated];
}
