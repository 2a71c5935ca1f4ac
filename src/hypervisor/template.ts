/**
 * A machine that is ready, kept as a folder: its memory and its disks at one moment. A machine made from it goes on from there
 * instead of booting, on disks of its own over the kept ones. It is for tiers that keep nothing: at each start the machine is as
 * it was kept, and what it wrote since is gone, because memory and disks are right only together.
 */
import { mkdir, rename, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { readFileIfAny, replaceFile, syncFile, syncFolder } from "#kernel/durable-file.ts";
import { OperationalError } from "#kernel/errors.ts";
import { snapshotDisks } from "./disk-snapshot.ts";
import type { DiskSpec, MachineSpec } from "./machine-spec.ts";
import type { MachineView } from "./machine-view.ts";
import { loadMemory, saveMemory } from "./memory-state.ts";
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
 * The guest stands still meanwhile (some 100 ms for a small one) and goes on. `folder` must not be there, and is complete and durable
 * when it is. Errors: `state.conflict`; `machine.refused` unless the guest runs; `machine.failing`, also when it does not go on.
 */
export async function saveTemplate(
  machine: MachineView,
  folder: string,
  signal?: AbortSignal,
): Promise<Template> {
  if ((await readFileIfAny(join(folder, TEMPLATE_FILE))) !== null) {
    throw new OperationalError("state.conflict", `${folder} holds a template already`);
  }
  const making = `${folder}.new`;
  await rm(making, { recursive: true, force: true });
  await mkdir(making, { recursive: true, mode: 0o700 });
  return machine.exclusive(async () => {
    const { qmp, spec, deps } = machine;
    const options = signal === undefined ? {} : { signal };
    // Once its memory is written out, a guest can only go on running: QEMU has given its images up until then.
    const { status } = (await qmp.execute("query-status", undefined, signal)) as { status: string };
    if (status !== "running") {
      throw new OperationalError("machine.refused", `machine ${machine.id} is ${status}: let it run first`);
    }
    await qmp.execute("stop", undefined, signal);
    try {
      // Disks first: writing the memory out ends with QEMU giving its images up, until it goes on.
      const disks = spec.disks.map(({ id }) => ({ disk: id, path: templateDisk(making, id) }));
      if (disks.length > 0) await snapshotDisks(machine, disks, options);
      await saveMemory(qmp, join(making, STATE_FILE), deps.clock, signal);
    } finally {
      // Its failure is the call's: a guest would stand still and nobody know of it.
      await qmp.execute("cont");
    }
    const accelerator = await deps.accelerator(signal);
    const template: Template = {
      format: 1,
      spec,
      accelerator,
      qemuVersion: await qemuVersion(machine, signal),
    };
    // QEMU does not: without it, a power cut leaves a template that is there, and a memory that is short.
    await syncFile(templateState(making));
    await replaceFile(join(making, TEMPLATE_FILE), JSON.stringify(template));
    await rename(making, folder);
    await syncFolder(dirname(folder));
    return template;
  });
}

/** Errors: `not_found`, `store.version`. */
export async function readTemplate(folder: string): Promise<Template> {
  const text = await readFileIfAny(join(folder, TEMPLATE_FILE));
  if (text === null) throw new OperationalError("not_found", `${folder} holds no template`);
  const template = JSON.parse(text) as Template;
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

function templateState(folder: string): string {
  return join(folder, STATE_FILE);
}

/** Whether its memory is good for this QEMU. */
async function suits(template: Template, machine: MachineView, signal?: AbortSignal): Promise<boolean> {
  if (template.accelerator !== (await machine.deps.accelerator(signal))) return false;
  return template.qemuVersion === (await qemuVersion(machine, signal));
}

/** The machine was started to take a template's memory in; it runs from there. Errors: `machine.refused`, `machine.failing`. */
export async function goOnFrom(folder: string, machine: MachineView, signal?: AbortSignal): Promise<void> {
  const template = await readTemplate(folder);
  if (!(await suits(template, machine, signal))) {
    throw new OperationalError(
      "machine.refused",
      `the template ${folder} was kept under ${template.accelerator} and QEMU ${template.qemuVersion}: keep it again`,
    );
  }
  await loadMemory(machine.qmp, templateState(folder), signal);
  await machine.qmp.execute("cont", undefined, signal);
}

function templateDisk(folder: string, id: string): string {
  return join(folder, `disk-${id}.qcow2`);
}

async function qemuVersion(machine: MachineView, signal?: AbortSignal): Promise<string> {
  const { major, minor, micro } = (await machine.qmp.greeting(signal)).version;
  return `${major}.${minor}.${micro}`;
}
