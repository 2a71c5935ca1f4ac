import type { ResourceId } from "#kernel/ids.ts";
import type { Resource, ServerSpec } from "#model/resource.ts";
import { catalogueOf, type SiteSettings } from "./site-settings.ts";
import { openSiteStore, type SiteRecord, type SiteStore } from "./site-store.ts";

export const settings: SiteSettings = {
  name: "metal",
  types: { small: { cpus: 1, memoryMiB: 96 }, large: { cpus: 2, memoryMiB: 256 } },
  images: {
    kernel: { boot: { kind: "kernel", kernelPath: "/k" }, readyLine: "ready" },
    disk: {
      boot: { kind: "disk" },
      disk: { path: "/images/disk.qcow2", format: "qcow2", sizeGiB: 3 },
      readyLine: null,
    },
  },
  addresses: ["192.0.2.0/28"],
  outbound: true,
  limits: { memoryMiB: 500, cpus: 4, diskGiB: 10, servers: 2 },
};

export const id = (text: string): ResourceId => text as ResourceId;

export function serverSpec(part: Partial<ServerSpec> = {}): ServerSpec {
  return {
    imageId: "kernel",
    type: "small",
    groupIds: [],
    publicAddress: false,
    power: "running",
    blockDevices: [],
    ...part,
  };
}

export function recordOf(resource: Resource, part: Partial<SiteRecord> = {}): SiteRecord {
  return {
    resource,
    scope: "test",
    token: resource.id,
    boot: 1,
    ownDisks: [],
    privateIp: resource.kind === "server" ? "192.0.2.1" : null,
    publicIp: null,
    ...part,
  };
}

export function server(name: string, part: Partial<ServerSpec> = {}): Resource {
  return { kind: "server", id: id(name), spec: serverSpec(part), tags: { Name: name } };
}

export function volume(name: string, sizeGiB: number): Resource {
  return { kind: "volume", id: id(name), spec: { sizeGiB }, tags: {} };
}

export function openStore(path: string): Promise<SiteStore> {
  const options = { cloud: "host metal", catalogue: catalogueOf(settings), quotas: {} };
  return openSiteStore(path, options, () => "192.0.2.9");
}
