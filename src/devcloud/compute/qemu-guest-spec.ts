/** What machine a server becomes: pure, from the server as it is launched and the disks that it has. */
import { isUtf8 } from "node:buffer";
import type { ServerLaunch } from "#devcloud/core/compute.ts";
import type { GuestImage } from "#hypervisor/guest/build-guest-image.ts";
import type { DiskSpecInput, MachineSpecInput } from "#hypervisor/machine-spec.ts";

/** A laptop holds many guests: a type's memory is scaled down, between what the small guest boots in and what QEMU may take. */
const MEMORY_SHARE = 16;
const LEAST_MEMORY_MIB = 96;
const MOST_MEMORY_MIB = 256;
const MOST_CPUS = 2;
/** What QEMU needs beside the guest's memory: measured 162 MiB in all with a guest of 96 MiB. */
const QEMU_OVERHEAD_MIB = 72;

const MOST_USER_DATA = 65_536;

/** Q35 with 40 guests at once on two cores boots in 78 s. */
const BOOT_LIMIT_MS = 120_000;

export function guestMemoryMiB(typeMiB: number): number {
  return Math.min(MOST_MEMORY_MIB, Math.max(LEAST_MEMORY_MIB, Math.round(typeMiB / MEMORY_SHARE)));
}

/** What the host gives for a guest with so much memory, in MiB. */
export function hostMemoryMiB(guestMiB: number): number {
  return guestMiB + QEMU_OVERHEAD_MIB;
}

export interface GuestPlan {
  readonly spec: MachineSpecInput;
  /** What of the server cannot be given to a guest, for its console. */
  readonly remarks: readonly string[];
}

export function planGuest(
  server: ServerLaunch,
  image: GuestImage,
  disks: readonly DiskSpecInput[],
): GuestPlan {
  const { text, remark } = userDataText(server.userData);
  const mac = server.macs[0];
  return {
    spec: {
      id: server.id,
      hostname: hostnameOf(server.name),
      memoryMiB: guestMemoryMiB(server.memoryMiB),
      cpus: Math.min(MOST_CPUS, server.vcpus),
      boot: { kind: "kernel", kernelPath: image.kernelPath, initrdPath: image.initrdPath },
      disks: [...disks],
      // Forwards come when it runs, and change with the rules of its groups.
      networks: [{ kind: "user", ...(mac !== undefined && { mac }) }],
      ...(text !== null && { userData: text }),
      guestAgent: true,
      ready: { consoleLine: "guest: ready", withinMs: BOOT_LIMIT_MS, attempts: 2 },
    },
    remarks: remark === null ? [] : [remark],
  };
}

function userDataText(base64: string | null): { text: string | null; remark: string | null } {
  if (base64 === null) return { text: null, remark: null };
  const bytes = Buffer.from(base64, "base64");
  if (!isUtf8(bytes)) return { text: null, remark: "user data is not text: the guest does not get it" };
  const text = bytes.toString("utf8");
  return text.length > MOST_USER_DATA
    ? {
        text: null,
        remark: `user data has more than ${MOST_USER_DATA} characters: the guest does not get it`,
      }
    : { text, remark: null };
}

/** As a host name: letters, digits and hyphens (RFC 1123). */
function hostnameOf(name: string): string {
  const plain = name
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/g, "-")
    .slice(0, 63)
    .replaceAll(/^-+|-+$/g, "");
  return plain === "" ? "server" : plain;
}
