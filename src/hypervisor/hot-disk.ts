/**
 * Disks that come to a machine and leave it while it runs. The machine's spec is the intent: a disk is in it before it is
 * attached, and until it is detached. Killed in between, the same call again finishes what was begun.
 */
import { OperationalError } from "#kernel/errors.ts";
import { canonicalJson } from "#kernel/json.ts";
import type { JsonObject } from "#wire/qmp/qmp-message.ts";
import { queryNodes } from "./block-jobs.ts";
import { ensureDisks, inspectDisk } from "./create-disk.ts";
import { decodeDiskSpec, type DiskSpec, type DiskSpecInput } from "./machine-spec.ts";
import type { MachineView } from "./machine-view.ts";
import {
  planDiskDevice,
  planDiskNodes,
  planSourceCredentials,
  planThrottleGroup,
} from "./plan-command-line.ts";
import { credentialsOf, exportNode } from "./plan-nbd.ts";

/** A guest that does not let a disk go in this time is asked again at the next call. */
const UNPLUG_LIMIT_MS = 10_000;
const POLL_MS = 20;

interface PciDevice {
  readonly qdev_id: string;
  readonly pci_bridge?: { readonly devices?: readonly PciDevice[] };
}

/** The ids of the disks that QEMU has now. Errors: `machine.refused` when the machine is off. */
export async function attachedDisks(
  machine: MachineView,
  signal?: AbortSignal,
): Promise<ReadonlySet<string>> {
  const devices = (await machine.execute("qom-list", { path: "/machine/peripheral" }, signal)) as {
    name: string;
  }[];
  return new Set(devices.flatMap(({ name }) => (name.startsWith("dev-") ? [name.slice("dev-".length)] : [])));
}

/**
 * In the guest's sight when it has seen to it, and at every later start; an image that is there already is used as it is.
 * Attached already: nothing. Errors: `state.conflict`: the id is another disk's; `machine.refused`: off, or no port is free.
 */
export function attachDisk(machine: MachineView, input: DiskSpecInput, signal?: AbortSignal): Promise<void> {
  return machine.exclusive(async () => {
    const disk = decodeDiskSpec(input);
    const attached = await attachedDisks(machine, signal);
    const present = machine.spec.disks.find(({ id }) => id === disk.id);
    if (attached.has(disk.id) && present !== undefined && canonicalJson(present) !== canonicalJson(disk)) {
      throw new OperationalError("state.conflict", `machine ${machine.id} has another disk ${disk.id}`);
    }
    await remember(machine, disk);
    if (!attached.has(disk.id)) await plug(machine, disk, signal);
  });
}

/** Those of the spec that QEMU does not have: an agent was killed while it attached them. The caller has the machine to itself. */
export async function attachMissing(machine: MachineView, signal?: AbortSignal): Promise<void> {
  const attached = await attachedDisks(machine, signal);
  for (const disk of machine.spec.disks) if (!attached.has(disk.id)) await plug(machine, disk, signal);
}

async function plug(machine: MachineView, disk: DiskSpec, signal: AbortSignal | undefined): Promise<void> {
  await ensureDisks(machine, [disk], signal);
  // What an attempt before us left.
  await removeNodes(machine, disk.id, signal);
  const plan = await inspectDisk(machine.folder, disk, signal);
  try {
    await machine.execute("object-add", planThrottleGroup(disk), signal);
    for (const object of planSourceCredentials(plan)) await machine.execute("object-add", object, signal);
    for (const node of planDiskNodes(plan)) await machine.execute("blockdev-add", node, signal);
    const port = await freePort(machine, signal);
    machine.deps.checkpoint(`disk ${disk.id} is known to QEMU`);
    await machine.execute("device_add", planDiskDevice(disk, port), signal);
  } catch (error) {
    await removeNodes(machine, disk.id).catch(() => {});
    throw error;
  }
}

