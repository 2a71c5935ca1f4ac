/** What the account can launch: types with the vCPU and memory figures that AWS publishes, and images of our own. */
import type { Catalog } from "#devcloud/core/cloud.ts";
import type { ImageInfo, ServerTypeInfo } from "#devcloud/core/records.ts";

/** Family, then size: vCPUs and GiB. */
const families: Readonly<Record<string, readonly (readonly [size: string, vcpus: number, gib: number])[]>> = {
  m1: [["small", 1, 1.7]],
  t2: [
    ["nano", 1, 0.5],
    ["micro", 1, 1],
    ["small", 1, 2],
    ["medium", 2, 4],
    ["large", 2, 8],
    ["xlarge", 4, 16],
    ["2xlarge", 8, 32],
  ],
  t3: [
    ["nano", 2, 0.5],
    ["micro", 2, 1],
    ["small", 2, 2],
    ["medium", 2, 4],
    ["large", 2, 8],
    ["xlarge", 4, 16],
    ["2xlarge", 8, 32],
  ],
  c5: [
    ["large", 2, 4],
    ["xlarge", 4, 8],
    ["2xlarge", 8, 16],
    ["4xlarge", 16, 32],
  ],
  m5: [
    ["large", 2, 8],
    ["xlarge", 4, 16],
    ["2xlarge", 8, 32],
    ["4xlarge", 16, 64],
  ],
  r5: [
    ["large", 2, 16],
    ["xlarge", 4, 32],
    ["2xlarge", 8, 64],
    ["4xlarge", 16, 128],
  ],
};

const types: readonly ServerTypeInfo[] = Object.entries(families).flatMap(([family, sizes]) =>
  sizes.map(([size, vcpus, gib]) => ({
    id: `${family}.${size}`,
    name: `${family}.${size}`,
    vcpus,
    memoryMiB: Math.round(gib * 1024),
    diskGiB: 0,
    architecture: "x86_64",
  })),
);

const created = Date.UTC(2026, 0, 15);

const images: readonly ImageInfo[] = [
  ["ami-0a1b2c3d4e5f60001", "understudy/guest", "Runs its user data as a process on the host"],
  ["ami-0a1b2c3d4e5f60002", "understudy/guest-2", "The same guest under a second id"],
].map(([id = "", name = "", description = ""]) => ({
  id,
  name,
  description,
  architecture: "x86_64",
  rootDevice: "/dev/xvda",
  rootSizeGiB: 8,
  createdAt: created,
}));

export function ec2Catalog(region: string): Catalog {
  return { region, zones: ["a", "b", "c"].map((zone) => `${region}${zone}`), images, types };
}
