/** Whether the host bears one more of something: said when it is asked for, not when it fails to start. Pure. */
import { refuse } from "#cloud/resource-book.ts";
import { hostMemoryMiB } from "#hypervisor/guests/host-capacity.ts";
import { HOT_PLUG_PORTS } from "#hypervisor/plan-command-line.ts";

import type { SiteSettings } from "./site-settings.ts";
import type { SiteBook } from "./site-store.ts";

interface Use {
  readonly servers: number;
  readonly memoryMiB: number;
  readonly cpus: number;
  readonly diskGiB: number;
}

/** Servers that are stopped use disks only. */
export function useOf(book: SiteBook, { types }: SiteSettings): Use {
  let [servers, memoryMiB, cpus, diskGiB] = [0, 0, 0, 0];
  for (const { resource, ownDisks } of book.records()) {
    for (const { sizeGiB } of ownDisks) diskGiB += sizeGiB;
    if (resource.kind === "volume") diskGiB += resource.spec.sizeGiB;
    if (resource.kind !== "server" || resource.spec.power !== "running") continue;
    const type = types[resource.spec.type];
    servers += 1;
    memoryMiB += hostMemoryMiB(type?.memoryMiB ?? 0);
    cpus += type?.cpus ?? 0;
  }
  return { servers, memoryMiB, cpus, diskGiB };
}

const units = {
  servers: "running servers",
  memoryMiB: "MiB of memory",
  cpus: "processors",
  diskGiB: "GiB of disks",
};

/** After a change of a draft: what it holds now is within the limits, or less than it was. Errors: `cloud.quota`. */
export function checkCapacity(before: Use, draft: SiteBook, settings: SiteSettings): void {
  const after = useOf(draft, settings);
  for (const name of ["servers", "memoryMiB", "cpus", "diskGiB"] as const) {
    const limit = settings.limits[name];
    if (after[name] <= limit || after[name] <= before[name]) continue;
    const asked = after[name] - before[name];
    const free = Math.max(0, limit - before[name]);
    throw refuse(
      "cloud.quota",
      "HostFull",
      `host ${settings.name} is full: ${asked} more ${units[name]} are asked for, and of ${limit} there are ${free} left`,
    );
  }
}

/** A machine has so many ports that disks can come to and leave. Errors: `cloud.quota`. */
export function checkDisksOf(draft: SiteBook, serverId: string): void {
  const own = draft.get("server", serverId)?.ownDisks.length ?? 0;
  const attached = draft
    .dependants("server", serverId)
    .filter(({ resource }) => resource.kind === "volumeAttachment").length;
  if (own + attached <= HOT_PLUG_PORTS) return;
  throw refuse("cloud.quota", "TooManyDisks", `server ${serverId} can have ${HOT_PLUG_PORTS} disks at most`);
}
