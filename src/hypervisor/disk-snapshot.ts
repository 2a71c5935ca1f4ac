/** The content of disks at one moment, copied out while the guest runs on. */
import { rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { syncFolder } from "#kernel/durable-file.ts";
import { OperationalError } from "#kernel/errors.ts";
import { endJobs, endOfJob, queryJobs } from "./block-jobs.ts";
import { qemuImg } from "./create-disk.ts";
import type { MachineView } from "./machine-view.ts";

export interface SnapshotRequest {
  readonly disk: string;
  /** A qcow2 image that is made, and complete when it has this name. Absolute. */
  readonly path: string;
}

interface ImageFacts {
  readonly image: { readonly "virtual-size": number };
  readonly "node-name": string;
}

const POLL_MS = 30;

/**
 * All disks at the same instant, crash-consistent; application-consistent when the guest's file systems are frozen meanwhile
 * (only the call's first moment needs that: `begun` is called when the instant is fixed). Errors: `machine.failing`.
 */
export async function snapshotDisks(
  machine: MachineView,
  requests: readonly SnapshotRequest[],
  options: { readonly begun?: () => void; readonly signal?: AbortSignal } = {},
): Promise<void> {
  const { signal } = options;
  const { qmp } = machine;
  const jobs = requests.map(({ disk }) => `snapshot-${disk}`);
  const failed: string[] = [];
  const stop = qmp.onEvent((event) => {
    for (const job of jobs) failed.push(...[endOfJob(event, job) ?? ""].filter((why) => why !== ""));
  });
  try {
    for (const { disk, path } of requests) await addTarget(machine, disk, `${path}.new`, signal);
    const actions = requests.map(({ disk }) => ({
      type: "blockdev-backup",
      data: {
        "job-id": `snapshot-${disk}`,
        device: `disk-${disk}`,
        target: `snapshot-${disk}`,
        sync: "full",
      },
    }));
    await qmp.execute("transaction", { actions }, signal);
    options.begun?.();
    while (Array.from((await queryJobs(qmp, signal)).keys()).some((id) => jobs.includes(id))) {
      await machine.deps.clock.sleep(POLL_MS, signal);
    }
    if (failed.length > 0) {
      throw new OperationalError("machine.failing", `the snapshot failed: ${failed.join("; ")}`);
    }
  } finally {
    stop();
    if (!qmp.isClosed) {
      await endJobs(qmp, (id) => jobs.includes(id), machine.deps.clock);
      for (const { disk } of requests) {
        for (const node of [`snapshot-${disk}`, `snapshot-file-${disk}`]) {
          await qmp.execute("blockdev-del", { "node-name": node }).catch(() => {});
        }
      }
    }
    if (failed.length > 0 || signal?.aborted === true) {
      for (const { path } of requests) await rm(`${path}.new`, { force: true });
    }
  }
  for (const { path } of requests) {
    await rename(`${path}.new`, path);
    await syncFolder(dirname(path));
  }
}

async function addTarget(
  machine: MachineView,
  disk: string,
  path: string,
  signal?: AbortSignal,
): Promise<void> {
  const nodes = (await machine.execute("query-named-block-nodes", { flat: true }, signal)) as unknown;
  const node = (nodes as readonly ImageFacts[]).find((one) => one["node-name"] === `disk-${disk}`);
  if (node === undefined)
    throw new OperationalError("not_found", `machine ${machine.id} has no disk ${disk}`);
  await rm(path, { force: true });
  await qemuImg(["create", "-q", "-f", "qcow2", path, String(node.image["virtual-size"])], signal);
  const file = { driver: "file", filename: path, "node-name": `snapshot-file-${disk}` };
  await machine.execute("blockdev-add", file, signal);
  const image = { driver: "qcow2", file: `snapshot-file-${disk}`, "node-name": `snapshot-${disk}` };
  await machine.execute("blockdev-add", image, signal);
}
