/** A machine's memory as a file: written by a migration to a pipe, and started from by one from it. */
import { OperationalError } from "#kernel/errors.ts";
import type { Clock } from "#kernel/clock.ts";
import type { QmpClient } from "./qmp-client.ts";

interface MigrationInfo {
  readonly status?: string;
  readonly "error-desc"?: string;
}

/** The guest must be stopped: then what is written is its whole state. Errors: `machine.failing`. */
export async function saveMemory(
  qmp: QmpClient,
  path: string,
  clock: Clock,
  signal?: AbortSignal,
): Promise<void> {
  // Unlimited: the default is 128 MiB/s.
  await qmp.execute("migrate-set-parameters", { "max-bandwidth": 1 << 30 }, signal);
  await qmp.execute("migrate", { uri: `exec:cat >${quoted(path)}` }, signal);
  await waitForMigration(qmp, "save", clock, signal);
}

/** QEMU was started with `-incoming defer`; the guest stands still afterwards. Errors: `machine.failing`. */
export async function loadMemory(qmp: QmpClient, path: string, signal?: AbortSignal): Promise<void> {
  const events = qmp.events(signal);
  try {
    await qmp.execute("migrate-set-capabilities", {
      capabilities: [{ capability: "events", state: true }],
    });
    await qmp.execute("migrate-incoming", { uri: `exec:cat ${quoted(path)}` }, signal);
    for await (const { name, data } of events) {
      if (name !== "MIGRATION") continue;
      if (data["status"] === "completed") return;
      if (data["status"] === "failed") break;
    }
  } finally {
    await events.return?.();
  }
  signal?.throwIfAborted();
  throw new OperationalError("machine.failing", `the memory state ${path} could not be loaded`);
}

async function waitForMigration(
  qmp: QmpClient,
  what: string,
  clock: Clock,
  signal: AbortSignal | undefined,
): Promise<void> {
  for (;;) {
    const info = (await qmp.execute("query-migrate", undefined, signal)) as MigrationInfo;
    if (info.status === "completed") return;
    if (info.status === "failed" || info.status === "cancelled") {
      throw new OperationalError("machine.failing", `the memory could not be ${what}d`, {
        detail: info["error-desc"] ?? info.status,
      });
    }
    await clock.sleep(10, signal);
  }
}

/** For the shell that QEMU gives it to. */
function quoted(path: string): string {
  return `'${path.replaceAll("'", `'\\''`)}'`;
}
