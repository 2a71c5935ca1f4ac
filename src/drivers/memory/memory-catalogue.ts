import type { Catalogue } from "#cloud/contract.ts";

const sizes: readonly [string, number, number][] = [
  ["tiny", 1, 512],
  ["small", 1, 2048],
  ["medium", 2, 4096],
  ["large", 4, 8192],
  ["xlarge", 8, 16_384],
];

/** What a simulated site offers unless a test says otherwise. */
export const memoryCatalogue: Catalogue = {
  types: sizes.map(([name, vcpus, memoryMiB]) => ({
    name,
    vcpus,
    memoryMiB,
    gpus: 0,
    architecture: "x86_64",
  })),
  images: [
    { id: "img-debian", name: "debian-12", architecture: "x86_64" },
    { id: "img-web", name: "web", architecture: "x86_64" },
  ],
  zones: ["zone-a", "zone-b"],
};
