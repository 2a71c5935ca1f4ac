// A takeover's longest part: bringing the standby from the reserve to full scale, from what is durable alone.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { memoryCatalogue } from "#drivers/memory/memory-catalogue.ts";
import { createMemoryCloud } from "#drivers/memory/memory-cloud.ts";
import { openJournalFollower } from "#environment/follow-journal.ts";
import { loadState } from "#environment/load-state.ts";
import type { Journal } from "#journal/contract.ts";
import { openJournal } from "#journal/open-journal.ts";
import { systemClock } from "#kernel/clock.ts";
import { environmentId } from "#kernel/ids.ts";
import { silentLog } from "#kernel/log.ts";
import type { Resource } from "#model/resource.ts";
import { createCallLimiter } from "#standby/call-limiter.ts";
import { converge } from "#standby/converge.ts";
import { loadPairings } from "#standby/pairings.ts";
import { planConvergence } from "#standby/plan-convergence.ts";
import { reserveResources } from "#standby/select-reserve.ts";
import { noMappings } from "#standby/translate.ts";
import { openSqliteStore } from "#store/open-sqlite-store.ts";
import { putEnvironment, recordCommand } from "#testing/record-commands.ts";
import { createSeededRandom } from "#testing/seeded-random.ts";
import { shopCatalogue } from "#testing/shop-environment.ts";
import { type History, commandHistory } from "./command-history.ts";
import { drainOneByOne } from "./one-by-one.ts";

const servers = 1_000;
const commands = 10_000;
const latencyMs = 100;
const callsPerSecond = 200;

export interface DrainFigures {
  readonly calls: number;
  readonly depth: number;
  readonly limitSeconds: number;
  readonly seconds: number;
  readonly planSeconds: number;
  readonly loadSeconds: number;
  readonly throttledPercent: number;
  readonly oneByOneSeconds: number;
}

const environment = environmentId("shop");
const { signal } = new AbortController();
const now = (): number => performance.now() / 1000;

async function fillJournal(journal: Journal, history: History): Promise<void> {
  // In order, as the gateway keeps the commands on one resource; the store flushes many at once.
  for (let at = 0; at < history.commands.length; at += 64) {
    const batch = history.commands.slice(at, at + 64);
    await Promise.all(batch.map((changes) => recordCommand(journal, environment, changes)));
  }
}

export async function measureDrain(): Promise<DrainFigures> {
  const random = createSeededRandom(11);
  const history = commandHistory(servers, commands, random);
  const folder = mkdtempSync(join(tmpdir(), "understudy-takeover-"));
  const store = await openSqliteStore({ path: join(folder, "understudy.db") });
  try {
    await putEnvironment(store, environment);
    const journal = await openJournal(store, { clock: systemClock });
    await fillJournal(journal, history);
    {
      const ports = { store, journal, environment, clock: systemClock, log: silentLog };
      await using follower = await openJournalFollower({ ...ports, cloud: () => undefined });
      await follower.waitFor(await journal.head(environment), signal);
    }
    // The rate is not told: the limiter has to find it.
    const facts = { callsPerSecond: null };
    const cloud = createMemoryCloud({ clock: systemClock, random, latencyMs, callsPerSecond, facts });
    const limiter = createCallLimiter(cloud.facts, systemClock);
    const ports = { cloud, store, clock: systemClock, random, log: silentLog, limiter };
    const of = { environment, scope: "main" };
    const translation = {
      facts: cloud.facts,
      source: shopCatalogue,
      target: memoryCatalogue,
      mappings: noMappings,
      sizing: "fit" as const,
      nameSuffix: "",
    };
    const bringTo = async (desired: Iterable<Resource>) => {
      const pairings = await loadPairings(store, of);
      const planFrom = now();
      const plan = planConvergence({ desired, pairings, translation });
      const planSeconds = now() - planFrom;
      const report = await converge(plan, pairings, { ...of, cloudScope: "shop" }, ports, signal);
      const [failure] = report.failures;
      if (failure !== undefined) throw new Error(`${failure.kind} ${failure.activeId}: ${failure.message}`);
      return { plan, planSeconds, report };
    };
    const { state: before } = await loadState(store, environment);
    const reserve = { mode: "ratio", ratio: 0.2, minimumPerGroup: 1, groupBy: "tier" } as const;
    await bringTo(
      reserveResources(before, {
        servers: reserve,
        onlyTags: {},
        smallerTypes: false,
        volumes: "with_servers",
      }),
    );

    const [callsBefore, throttledBefore] = [cloud.inspect.calls, cloud.inspect.throttled];
    const startedAt = now();
    const { state } = await loadState(store, environment);
    const loadSeconds = now() - startedAt;
    const { plan, planSeconds } = await bringTo(state.resources());
    const seconds = now() - startedAt;
    const held = cloud.inspect.resources().filter(({ kind }) => kind === "server").length;
    if (held !== servers) throw new Error(`the standby has ${held} servers instead of ${servers}`);
    const calls = cloud.inspect.calls - callsBefore;
    const oneByOneSeconds = await drainOneByOne(history, latencyMs, callsPerSecond);
    return {
      calls: plan.calls,
      depth: plan.depth,
      limitSeconds: Math.max(plan.calls / callsPerSecond, (plan.depth * latencyMs) / 1000),
      seconds,
      planSeconds,
      loadSeconds,
      throttledPercent: ((cloud.inspect.throttled - throttledBefore) * 100) / calls,
      oneByOneSeconds,
    };
  } finally {
    await store.close();
    rmSync(folder, { recursive: true, force: true });
  }
}
