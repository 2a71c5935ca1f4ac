/**
 * From a machine's spec to QEMU's arguments. Node names: `file-ID` (the image file), `disk-ID` (its format; bitmaps live here),
 * `top-ID` (the throttle the device sits on; mirrors and limits live here), `source-ID` (a live disk's NBD export). The
 * device is `dev-ID`, its serial is ID.
 *
 * QEMU runs with the machine's folder as its working directory: all paths of our own are relative to it, which keeps socket
 * names below the 107 bytes that Unix allows.
 */
import type { JsonObject } from "#wire/qmp/qmp-message.ts";
import { type DiskSpec, type MachineSpec, type NbdLocation, SEED_DISK } from "./machine-spec.ts";
import { exportNode, planCredentials, planNbdNode } from "./plan-nbd.ts";

export type Accelerator = "kvm" | "tcg";

/** Names within a machine's folder. */
export const machineFiles = {
  record: "machine.json",
  qmpSocket: "qmp.sock",
  agentSocket: "agent.sock",
  pid: "qemu.pid",
  consoleLog: "console.log",
  qemuLog: "qemu.log",
  seed: "seed.iso",
  template: "template.state",
} as const;

/** A disk as it is: where its image is, and what it still stands on. */
export interface DiskPlan {
  readonly spec: DiskSpec;
  readonly path: string;
  readonly format: "raw" | "qcow2";
  /** The export that the image still takes unwritten blocks from. */
  readonly source?: NbdLocation;
}

export interface CommandLineInput {
  readonly spec: MachineSpec;
  readonly uuid: string;
  readonly accelerator: Accelerator;
  readonly disks: readonly DiskPlan[];
  readonly seed: boolean;
  /** Start from a saved memory state instead of booting: QEMU waits for `migrate-incoming`. */
  readonly incoming?: boolean;
}

/** Disks that may be attached while a machine runs, or were at its start and may be detached. */
export const HOT_PLUG_PORTS = 12;

/** A lost export answers with an error after this long, and the guest is paused; both are undone when it is back. */
const SOURCE_RECONNECT_SECONDS = 2;

/**
 * What the small guest's kernel is told: mostly what not to spend time on. `nokaslr`, `mitigations=off`: under TCG they cost
 * seconds and protect nothing the emulator does not.
 */
const QUICK_BOOT =
  "console=ttyS0 quiet loglevel=1 mitigations=off nokaslr cryptomgr.notests 8250.nr_uarts=1 audit=0 apparmor=0 random.trust_cpu=on";

/** Translated code is kept in so much: 16 MiB makes a guest seven times slower, more is not needed by a small one. */
const TCG_BUFFER_MIB = 32;
const LARGE_GUEST_MIB = 512;

export function planCommandLine(input: CommandLineInput): string[] {
  const { spec } = input;
  const ports = planPorts(input.disks);
  return [
    "-nodefaults",
    "-no-user-config",
    "-name",
    `${spec.id},debug-threads=on`,
    "-uuid",
    input.uuid,
    "-display",
    "none",
    ...planProcessor(input),
    ...planBoot(spec),
    "-rtc",
    "base=utc",
    // A guest that turns itself off leaves QEMU standing, so that an agent that was away learns why.
    "-action",
    "shutdown=pause",
    "-pidfile",
    machineFiles.pid,
    "-chardev",
    `socket,id=monitor,path=${machineFiles.qmpSocket},server=on,wait=off`,
    "-mon",
    "chardev=monitor,mode=control",
    "-chardev",
    `file,id=console,path=${machineFiles.consoleLog},append=on`,
    "-serial",
    "chardev:console",
    ...hotPlugPorts(),
    ...input.disks.flatMap((disk, index) =>
      planDisk(disk, ports.get(disk.spec.id), spec.boot.kind === "disk" && index === 0),
    ),
    ...(input.seed ? planSeed() : []),
    ...spec.networks.flatMap((_, index) => planNetwork(spec, index)),
    ...(spec.guestAgent ? planAgentPort() : []),
    ...(spec.display ? ["-device", "VGA"] : []),
    ...(input.incoming === true ? ["-incoming", "defer"] : []),
  ];
}

