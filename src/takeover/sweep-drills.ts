/** What drills have left behind that gave way to a failover, or could not clean up: found by the scope that it bears, and removed. */
import { isOperational, publicMessage } from "#kernel/errors.ts";
import { runId } from "#kernel/ids.ts";
import { cleanUp } from "#takeover/drill-script.ts";
import type { RunLedger } from "#takeover/run-ledger.ts";
import type { Stage } from "#takeover/stage.ts";

/** Between runs. What a site does not remove now is tried again the next time. */
export async function sweepDrills(
  stage: Stage,
  ledger: Pick<RunLedger, "get" | "event">,
  signal: AbortSignal,
): Promise<void> {
  const rows = await stage.store.db
    .selectFrom("pairing")
    .select("scope")
    .distinct()
    .where("environment", "=", stage.settings.id)
    .where("scope", "like", "drill-%")
    .execute();
  for (const { scope } of rows) {
    const run = await ledger.get(runId(scope));
    if (run === undefined || run.state === "running") continue;
    try {
      const { epoch } = await stage.record();
      const { summary } = await cleanUp(stage, { run: { ...run, epoch }, signal });
      const message = `${run.id} had left something behind: ${summary}`;
      await ledger.event({
        environment: run.environment,
        run: run.id,
        severity: "info",
        message,
        fields: {},
      });
    } catch (error) {
      signal.throwIfAborted();
      if (!isOperational(error)) throw error;
      stage.log.warn(
        { run: run.id, code: error.code },
        `what a drill left is still there: ${publicMessage(error)}`,
      );
    }
  }
}
