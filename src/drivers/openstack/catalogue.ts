/** What the cloud offers: flavors, images, zones; and names to ids, kept for a while. */
import type { Catalogue, ImageInfo, ServerType } from "#cloud/contract.ts";
import type { Clock } from "#kernel/clock.ts";
import { OperationalError } from "#kernel/errors.ts";
import { imageSchema } from "#wire/openstack/glance.ts";
import { flavorSchema, zonesResponseSchema } from "#wire/openstack/nova.ts";
import type { NovaFlavor } from "#wire/openstack/nova.ts";
import type { Calls } from "./calls.ts";
import { byId } from "./network-kind.ts";
import type { FlavorRef } from "./server-steps.ts";

/** Flavors hardly ever change; a name that is not among those kept is looked up again anyway. */
const keepMs = 300_000;

/** Images and flavors that say nothing are taken for what nearly all clouds run. */
const defaultArchitecture = "x86_64";

export interface CatalogueLookup {
  /** By name or id. */
  flavor(type: string, calls: Calls): Promise<FlavorRef>;
  /** By id or name. */
  imageId(image: string, calls: Calls): Promise<string>;
}

const uuid = /^[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}$/i;

async function flavors(calls: Calls): Promise<NovaFlavor[]> {
  return calls.all("compute", "/flavors/detail", "flavors", flavorSchema, byId);
}

function gpusOf(flavor: NovaFlavor): number {
  const specs = flavor.extra_specs ?? {};
  const vgpu = Number(specs["resources:VGPU"] ?? 0);
  // PCI devices by alias, e.g. "a100:2,nic:1"; what is no number counts as one.
  const aliases = (specs["pci_passthrough:alias"] ?? "")
    .split(",")
    .filter((alias) => /gpu|nvidia|[avht]\d{2,3}/i.test(alias));
  const passed = aliases.map((alias) => Number(alias.split(":")[1] ?? 1) || 1);
  return (Number.isFinite(vgpu) ? vgpu : 0) + passed.reduce((sum, count) => sum + count, 0);
}

function typeOf(flavor: NovaFlavor): ServerType {
  return {
    name: flavor.name,
    vcpus: flavor.vcpus,
    memoryMiB: flavor.ram,
    gpus: gpusOf(flavor),
    architecture: flavor.extra_specs?.["hw:architecture"] ?? defaultArchitecture,
  };
}

async function images(calls: Calls, query: Readonly<Record<string, string>> = {}): Promise<ImageInfo[]> {
  const all = await calls.all("image", "/images", "images", imageSchema, { ...byId, query });
  return all
    .filter(({ status }) => status === "active")
    .map(({ id, name, architecture }) => ({
      id,
      name: name ?? "",
      architecture: architecture ?? defaultArchitecture,
    }));
}

export async function readCatalogue(calls: Calls): Promise<Catalogue> {
  const [types, found, zones] = await Promise.all([
    flavors(calls),
    images(calls),
    calls.get("compute", "/os-availability-zone", zonesResponseSchema),
  ]);
  return {
    types: types.filter((flavor) => flavor["OS-FLV-DISABLED:disabled"] !== true).map(typeOf),
    images: found,
    zones: zones.availabilityZoneInfo
      .filter(({ zoneState }) => zoneState?.available !== false)
      .map(({ zoneName }) => zoneName),
  };
}

export function createCatalogueLookup(clock: Clock): CatalogueLookup {
  let known: { readonly at: number; readonly flavors: readonly NovaFlavor[] } | undefined;
  const match = (type: string): NovaFlavor | undefined =>
    known?.flavors.find(({ name }) => name === type) ?? known?.flavors.find(({ id }) => id === type);
  const imageIds = new Map<string, { readonly at: number; readonly id: string }>();
  return {
    async flavor(type, calls) {
      const fresh = known !== undefined && clock.monotonicMs() - known.at < keepMs;
      if (!fresh || match(type) === undefined) {
        known = { at: clock.monotonicMs(), flavors: await flavors(calls) };
      }
      const flavor = match(type);
      if (flavor !== undefined) return { id: flavor.id, name: flavor.name };
      throw new OperationalError(
        "cloud.not_found",
        `the cloud has no flavor ${type}: choose one of its flavors`,
      );
    },
    async imageId(image, calls) {
      if (uuid.test(image)) return image;
      const kept = imageIds.get(image);
      if (kept !== undefined && clock.monotonicMs() - kept.at < keepMs) return kept.id;
      const [found, second] = (await images(calls, { name: image })).filter(({ name }) => name === image);
      if (found === undefined) {
        throw new OperationalError(
          "cloud.not_found",
          `the cloud has no image ${image}: name one of its images`,
        );
      }
      if (second !== undefined) {
        throw new OperationalError(
          "cloud.conflict",
          `the cloud has several images named ${image}: use the id`,
          {
            retry: "never",
          },
        );
      }
      imageIds.set(image, { at: clock.monotonicMs(), id: found.id });
      return found.id;
    },
  };
}