function planProcessor({ spec, accelerator }: CommandLineInput): string[] {
  const buffer = spec.memoryMiB >= LARGE_GUEST_MIB ? 4 * TCG_BUFFER_MIB : TCG_BUFFER_MIB;
  const cpu = accelerator === "kvm" ? ["-cpu", "host"] : [];
  return [
    "-M",
    "q35,usb=off,smm=off",
    "-accel",
    accelerator === "kvm" ? "kvm" : `tcg,tb-size=${buffer}`,
    ...cpu,
    "-m",
    String(spec.memoryMiB),
    "-smp",
    String(spec.cpus),
  ];
}

function planBoot(spec: MachineSpec): string[] {
  if (spec.boot.kind === "disk") return ["-boot", "c"];
  const initrd = spec.boot.initrdPath === undefined ? [] : ["-initrd", spec.boot.initrdPath];
  const words = [QUICK_BOOT, spec.boot.append, ...guestWords(spec)];
  return [
    "-bios",
    "qboot.rom",
    "-kernel",
    spec.boot.kernelPath,
    ...initrd,
    "-append",
    words.filter((word) => word !== "").join(" "),
  ];
}

/** The small guest's own words: its first interface and its name. */
function guestWords(spec: MachineSpec): string[] {
  const first = spec.networks[0];
  const name = `us.name=${spec.hostname ?? spec.id}`;
  // QEMU's user network: the guest is .15, the gateway .2.
  if (first?.kind === "user") return [name, "us.ip=10.0.2.15/24", "us.gw=10.0.2.2"];
  if (first?.address === undefined) return [name];
  return [name, `us.ip=${first.address}`, ...(first.gateway === undefined ? [] : [`us.gw=${first.gateway}`])];
}

function hotPlugPorts(): string[] {
  return Array.from({ length: HOT_PLUG_PORTS }, (_, index) => [
    "-device",
    `pcie-root-port,id=port${index},chassis=${index + 1},slot=${index + 1}`,
  ]).flat();
}

/** What sits on the root bus can never be taken out: as long as there are ports, disks sit on those, somebody else's images first. */
function planPorts(disks: readonly DiskPlan[]): ReadonlyMap<string, string> {
  const foreign = ({ spec }: DiskPlan): boolean => spec.content.kind === "existing";
  const order = [...disks.filter(foreign), ...disks.filter((disk) => !foreign(disk))];
  return new Map(order.slice(0, HOT_PLUG_PORTS).map(({ spec }, index) => [spec.id, `port${index}`]));
}

/** `boots`: the firmware tries no other disk; else it would take the first one on the root bus, which is the seed. */
function planDisk(disk: DiskPlan, port: string | undefined, boots: boolean): string[] {
  return [
    // Before the node that names it.
    "-object",
    JSON.stringify(planThrottleGroup(disk.spec)),
    ...planSourceCredentials(disk).flatMap((object) => ["-object", JSON.stringify(object)]),
    ...planDiskNodes(disk).flatMap((node) => ["-blockdev", JSON.stringify(node)]),
    "-device",
    JSON.stringify({ ...planDiskDevice(disk.spec, port), ...(boots && { bootindex: 0 }) }),
  ];
}

/** `object-add`'s arguments. */
export function planThrottleGroup({ id, bytesPerSecond, operationsPerSecond }: DiskSpec): JsonObject {
  return {
    "qom-type": "throttle-group",
    id: `limit-${id}`,
    limits: { "bps-total": bytesPerSecond, "iops-total": operationsPerSecond },
  };
}

/** `object-add`'s arguments for what the nodes of a disk name. */
export function planSourceCredentials({ spec, source }: DiskPlan): JsonObject[] {
  return source === undefined ? [] : planCredentials(exportNode(spec.id), source);
}

