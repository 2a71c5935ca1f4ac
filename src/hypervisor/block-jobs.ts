/** What QEMU says of block jobs and bitmaps, in our terms. */
import type { Clock } from "#kernel/clock.ts";
import type { QmpEvent } from "#wire/qmp/qmp-message.ts";
import type { QmpClient } from "./qmp-client.ts";

export interface BlockJob {
  readonly id: string;
  readonly type: string;
  readonly offset: number;
  readonly length: number;
  readonly status: string;
  /** `ok`, `failed`, `nospace`: why a paused job waits. */
  readonly ioStatus: string;
  readonly ready: boolean;
  readonly speed: number;
}

export interface DirtyBitmap {
  readonly name: string;
  /** Bytes marked. */
  readonly count: number;
  /** Not written back when its QEMU ended: says nothing. */
  readonly inconsistent: boolean;
  readonly busy: boolean;
}

/** A monitor as far as asking it goes. */
export type QmpExecutor = Pick<QmpClient, "execute">;

const POLL_MS = 10;

interface RawJob {
  readonly device: string;
  readonly type: string;
  readonly offset: number;
  readonly len: number;
  readonly status: string;
  readonly "io-status": string;
  readonly ready: boolean;
  readonly speed: number;
}

interface RawNode {
  readonly "node-name"?: string;
  readonly "dirty-bitmaps"?: readonly (Omit<DirtyBitmap, "inconsistent"> & { inconsistent?: boolean })[];
}

export async function queryJobs(qmp: QmpExecutor, signal?: AbortSignal): Promise<Map<string, BlockJob>> {
  const raw = (await qmp.execute("query-block-jobs", undefined, signal)) as unknown as readonly RawJob[];
  return new Map(
    raw.map((job) => [
      job.device,
      {
        id: job.device,
        type: job.type,
        offset: job.offset,
        length: job.len,
        status: job.status,
        ioStatus: job["io-status"],
        ready: job.ready,
        speed: job.speed,
      },
    ]),
  );
}

export async function queryNodes(qmp: QmpExecutor, signal?: AbortSignal): Promise<Map<string, RawNode>> {
  const nodes = (await qmp.execute(
    "query-named-block-nodes",
    { flat: true },
    signal,
  )) as unknown as readonly RawNode[];
  return new Map(
    nodes.flatMap((node) => (node["node-name"] === undefined ? [] : [[node["node-name"], node]])),
  );
}

/** How many reads of the guest from this device have ended since its QEMU started; 0 where there is none. */
export async function queryReads(qmp: QmpExecutor, device: string, signal?: AbortSignal): Promise<number> {
  const devices = (await qmp.execute("query-blockstats", undefined, signal)) as unknown as readonly {
    /** Its path in QEMU's tree: a mirror or a copy changes the node that a device sits on, and not the device. */
    readonly qdev?: string;
    readonly stats: { readonly rd_operations: number };
  }[];
  return devices.find(({ qdev }) => qdev?.split("/").includes(device))?.stats.rd_operations ?? 0;
}

export async function queryBitmaps(
  qmp: QmpExecutor,
  node: string,
  signal?: AbortSignal,
): Promise<Map<string, DirtyBitmap>> {
  const found = (await queryNodes(qmp, signal)).get(node)?.["dirty-bitmaps"] ?? [];
  return new Map(found.map((one) => [one.name, { ...one, inconsistent: one.inconsistent === true }]));
}

/** How a job ended, if this event says so: null for other events, an empty text for success. */
export function endOfJob({ name, data }: QmpEvent, jobId: string): string | null {
  if (name !== "BLOCK_JOB_COMPLETED" && name !== "BLOCK_JOB_CANCELLED") return null;
  if (data["device"] !== jobId) return null;
  if (name === "BLOCK_JOB_CANCELLED") return "cancelled";
  return typeof data["error"] === "string" ? data["error"] : "";
}

/** Cancels those that there are and returns when none of them is left. What they wait for must be broken first (`yank`). */
export async function endJobs(
  qmp: QmpExecutor,
  isMeant: (id: string) => boolean,
  clock: Clock,
  signal?: AbortSignal,
): Promise<void> {
  for (;;) {
    const left = Array.from((await queryJobs(qmp, signal)).keys()).filter(isMeant);
    if (left.length === 0) return;
    for (const id of left) {
      // It may have ended by itself since.
      await qmp.execute("block-job-cancel", { device: id, force: true }, signal).catch(() => {});
    }
    await clock.sleep(POLL_MS, signal);
  }
}
