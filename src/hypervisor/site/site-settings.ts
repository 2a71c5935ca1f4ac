/** What a bare host offers as a site of its own: types, images, addresses, limits. From understudy.yaml, checked there. */
import type { Catalogue } from "#cloud/contract.ts";
import { formatIpv4, parseIpv4Range } from "#cloud/ipv4-range.ts";
import type { MachineSpecInput } from "#hypervisor/machine-spec.ts";

export interface SiteType {
  readonly cpus: number;
  /** The guest's own; QEMU takes some more. */
  readonly memoryMiB: number;
}

export interface SiteImage {
  readonly boot: MachineSpecInput["boot"];
  /** A server's first disk is its own writes over this one, which must not change. */
  readonly disk?: {
    readonly path: string;
    readonly format: "raw" | "qcow2";
    /** Its own size, rounded up. */
    readonly sizeGiB: number;
  };
  /** What the guest prints on its console when it serves; null: ready is who runs. */
  readonly readyLine: string | null;
}

export interface SiteLimits {
  /** Of all guests together, QEMU's own part counted. */
  readonly memoryMiB: number;
  readonly cpus: number;
  readonly diskGiB: number;
  readonly servers: number;
}

export interface SiteSettings {
  readonly name: string;
  readonly types: Readonly<Record<string, SiteType>>;
  readonly images: Readonly<Record<string, SiteImage>>;
  /** IPv4 addresses of this host, or prefixes of them, at which guests are reached: one a server, one an address. */
  readonly addresses: readonly string[];
  /** May guests reach the host, and what the host reaches, where their groups let them out? */
  readonly outbound: boolean;
  readonly limits: SiteLimits;
}

const architecture = "x86_64";

export function catalogueOf({ types, images }: SiteSettings): Catalogue {
  return {
    types: Object.entries(types).map(([name, { cpus, memoryMiB }]) => ({
      name,
      vcpus: cpus,
      memoryMiB,
      gpus: 0,
      architecture,
    })),
    images: Object.keys(images).map((id) => ({ id, name: id, architecture })),
    zones: [],
  };
}

/** The first one that nobody has; undefined: all are taken. Of a prefix, the first and the last are left out. */
export function freeAddress(pool: readonly string[], taken: ReadonlySet<string>): string | undefined {
  for (const each of pool) {
    const range = parseIpv4Range(each.includes("/") ? each : `${each}/32`);
    if (range === undefined) continue;
    const inner = range.last - range.first >= 2 ? 1 : 0;
    for (let value = range.first + inner; value <= range.last - inner; value += 1) {
      const address = formatIpv4(value);
      if (!taken.has(address)) return address;
    }
  }
  return undefined;
}
