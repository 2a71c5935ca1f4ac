// How fast the standby reaches full scale, against what the target's API allows at all and against a plain replay.
import { measureDrain } from "./takeover/measure-drain.ts";
import { measureSwitch } from "./takeover/measure-switch.ts";

export const summary = "1,000 servers behind 10,000 commands: drain against the API's limit and one by one";

const rounded = (value: number, digits = 3): number => Number(value.toFixed(digits));

export async function run(): Promise<Record<string, number | string>> {
  const drain = await measureDrain();
  console.log("target: 100 ms a call, 200 calls/s enforced and not told; servers are ready at once");
  console.log("one by one: all 10,000 commands carried out in order, on a clock that jumps over the waiting");
  const { detectToTrafficMs, ownOverheadMs } = await measureSwitch();
  console.log("detection: two of three witnesses for 3 s, probes every second, a cloud killed with SIGKILL");
  return {
    callsLeft: drain.calls,
    criticalPath: drain.depth,
    limitSeconds: rounded(drain.limitSeconds),
    drainSeconds: rounded(drain.seconds),
    loadSeconds: rounded(drain.loadSeconds),
    planSeconds: rounded(drain.planSeconds),
    throttledPercent: rounded(drain.throttledPercent, 1),
    oneByOneSeconds: rounded(drain.oneByOneSeconds, 1),
    vsLimit: rounded(drain.seconds / drain.limitSeconds),
    oneByOneVsOurs: rounded(drain.oneByOneSeconds / drain.seconds, 1),
    detectToTrafficMs,
    ownOverheadMs,
  };
}
