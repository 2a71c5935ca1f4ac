/** What guest a server of this cloud becomes: pure. Types are promises to a cloud's users; a laptop gives a part of them. */
import type { ServerLaunch } from "#devcloud/core/compute.ts";
import type { ServerTypeInfo } from "#devcloud/core/records.ts";
import type { GuestImage } from "#hypervisor/guest/build-guest-image.ts";
import type { GuestServer } from "#hypervisor/guests/guest-plan.ts";
import { bearsGuests, type HostLimits } from "#hypervisor/guests/host-capacity.ts";

/** A laptop holds many guests: a type's memory is scaled down, between what the small guest boots in and what QEMU may take. */
const MEMORY_SHARE = 16;
const LEAST_MEMORY_MIB = 96;
const MOST_MEMORY_MIB = 256;
const MOST_CPUS = 2;

/**
 * A server with this tag keeps nothing: those like it go on from the memory of the first one instead of booting. Its value is the line on
 * the console that says that it serves; empty: it serves when the guest is ready.
 */
export const memoryStateTag = "understudy:memory-state";

export function guestMemoryMiB(typeMiB: number): number {
  return Math.min(MOST_MEMORY_MIB, Math.max(LEAST_MEMORY_MIB, Math.round(typeMiB / MEMORY_SHARE)));
}

export function guestOf(server: ServerLaunch, image: GuestImage): GuestServer {
  const mac = server.macs[0];
  return {
    id: server.id,
    name: server.name,
    ...(mac !== undefined && { mac }),
    cpus: Math.min(MOST_CPUS, server.vcpus),
    memoryMiB: guestMemoryMiB(server.memoryMiB),
    boot: { kind: "kernel", kernelPath: image.kernelPath, initrdPath: image.initrdPath },
    userData: server.userData,
    readyLine: server.tags[memoryStateTag] || "guest: ready",
    keepsNothing: server.tags[memoryStateTag] !== undefined,
    outbound: false,
  };
}

export function bearsTypes(
  limits: HostLimits,
  held: readonly ServerTypeInfo[],
  wanted: readonly ServerTypeInfo[],
): boolean {
  const guests = [...held, ...wanted].map(({ memoryMiB }) => guestMemoryMiB(memoryMiB));
  return bearsGuests(limits, guests);
}
