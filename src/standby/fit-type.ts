import type { Catalogue, ServerType } from "#cloud/contract.ts";

/** How much of `candidate` the source would leave unused: the sum over the dimensions of the relative excess. */
function waste(source: ServerType, candidate: ServerType): number {
  const excess = (have: number, need: number): number => (have - need) / Math.max(need, 1);
  return (
    excess(candidate.vcpus, source.vcpus) +
    excess(candidate.memoryMiB, source.memoryMiB) +
    // An accelerator that nobody asked for costs more than any other excess.
    100 * excess(candidate.gpus, source.gpus)
  );
}

function least(
  candidates: readonly ServerType[],
  cost: (type: ServerType) => number,
): ServerType | undefined {
  return candidates.toSorted((a, b) => cost(a) - cost(b) || (a.name < b.name ? -1 : 1))[0];
}

/** The type that wastes least among those at least as large in every dimension and of the same architecture. */
export function fitType(source: ServerType, target: Catalogue): ServerType | undefined {
  const candidates = target.types.filter(
    (type) =>
      type.architecture === source.architecture &&
      type.vcpus >= source.vcpus &&
      type.memoryMiB >= source.memoryMiB &&
      type.gpus >= source.gpus,
  );
  return least(candidates, (type) => waste(source, type));
}

/** The smallest type of an architecture, for reserve servers that are resized at takeover. */
export function smallestType(architecture: string, target: Catalogue): ServerType | undefined {
  const candidates = target.types.filter((type) => type.architecture === architecture);
  return least(candidates, (type) => type.gpus * 1e9 + type.vcpus * 1e3 + type.memoryMiB / 1024);
}
