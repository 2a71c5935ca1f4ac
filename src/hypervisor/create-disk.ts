/** The image files of a machine's disks. An image is complete when it has its name: it is made under another one. */
import { execFile } from "node:child_process";
import { rm } from "node:fs/promises";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import { OperationalError } from "#kernel/errors.ts";
import { isThere, missingImage, publishImage } from "./image-file.ts";
import type { DiskSpec } from "./machine-spec.ts";
import type { MachineView } from "./machine-view.ts";
import type { DiskPlan } from "./plan-command-line.ts";
import { backingName } from "./plan-nbd.ts";

const run = promisify(execFile);

/**
 * Makes the images that are not there yet, and remembers that they were made: one that is missing later on is lost, and a guest that
 * is started on an empty disk would do more harm than one that does not start. Errors: `store.failing`; those of `createDisk`.
 */
export async function ensureDisks(
  machine: MachineView,
  disks: readonly DiskSpec[],
  signal?: AbortSignal,
): Promise<void> {
  const made = machine.record.made ?? [];
  const own = disks.filter(({ content }) => content.kind !== "existing");
  for (const disk of own) {
    const path = join(machine.folder, imageName(disk));
    if (await isThere(path)) continue;
    if (made.includes(disk.id)) throw missingImage(`disk ${disk.id} of machine ${machine.id}`, path);
    await createDisk(machine.folder, disk, signal);
    machine.deps.checkpoint(`disk ${disk.id} is there`);
  }
  const ids = own.map(({ id }) => id);
  if (ids.every((id) => made.includes(id))) return;
  await machine.update((record) => ({ made: Array.from(new Set([...(record.made ?? []), ...ids])) }));
}

/**
 * Makes an image that is not there. Errors: `machine.refused` with qemu-img's own words as detail, `state.conflict` when it is there
 * already, `store.full`, `store.failing`.
 */
export async function createDisk(folder: string, disk: DiskSpec, signal?: AbortSignal): Promise<void> {
  const { content } = disk;
  if (content.kind === "existing") return;
  const path = join(folder, imageName(disk));
  const making = `${path}.new`;
  await rm(making, { force: true });
  await qemuImg(planCreation(disk, making), signal);
  if (content.kind === "copy" && content.sizeBytes !== undefined) {
    await qemuImg(["resize", "-q", "-f", "qcow2", making, String(content.sizeBytes)], signal);
  }
  await publishImage(making, path, "absent");
}

export async function removeDisk(folder: string, disk: DiskSpec): Promise<void> {
  if (disk.content.kind !== "existing") await rm(join(folder, imageName(disk)), { force: true });
}

/**
 * Where the image is, and whether a live disk still needs its source. The truth about that is the image's own header: QEMU
 * takes the backing file's name out of it in the moment the background copy is complete.
 */
export async function inspectDisk(folder: string, disk: DiskSpec, signal?: AbortSignal): Promise<DiskPlan> {
  const { content } = disk;
  const plan: DiskPlan =
    content.kind === "existing"
      ? { spec: disk, path: content.path, format: content.format }
      : { spec: disk, path: imageName(disk), format: "qcow2" };
  const source = content.kind === "live" || content.kind === "existing" ? content.source : undefined;
  if (source === undefined) return plan;
  const { stdout } = await qemuImg(["info", "-U", "--output=json", resolve(folder, plan.path)], signal);
  const whole = (JSON.parse(stdout) as { "backing-filename"?: string })["backing-filename"] === undefined;
  return whole ? plan : { ...plan, source };
}

function imageName({ id }: DiskSpec): string {
  return `disk-${id}.qcow2`;
}

function planCreation({ content }: DiskSpec, path: string): string[] {
  const create = ["create", "-q", "-f", "qcow2"];
  switch (content.kind) {
    case "blank":
      return [...create, path, String(content.sizeBytes)];
    case "copy":
      return ["convert", "-q", "-f", content.format, "-O", "qcow2", content.path, path];
    case "overlay":
      return [...create, "-F", content.format, "-b", content.path, path];
    case "live":
      // -u: the export need not answer now. The name is a mark and a note: QEMU is told where the export is at each start.
      return [
        ...create,
        "-u",
        "-F",
        "raw",
        "-b",
        backingName(content.source),
        path,
        String(content.sizeBytes),
      ];
    case "existing":
      return [];
  }
}

export async function qemuImg(args: string[], signal?: AbortSignal): Promise<{ stdout: string }> {
  try {
    return await run("qemu-img", args, { maxBuffer: 64 * 1024 * 1024, ...(signal && { signal }) });
  } catch (error) {
    signal?.throwIfAborted();
    const { code, stderr } = error as { code?: unknown; stderr?: string };
    throw new OperationalError(
      "machine.refused",
      code === "ENOENT"
        ? "qemu-img is missing: apt-get install qemu-utils"
        : `qemu-img could not ${args[0] ?? ""} the disk: ${(stderr ?? "").trim()}`,
      { detail: `qemu-img ${args.join(" ")}: ${stderr ?? String(error)}`, cause: error },
    );
  }
}
