/** What machine a server becomes: pure, from the server as it is launched and the disks that it has. */
import { isUtf8 } from "node:buffer";
import type { DiskSpecInput, MachineSpecInput } from "#hypervisor/machine-spec.ts";

const MOST_USER_DATA = 65_536;

/** Q35 with 40 guests at once on two cores boots in 78 s. */
const BOOT_LIMIT_MS = 120_000;

export interface GuestServer {
  readonly id: string;
  readonly name: string;
  readonly mac?: string;
  readonly cpus: number;
  readonly memoryMiB: number;
  readonly boot: MachineSpecInput["boot"];
  /** Base64. */
  readonly userData: string | null;
  /** What the guest prints when it serves; null: it is ready when QEMU runs. */
  readonly readyLine: string | null;
  /** May it reach the host and what the host reaches? */
  readonly outbound: boolean;
  /** It keeps nothing: it may go on from the memory of one that was like it, instead of booting. */
  readonly keepsNothing?: boolean;
  /** OpenSSH, for whom an image with cloud-init lets in. */
  readonly publicKeys?: readonly string[];
}

export interface GuestPlan {
  readonly spec: MachineSpecInput;
  /** What of the server cannot be given to a guest, for its console. */
  readonly remarks: readonly string[];
  /** Its memory, once it is ready, is as good for any other one like it. */
  readonly keepsNothing: boolean;
}

export function planGuest(server: GuestServer, disks: readonly DiskSpecInput[]): GuestPlan {
  const { id, mac, cpus, memoryMiB, boot, readyLine, outbound } = server;
  const { text, remark } = userDataText(server.userData);
  return {
    spec: {
      id,
      hostname: hostnameOf(server.name),
      memoryMiB,
      cpus,
      boot,
      disks: [...disks],
      // Forwards come when it runs, and change with the rules of its groups.
      networks: [{ kind: "user", outbound, ...(mac !== undefined && { mac }) }],
      ...(text !== null && { userData: text }),
      ...(server.publicKeys !== undefined && { publicKeys: [...server.publicKeys] }),
      guestAgent: true,
      ...(readyLine !== null && {
        ready: { consoleLine: readyLine, withinMs: BOOT_LIMIT_MS, attempts: 2 },
      }),
    },
    remarks: remark === null ? [] : [remark],
    keepsNothing: server.keepsNothing === true && disks.length === 0,
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