/** `blockdev-add`'s arguments, in order. */
export function planDiskNodes({ spec, path, format, source }: DiskPlan): JsonObject[] {
  const { id, readOnly } = spec;
  const base = { "read-only": readOnly, discard: "unmap" } as const;
  const below = source === undefined ? [] : [planSourceNode(id, source)];
  return [
    ...below,
    { driver: "file", filename: path, "node-name": `file-${id}`, ...base },
    {
      driver: format,
      file: `file-${id}`,
      "node-name": `disk-${id}`,
      ...base,
      // Null, not absent: else QEMU would follow the name in the image, which may have moved.
      ...(format === "qcow2" && isOverlay(spec) && { backing: backingOf(spec, source) }),
    },
    {
      driver: "throttle",
      file: `disk-${id}`,
      "throttle-group": `limit-${id}`,
      "node-name": `top-${id}`,
      ...base,
    },
  ];
}

function isOverlay({ content }: DiskSpec): boolean {
  return (
    content.kind === "live" ||
    content.kind === "overlay" ||
    (content.kind === "existing" && content.source !== undefined)
  );
}

function backingOf(spec: DiskSpec, source: NbdLocation | undefined): string | JsonObject | null {
  if (source !== undefined) return `source-${spec.id}`;
  if (spec.content.kind !== "overlay") return null;
  return {
    driver: spec.content.format,
    "read-only": true,
    file: { driver: "file", filename: spec.content.path, "read-only": true },
  };
}

/**
 * The read-only export below a live disk. While block-stream runs, a guest's reads pass QEMU's copy-on-read filter, which takes an
 * export that cannot say what it holds for one that ends there: the read succeeds with what the buffer held (seen with 7.2:
 * `cor_co_preadv_part` in block/copy-on-read.c leaves its loop at `n == 0`). A quorum of one says "data" where its child cannot
 * answer (`quorum_co_block_status` in block/quorum.c), so that the read itself is tried, fails, and pauses the guest.
 */
function planSourceNode(id: string, source: NbdLocation): JsonObject {
  return {
    driver: "quorum",
    "node-name": `source-${id}`,
    "vote-threshold": 1,
    children: [{ ...planNbdNode(exportNode(id), source, SOURCE_RECONNECT_SECONDS), "read-only": true }],
    "read-only": true,
  };
}

/** `device_add`'s arguments. `port`: one of the hot-plug ports. */
export function planDiskDevice(spec: DiskSpec, port?: string): JsonObject {
  return {
    driver: "virtio-blk-pci",
    id: `dev-${spec.id}`,
    drive: `top-${spec.id}`,
    serial: spec.id,
    // Neither a full disk nor a lost export is the guest's to see: it is paused until the agent has made it good.
    werror: "stop",
    rerror: "stop",
    ...(port !== undefined && { bus: port }),
  };
}

function planSeed(): string[] {
  const node = {
    driver: "raw",
    "node-name": "seed",
    "read-only": true,
    file: { driver: "file", filename: machineFiles.seed, "read-only": true },
  };
  return ["-blockdev", JSON.stringify(node), "-device", `virtio-blk-pci,drive=seed,serial=${SEED_DISK}`];
}

function planNetwork(spec: MachineSpec, index: number): string[] {
  const network = spec.networks[index];
  if (network === undefined) return [];
  const mac = network.mac === undefined ? "" : `,mac=${network.mac}`;
  // Without the boot ROM: nothing boots from the network.
  const device = `virtio-net-pci,netdev=net${index},romfile=${mac}`;
  if (network.kind === "tap") {
    const tap = `tap,id=net${index},ifname=${network.device},script=no,downscript=no`;
    return ["-netdev", tap, "-device", device];
  }
  const forwards = network.forwards.map(
    ({ protocol, hostAddress, hostPort, guestPort }) =>
      `,hostfwd=${protocol}:${hostAddress}:${hostPort}-:${guestPort}`,
  );
  const restrict = network.outbound ? "" : ",restrict=on";
  return ["-netdev", `user,id=net${index}${restrict}${forwards.join("")}`, "-device", device];
}

function planAgentPort(): string[] {
  return [
    "-device",
    "virtio-serial-pci,id=serial",
    "-chardev",
    `socket,id=agent,path=${machineFiles.agentSocket},server=on,wait=off`,
    "-device",
    "virtserialport,bus=serial.0,chardev=agent,name=org.qemu.guest_agent.0",
  ];
}
