/** What a QEMU needs before it is started: its disks, its seed, and its arguments. */
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { replaceFile } from "#kernel/durable-file.ts";
import { createDisk, ensureDisks, inspectDisk, removeDisk } from "./create-disk.ts";
import type { MachineView } from "./machine-view.ts";
import { machineFiles, planCommandLine } from "./plan-command-line.ts";
import { encodeSeed } from "./seed-disk.ts";

/** QEMU's arguments, for the machine's record as it is. It is on record from here on that nobody is known to run. */
export async function prepareLaunch(
  machine: MachineView,
  signal: AbortSignal | undefined,
): Promise<string[]> {
  const { folder, spec, record, deps } = machine;
  const { uuid, template } = record;
  const log = join(folder, machineFiles.consoleLog);
  const consoleStart = (await stat(log).catch(() => ({ size: 0 }))).size;
  await machine.update({ process: null, consoleStart });
  // Memory and disks of a template are right only together.
  if (template === null) await ensureDisks(machine, spec.disks, signal);
  else {
    for (const disk of spec.disks) {
      await removeDisk(folder, disk);
      await createDisk(folder, disk, signal);
    }
  }
  const disks = await Promise.all(spec.disks.map((disk) => inspectDisk(folder, disk, signal)));
  const seed = spec.userData !== undefined || spec.publicKeys !== undefined;
  if (seed) await replaceFile(join(folder, machineFiles.seed), encodeSeed(spec, uuid));
  const accelerator = await deps.accelerator(signal);
  return planCommandLine({ spec, uuid, accelerator, disks, seed, incoming: template !== null });
}