/**
 * Its image is nobody's when it returns. What goes on for it (capture, background copy) must have been ended. Not attached:
 * nothing. Errors: `machine.failing` when the guest does not let it go; `machine.refused` for one that was not made to be moved.
 */
export function detachDisk(machine: MachineView, id: string, signal?: AbortSignal): Promise<void> {
  return machine.exclusive(async () => {
    if (machine.isOn) {
      await unplug(machine, id, signal);
      await removeNodes(machine, id, signal);
    }
    await machine.update(({ spec, made = [] }) => ({
      spec: { ...spec, disks: spec.disks.filter((each) => each.id !== id) },
      made: made.filter((each) => each !== id),
    }));
  });
}

/** Larger only, while the machine runs; the guest sees it at once. */
export async function growDisk(
  machine: MachineView,
  id: string,
  sizeBytes: number,
  signal?: AbortSignal,
): Promise<void> {
  await machine.execute("block_resize", { "node-name": `top-${id}`, size: sizeBytes }, signal);
}

async function remember(machine: MachineView, disk: DiskSpec): Promise<void> {
  await machine.update(({ spec }) => ({
    spec: { ...spec, disks: [...spec.disks.filter(({ id }) => id !== disk.id), disk] },
  }));
}

async function freePort(machine: MachineView, signal: AbortSignal | undefined): Promise<string> {
  const buses = (await machine.execute("query-pci", undefined, signal)) as unknown as {
    devices: readonly PciDevice[];
  }[];
  const free = buses
    .flatMap(({ devices }) => devices)
    .find(({ qdev_id, pci_bridge }) => /^port[0-9]+$/.test(qdev_id) && !pci_bridge?.devices?.length);
  if (free !== undefined) return free.qdev_id;
  throw new OperationalError("machine.refused", `machine ${machine.id} has no place for one more disk`);
}

async function unplug(machine: MachineView, id: string, signal: AbortSignal | undefined): Promise<void> {
  const { clock } = machine.deps;
  const deadline = clock.monotonicMs() + UNPLUG_LIMIT_MS;
  for (let asked = false; (await attachedDisks(machine, signal)).has(id); asked = true) {
    // Refused while an earlier request waits for the guest: that one is waited for.
    if (!asked) {
      await machine.execute("device_del", { id: `dev-${id}` }, signal).catch((error: unknown) => {
        if (!/already in the process of unplug/.test(String(error))) throw error;
      });
    } else await clock.sleep(POLL_MS, signal);
    if (clock.monotonicMs() > deadline) {
      throw new OperationalError(
        "machine.failing",
        `the guest of ${machine.id} does not let go of disk ${id}`,
        {
          outcome: "unknown",
        },
      );
    }
  }
}

/** A device is out of sight a moment before QEMU has ended its last use of the disk. */
async function removeNode(
  machine: MachineView,
  node: string,
  signal: AbortSignal | undefined,
): Promise<void> {
  const { clock } = machine.deps;
  const deadline = clock.monotonicMs() + UNPLUG_LIMIT_MS;
  for (;;) {
    try {
      await machine.execute("blockdev-del", { "node-name": node }, signal);
      return;
    } catch (error) {
      if (!/is in use/.test(String(error)) || clock.monotonicMs() > deadline) throw error;
    }
    await clock.sleep(POLL_MS, signal);
  }
}

/** Top down. */
async function removeNodes(machine: MachineView, id: string, signal?: AbortSignal): Promise<void> {
  const present = await queryNodes(machine.qmp, signal);
  for (const node of [`top-${id}`, `disk-${id}`, `file-${id}`, `source-${id}`]) {
    if (present.has(node)) await removeNode(machine, node, signal);
  }
  const objects = (await machine.execute(
    "qom-list",
    { path: "/objects" },
    signal,
  )) as unknown as JsonObject[];
  for (const object of [`limit-${id}`, credentialsOf(exportNode(id))]) {
    if (objects.some(({ name }) => name === object)) {
      await machine.execute("object-del", { id: object }, signal);
    }
  }
}
