/** What the project can launch: Nova's classic flavors, shapes of the Sovereign Cloud Stack's naming, and our own guest. */
import type { Catalog } from "#devcloud/core/cloud.ts";
import type { ImageInfo, ServerTypeInfo } from "#devcloud/core/records.ts";
import { stableUuid } from "./openstack-ids.ts";

/** Id, name, vCPUs, MiB, GiB of disk. */
const classic: readonly (readonly [string, string, number, number, number])[] = [
  ["1", "m1.tiny", 1, 512, 1],
  ["2", "m1.small", 1, 2048, 20],
  ["3", "m1.medium", 2, 4096, 40],
  ["4", "m1.large", 4, 8192, 80],
  ["5", "m1.xlarge", 8, 16_384, 160],
];

/** vCPUs and GiB, as `SCS-2V-4-20`. */
const shapes: readonly (readonly [number, number])[] = [
  [2, 1],
  [2, 2],
  [1, 4],
  [2, 4],
  [2, 8],
  [2, 16],
  [4, 8],
  [4, 16],
  [4, 32],
  [8, 16],
  [8, 32],
  [8, 64],
  [16, 32],
  [16, 64],
  [16, 128],
];

function typesOf(): ServerTypeInfo[] {
  const named = shapes.map(([vcpus, gib]) => {
    const name = `SCS-${vcpus}V-${gib}-20`;
    return [stableUuid("flavor", name), name, vcpus, gib * 1024, 20] as const;
  });
  return [...classic, ...named].map(([id, name, vcpus, memoryMiB, diskGiB]) => ({
    id,
    name,
    vcpus,
    memoryMiB,
    diskGiB,
    architecture: "x86_64",
  }));
}

/** The names are those of devcloud's EC2 images, so that one site's image is found at the other by its name. */
const images: readonly ImageInfo[] = [
  ["understudy/guest", "Runs its user data as a process on the host"],
  ["understudy/guest-2", "The same guest under a second id"],
].map(([name = "", description = ""]) => ({
  id: stableUuid("image", name),
  name,
  description,
  architecture: "x86_64",
  rootDevice: "/dev/vda",
  rootSizeGiB: 8,
  createdAt: Date.UTC(2026, 0, 15),
}));

export const defaultZone = "nova";

export function openstackCatalog(region: string): Catalog {
  return { region, zones: [defaultZone], images, types: typesOf() };
}
