/**
 * A machine that is ready, kept as a folder: its memory and its disks at one moment. A machine made from it goes on from there
 * instead of booting, on disks of its own over the kept ones. It is for tiers that keep nothing: at each start the machine is as
 * it was kept, and what it wrote since is gone, because memory and disks are right only together.
 */
import { mkdir, rename, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { OperationalError } from "#kernel/errors.ts";
import { snapshotDisks } from "./disk-snapshot.ts";
import { readIfThere, syncFolder, writeDurably } from "./durable-file.ts";
import type { DiskSpec, MachineSpec } from "./machine-spec.ts";
import type { MachineView } from "./machine-view.ts";
import { saveMemory } from "./memory-state.ts";
import type { Accelerator } from "./plan-command-line.ts";

export interface Template {
  readonly format: 1;
  readonly spec: MachineSpec;
  /** Memory is only good under the accelerator and the QEMU that it was saved with. */
  readonly accelerator: Accelerator;
  readonly qemuVersion: string;
}

const TEMPLATE_FILE = "template.json";
const STATE_FILE = "memory.state";

/**
 * The guest stands still meanwhile (some 100 ms for a small one) and goes on. `folder` must not be there, and is complete when it
 * is. Errors: `state.conflict`, `machine.failing`.
 */
export async function saveTemplate(
  machine: MachineView,
  folder: string,
  signal?: AbortSignal,
): Promise<Template> {
  if ((await readIfThere(join(folder, TEMPLATE_FILE))) !== null) {
    throw new OperationalError("state.conflict", `${folder} holds a template already`);
  }
  const making = `${folder}.new`;
  await rm(making, { recursive: true, force: true });
  await mkdir(making, { recursive: true, mode: 0o700 });
  return machine.exclusive(async () => {
    const { qmp, spec, deps } = machine;
    const options = signal === undefined ? {} : { signal };
    await qmp.execute("stop", undefined, signal);
    try {
      // Disks first: writing the memory out ends with QEMU giving its images up, until it goes on.
      const disks = spec.disks.map(({ id }) => ({ disk: id, path: templateDisk(making, id) }));
      if (disks.length > 0) await snapshotDisks(machine, disks, options);
      await saveMemory(qmp, join(making, STATE_FILE), deps.clock, signal);
    } finally {
      await qmp.execute("cont").catch(() => {});
    }
    const accelerator = await deps.accelerator(signal);
    const template: Template = {
      format: 1,
      spec,
      accelerator,
      qemuVersion: await qemuVersion(machine, signal),
    };
    await writeDurably(join(making, TEMPLATE_FILE), JSON.stringify(template));
    await rename(making, folder);
    await syncFolder(dirname(folder));
    return template;
  });
}

/** Errors: `not_found`, `store.version`. */
export async function readTemplate(folder: string): Promise<Template> {
  const bytes = await readIfThere(join(folder, TEMPLATE_FILE));
  if (bytes === null) throw new OperationalError("not_found", `${folder} holds no template`);
  const template = JSON.parse(bytes.toString()) as Template;
  if (template.format !== 1) {
    throw new OperationalError("store.version", `${folder} was written by another version of Understudy`);
  }
  return template;
}

/** What may differ from the kept machine: what the guest does not see. */
export interface TemplateChanges {
  readonly id: string;
  /** As many as the kept machine has, of the same kinds. */
  readonly networks?: MachineSpec["networks"];
}

/** The spec of a machine that goes on from a template. Pure. */
export function planFromTemplate(folder: string, template: Template, changes: TemplateChanges): MachineSpec {
  return {
    ...template.spec,
    id: changes.id,
    hostname: template.spec.hostname ?? template.spec.id,
    networks: changes.networks ?? template.spec.networks,
    disks: template.spec.disks.map((disk): DiskSpec => ({
      ...disk,
      content: { kind: "overlay", path: templateDisk(folder, disk.id), format: "qcow2" },
    })),
  };
}

export function templateState(folder: string): string {
  return join(folder, STATE_FILE);
}

/** Whether its memory is good for this QEMU. */
export async function suits(
  template: Template,
  machine: MachineView,
  signal?: AbortSignal,
): Promise<boolean> {
  if (template.accelerator !== (await machine.deps.accelerator(signal))) return false;
  return template.qemuVersion === (await qemuVersion(machine, signal));
}

function templateDisk(folder: string, id: string): string {
  return join(folder, `disk-${id}.qcow2`);
}

async function qemuVersion(machine: MachineView, signal?: AbortSignal): Promise<string> {
  const { major, minor, micro } = (await machine.qmp.greeting(signal)).version;
  return `${major}.${minor}.${micro}`;
}
