/** What a machine is to be. Everything durable about it follows from this and from what was asked of it since. */
import { z } from "zod";
import { OperationalError } from "#kernel/errors.ts";

/** Where a disk is served by NBD, as both QEMU and this process can reach it. */
const nbdLocation = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("unix"), path: z.string().startsWith("/"), export: z.string() }),
  z.strictObject({
    kind: z.literal("tcp"),
    host: z.string(),
    port: z.int().min(1).max(65535),
    export: z.string(),
    /** Over TLS: the folder with `ca-cert.pem`, `client-cert.pem` and `client-key.pem`. */
    certificates: z.string().startsWith("/").optional(),
  }),
]);

/** Also the disk's serial number in the guest, and part of file names. */
const diskId = z.string().regex(/^[a-z0-9][a-z0-9-]{0,19}$/);
const imageFormat = z.enum(["raw", "qcow2"]);

const diskContent = z.discriminatedUnion("kind", [
  /** Reads as zeroes. */
  z.strictObject({ kind: z.literal("blank"), sizeBytes: z.int().positive() }),
  /** A full copy of an image, of its own size or a larger one. */
  z.strictObject({
    kind: z.literal("copy"),
    path: z.string().startsWith("/"),
    format: imageFormat,
    sizeBytes: z.int().positive().optional(),
  }),
  /** An image that belongs to somebody else: used as it is, and left behind when the machine is destroyed. */
  z.strictObject({
    kind: z.literal("existing"),
    path: z.string().startsWith("/"),
    format: imageFormat,
    /** Where a qcow2 overlay takes what it does not hold yet; it needs it only as long as its header names a backing file. */
    source: nbdLocation.optional(),
  }),
  /** Its own writes over an image that must not change. */
  z.strictObject({ kind: z.literal("overlay"), path: z.string().startsWith("/"), format: imageFormat }),
  /** Its own writes over a read-only export: the guest starts at once, and `startBackgroundCopy` makes it whole. */
  z.strictObject({ kind: z.literal("live"), source: nbdLocation, sizeBytes: z.int().positive() }),
]);

const diskSpec = z.strictObject({
  id: diskId,
  content: diskContent,
  readOnly: z.boolean().default(false),
  /** 0: no limit. */
  bytesPerSecond: z.int().nonnegative().default(0),
  operationsPerSecond: z.int().nonnegative().default(0),
});

const portForward = z.strictObject({
  protocol: z.enum(["tcp", "udp"]).default("tcp"),
  hostAddress: z.ipv4().default("127.0.0.1"),
  /** 0: any free one, which `status` tells. */
  hostPort: z.int().min(0).max(65535),
  guestPort: z.int().min(1).max(65535),
});

// What goes into QEMU's arguments as it is: a comma in it would be an option of QEMU's, up to programs that it runs.
const mac = z.string().regex(/^[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}$/);
const address = z.string().regex(/^[0-9.]+\/[0-9]{1,2}$/);
const networkSpec = z.discriminatedUnion("kind", [
  /** QEMU's own network: needs no rights; from outside the guest is reached through forwards alone. */
  z.strictObject({
    kind: z.literal("user"),
    mac: mac.optional(),
    forwards: z.array(portForward).default([]),
    /** May the guest reach the host and what the host reaches? */
    outbound: z.boolean().default(false),
  }),
  /** A tap device that is there already (and belongs to us, or we are root). */
  z.strictObject({
    kind: z.literal("tap"),
    mac: mac.optional(),
    device: z.string().regex(/^[A-Za-z0-9_.@-]{1,15}$/),
    /** Given to the small guest; other images take it from their seed. */
    address: address.optional(),
    gateway: z.ipv4().optional(),
  }),
]);

const bootSpec = z.discriminatedUnion("kind", [
  /** A kernel of the host's choice, without a boot loader. */
  z.strictObject({
    kind: z.literal("kernel"),
    kernelPath: z.string().startsWith("/"),
    initrdPath: z.string().startsWith("/").optional(),
    append: z.string().default(""),
  }),
  /** The first disk's boot loader, by SeaBIOS. */
  z.strictObject({ kind: z.literal("disk") }),
]);

const machineSpec = z.strictObject({
  id: z.string().regex(/^[a-z0-9][a-z0-9-]{0,39}$/),
  hostname: z.string().max(63).optional(),
  memoryMiB: z.int().min(80).max(1_048_576),
  cpus: z.int().min(1).max(64),
  boot: bootSpec,
  disks: z.array(diskSpec).max(24).default([]),
  networks: z.array(networkSpec).max(4).default([]),
  /** As a cloud takes it: text, given to the guest on a NoCloud seed disk. */
  userData: z.string().max(65536).optional(),
  /** OpenSSH, on the seed disk: cloud-init gives them to the image's own user. */
  publicKeys: z
    .array(z.string().regex(/^[^\n]{1,16384}$/))
    .max(16)
    .optional(),
  /** A port for QEMU's guest agent. */
  guestAgent: z.boolean().default(false),
  /** A display without a window, for screenshots. */
  display: z.boolean().default(false),
  /** Start it again when QEMU ends though nobody asked for it, and after the host was booted. */
  autoRestart: z.boolean().default(false),
  /** Start again what has not printed this line on its console in time. Without it, started means that QEMU runs. */
  ready: z
    .strictObject({
      consoleLine: z.string().min(1),
      withinMs: z.int().positive().default(30_000),
      attempts: z.int().min(1).max(10).default(3),
    })
    .optional(),
});

export type NbdLocation = z.output<typeof nbdLocation>;
export type DiskContent = z.output<typeof diskContent>;
export type DiskSpec = z.output<typeof diskSpec>;
export type NetworkSpec = z.output<typeof networkSpec>;
export type MachineSpec = z.output<typeof machineSpec>;
/** What a caller may leave out has a default. */
export type MachineSpecInput = z.input<typeof machineSpec>;
export type DiskSpecInput = z.input<typeof diskSpec>;

/** Errors: `input.invalid`, which names the field. */
export function decodeMachineSpec(input: unknown): MachineSpec {
  const spec = decode(machineSpec, input, "machine");
  const ids = spec.disks.map(({ id }) => id);
  if (new Set(ids).size !== ids.length) throw invalid("machine: two disks have one id");
  if (ids.includes(SEED_DISK)) throw invalid(`machine: the disk id ${SEED_DISK} is the seed's`);
  if (spec.boot.kind === "disk" && ids.length === 0)
    throw invalid("machine: it boots from a disk, and has none");
  return spec;
}

/** Errors: `input.invalid`. */
export function decodeDiskSpec(input: unknown): DiskSpec {
  const disk = decode(diskSpec, input, "disk");
  if (disk.id === SEED_DISK) throw invalid(`disk: the id ${SEED_DISK} is the seed's`);
  return disk;
}

/** cloud-init looks for a volume of this label; the small guest for a disk of this serial. */
export const SEED_DISK = "cidata";

function decode<Schema extends z.ZodType>(schema: Schema, input: unknown, what: string): z.output<Schema> {
  const result = schema.safeParse(input);
  if (result.success) return result.data;
  const problems = result.error.issues.map(({ path, message }) => `${[what, ...path].join(".")}: ${message}`);
  throw invalid(problems.join("; "));
}

function invalid(message: string): OperationalError {
  return new OperationalError("input.invalid", message);
}
