import type { QmpClient } from "./qmp-client.ts";

/** Asks a guest to turn itself off. Returns when it has, or when its time, in milliseconds, is over; throws when the signal aborts. */
export async function askOff(
  qmp: QmpClient,
  graceMs: number,
  signal: AbortSignal | undefined,
): Promise<void> {
  const limits = [AbortSignal.timeout(graceMs), ...(signal === undefined ? [] : [signal])];
  const limit = AbortSignal.any(limits);
  const events = qmp.events(limit);
  try {
    const { status } = (await qmp.execute("query-status", undefined, limit)) as { status: string };
    if (status === "shutdown") return;
    if (status !== "running") await qmp.execute("cont", undefined, limit);
    await qmp.execute("system_powerdown", undefined, limit);
    for await (const event of events) if (event.name === "SHUTDOWN") return;
  } catch {
    // The guest's time is over, or its monitor is: ended without being asked again.
    signal?.throwIfAborted();
  } finally {
    await events.return?.();
  }
}
