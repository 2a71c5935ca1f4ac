import { drillScript } from "#takeover/drill-script.ts";
import { failbackScript } from "#takeover/failback-script.ts";
import { failoverScript, moveInput } from "#takeover/failover-script.ts";
import { migrateScript } from "#takeover/migrate-script.ts";
import { restoreScript } from "#takeover/restore-script.ts";
import type { RunScript } from "#takeover/run-engine.ts";
import type { StoredRun } from "#takeover/run-ledger.ts";
import type { Stage } from "#takeover/stage.ts";
import { swapScript } from "#takeover/swap-script.ts";

/** The same run has the same script, whichever process executes it. */
export function scriptOf(stage: Stage, run: StoredRun): RunScript {
  switch (run.kind) {
    case "failover":
      return failoverScript(stage);
    case "failback":
      return failbackScript(stage);
    case "migrate":
      return migrateScript(stage);
    case "swap":
      return swapScript(stage, moveInput(run.input).forGood);
    case "drill":
      return drillScript(stage, run);
    case "restore":
      return restoreScript(stage, run);
  }
}
