/** Copies of volumes at one instant, also of those that machines run with: these stand still while their files are copied. */
import { execFile } from "node:child_process";
import { rm } from "node:fs/promises";
import { promisify } from "node:util";
import { qemuImg } from "#hypervisor/create-disk.ts";
import type { Machine } from "#hypervisor/machine.ts";

export interface VolumeCopy {
  /** The volume's qcow2 file. */
  readonly source: string;
  /** The machine that may run with it. */
  readonly holder: Machine | undefined;
  /** A raw file is made here. */
  readonly path: string;
}

const run = promisify(execFile);

/**
 * QEMU writes what it holds of its files when a machine is told to stand still (`vm_stop`, docs/devel/qapi: `stop`), so that the files are
 * then as after a loss of power at that instant. A machine is on as far as its record says: killed here, it runs on after a restart.
 */
export async function copyVolumes(copies: readonly VolumeCopy[], signal: AbortSignal): Promise<void> {
  const holders = new Set(copies.flatMap(({ holder }) => (holder?.state === "running" ? [holder] : [])));
  await standStill([...holders], signal, async () => {
    for (const { source, path } of copies)
      await run("cp", ["--sparse=always", "--reflink=auto", source, `${path}.qcow2`], { signal });
  });
  for (const { path } of copies) {
    // What it may stand on is read too.
    await qemuImg(["convert", "-q", "-f", "qcow2", "-O", "raw", "-S", "64k", `${path}.qcow2`, path], signal);
    await rm(`${path}.qcow2`);
  }
}

async function standStill(
  machines: readonly Machine[],
  signal: AbortSignal,
  work: () => Promise<void>,
): Promise<void> {
  const [machine, ...others] = machines;
  if (machine === undefined) return work();
  await machine.exclusive(async () => {
    const { qmp } = machine;
    await qmp.execute("stop", undefined, signal);
    try {
      await standStill(others, signal, work);
    } finally {
      // Also when whoever asked is gone.
      await qmp.execute("cont");
    }
  });
}
