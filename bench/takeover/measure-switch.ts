// From the death of a cloud to the first answer of the other one: real processes, three witnesses, probes every second.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { killAll } from "../../demo/processes.ts";
import { sendShoppers } from "../../demo/shoppers.ts";
import { image, setStage } from "../../demo/stage.ts";
import { now, until } from "../../demo/timeline.ts";

export interface SwitchFigures {
  /** From the kill to the first good answer from the standby. */
  readonly detectToTrafficMs: number;
  /** From the decision to users being routed to the reserve: fence, settle, route. No cloud is waited for there but to list the reserve. */
  readonly ownOverheadMs: number;
}

const rounds = 3;

/** The median of a few rounds, each on a stage of its own. */
export async function measureSwitch(): Promise<SwitchFigures> {
  const figures: SwitchFigures[] = [];
  for (let round = 0; round < rounds; round += 1) figures.push(await playOnce());
  const median = (values: number[]): number =>
    values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
  return {
    detectToTrafficMs: median(figures.map((one) => one.detectToTrafficMs)),
    ownOverheadMs: median(figures.map((one) => one.ownOverheadMs)),
  };
}

async function playOnce(): Promise<SwitchFigures> {
  const folder = mkdtempSync(join(tmpdir(), "understudy-bench-"));
  try {
    const stage = await setStage({ folder, returnPolicy: "manual", probeEvery: "1s", triggerFor: "3s" });
    const { owner, room, ports } = stage;
    await owner.buildNetwork();
    for (const tier of ["db", "app", "web"] as const) await owner.launch(tier, 3, "t3.small", image);
    await owner.allRunning();
    await until(
      "the reserve to follow",
      () => room.status(),
      (status) =>
        status.behind.standby === 0 &&
        status.routes.every(({ error, missing }) => error === null && missing === 0),
      60_000,
    );
    const shoppers = sendShoppers(`http://127.0.0.1:${ports.web}/`, 4, 20);
    await until(
      "good answers",
      () => Promise.resolve(shoppers.answers.filter(({ ok }) => ok).length),
      (good) => good >= 20,
      15_000,
    );
    const killedAt = now();
    await stage.killEast();
    const runs = await until(
      "the failover",
      () => room.runs(),
      (seen) => seen.some(({ state }) => state === "succeeded"),
      60_000,
    );
    await shoppers.stop();
    const first = shoppers.answers.find(
      ({ at, ok, server }) => at > killedAt && ok && server?.startsWith("i-") === false,
    );
    const failover = runs.find(({ kind }) => kind === "failover");
    const routed = failover?.steps.find(({ name }) => name === "route-to-reserve");
    if (first === undefined || failover === undefined || routed?.finishedAt == null)
      throw new Error("the takeover was not seen whole");
    return {
      detectToTrafficMs: Math.round(first.at - killedAt),
      ownOverheadMs: routed.finishedAt - failover.startedAt,
    };
  } finally {
    killAll();
    rmSync(folder, { recursive: true, force: true });
  }
}
