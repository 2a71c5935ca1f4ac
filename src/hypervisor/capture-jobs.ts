/**
 * What a capture has in QEMU: the mirror of the guest's writes and the backup of what they lack, each with the node that it writes to.
 * The mirror's id tells its target too: one that an earlier agent left running to somewhere else is not taken for this capture's.
 */
import { createHash } from "node:crypto";
import { deadlineAfter } from "#kernel/clock.ts";
import { isOperational, OperationalError } from "#kernel/errors.ts";
import { canonicalJson } from "#kernel/json.ts";
import { endJobs, type QmpExecutor, queryJobs } from "./block-jobs.ts";
import { planWatch } from "./capture-watch.ts";
import type { CaptureRecord } from "./machine-record.ts";
import type { NbdLocation } from "./machine-spec.ts";
import type { MachineView } from "./machine-view.ts";
import { planCredentials, planNbdNode } from "./plan-nbd.ts";
import type { QmpClient } from "./qmp-client.ts";
import { removeCredentials } from "./remove-credentials.ts";

/** QEMU has let go of a target, whatever it does, long before; a QEMU that stands still itself is not waited for. */
const BREAK_LIMIT_MS = 5000;

export class CaptureJobs {
  readonly resync: string;
  readonly #machine: MachineView;
  readonly #disk: string;
  readonly #live: string;

  constructor(machine: MachineView, disk: string) {
    this.#machine = machine;
    this.#disk = disk;
    this.resync = `resync-${disk}`;
    this.#live = `live-${disk}`;
  }

  /** The id of the mirror to this target. */
  mirrorTo(target: NbdLocation): string {
    const digest = createHash("sha256").update(canonicalJson(target)).digest("hex").slice(0, 12);
    // No disk's id has a dot: what one capture calls its own is never another disk's.
    return `capture-${this.#disk}.${digest}`;
  }

  /**
   * QEMU's main loop, and with it the monitor and the guest, stands still while some commands wait for a target that does not
   * answer. The one thing that it still hears is to break the connection.
   */
  guarded(qmp: QmpClient, stallLimitMs: () => number): QmpExecutor {
    return {
      execute: async (command, args, signal) => {
        const limit = deadlineAfter(this.#machine.deps.clock, planWatch(stallLimitMs()).stuckMs);
        limit.signal.addEventListener("abort", () => void this.yank(qmp));
        try {
          return await qmp.execute(command, args, signal);
        } finally {
          limit.cancel();
        }
      },
    };
  }

  /** One by one: of several, none is broken when one is not there. */
  async yank(qmp: QmpClient, signal?: AbortSignal): Promise<void> {
    for (const node of [this.#live, this.resync]) await qmp.yank([node], signal).catch(() => {});
  }

  /** Target connected and mirror running; one to the same target that an agent before us left running is taken over. */
  async begin(
    qmp: QmpClient,
    guarded: QmpExecutor,
    { target, resyncTarget }: CaptureRecord,
    signal: AbortSignal,
  ): Promise<void> {
    const mirror = this.mirrorTo(target);
    if ((await queryJobs(guarded, signal)).has(mirror)) await this.#endResync(qmp, signal);
    else {
      await this.breakOff(qmp);
      await addTarget(guarded, this.#live, target, signal);
      await guarded.execute(
        "blockdev-mirror",
        {
          "job-id": mirror,
          device: `top-${this.#disk}`,
          target: this.#live,
          sync: "none",
          "copy-mode": "write-blocking",
          "filter-node-name": `mirror-${this.#disk}`,
          "on-target-error": "report",
        },
        signal,
      );
    }
    await addTarget(guarded, this.resync, resyncTarget, signal);
  }

  /**
   * Whatever the jobs wait for: afterwards they, their nodes and a guest's waiting write are free. Errors: `machine.failing` when
   * QEMU does not do it in some seconds.
   */
  async breakOff(qmp: QmpClient): Promise<void> {
    const { clock } = this.#machine.deps;
    const limit = deadlineAfter(clock, BREAK_LIMIT_MS);
    try {
      await this.yank(qmp, limit.signal);
      const isOwn = (id: string): boolean =>
        // Without a dot: of an agent that did not tell targets apart yet.
        [this.resync, `capture-${this.#disk}`].includes(id) || id.startsWith(`capture-${this.#disk}.`);
      await endJobs(qmp, isOwn, clock, limit.signal);
      for (const node of [this.#live, this.resync]) await removeNode(qmp, node, limit.signal);
    } catch (error) {
      if (!limit.signal.aborted) throw error;
      throw new OperationalError(
        "machine.failing",
        `QEMU does not let go of the capture of disk ${this.#disk}: it has not answered for ${BREAK_LIMIT_MS} ms`,
        { outcome: "unknown", cause: error },
      );
    } finally {
      limit.cancel();
    }
  }

  async #endResync(qmp: QmpClient, signal: AbortSignal): Promise<void> {
    await qmp.yank([this.resync], signal).catch(() => {});
    await endJobs(qmp, (id) => id === this.resync, this.#machine.deps.clock, signal);
    await removeNode(qmp, this.resync, signal);
  }
}

/** Refused when it is not there: then it is as it is to be. */
async function removeNode(qmp: QmpClient, node: string, signal: AbortSignal): Promise<void> {
  try {
    await qmp.execute("blockdev-del", { "node-name": node }, signal);
  } catch (error) {
    if (!isOperational(error, "machine.refused")) throw error;
  }
  await removeCredentials(qmp, node, signal);
}

async function addTarget(
  qmp: QmpExecutor,
  node: string,
  location: NbdLocation,
  signal: AbortSignal,
): Promise<void> {
  const credentials = planCredentials(node, location);
  // Those of an attempt before us are of an earlier certificate.
  if (credentials.length > 0) await removeCredentials(qmp, node, signal);
  for (const object of credentials) await qmp.execute("object-add", object, signal);
  await qmp.execute(
    "blockdev-add",
    // No reconnecting: an error at once, so that the mirror lets the write go; and one second at most to connect.
    { ...planNbdNode(node, location, 0), "open-timeout": 1, discard: "unmap" },
    signal,
  );
}
