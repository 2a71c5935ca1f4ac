// A database in a real guest, written to all the time: brought back in place at a named moment, at once, and moved for good to a
// cloud of another kind. Every record that anybody was told of before is there afterwards, and none is torn.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test, type TestContext } from "node:test";
import type { EnvironmentStatus, PointsView, RunView } from "#takeover/control.ts";
import {
  buildDatabase,
  type Holdings,
  lastAcknowledged,
  ransom,
  readHoldings,
} from "../../../demo/database.ts";
import { type MachineStage, setMachineStage, type Side } from "../../../demo/machines-stage.ts";
import { killAll } from "../../../demo/processes.ts";
import { image } from "../../../demo/stage.ts";
import { until } from "../../../demo/timeline.ts";
import { skip } from "../hypervisor/stage.ts";

const understudy = join(import.meta.dirname, "../../../bin/understudy");
const addressBases = { east: "127.85.0.0/16", west: "127.86.0.0/16" };
/** Unix sockets have short names. */
const folder = mkdtempSync(join(tmpdir(), "us-"));
let stage: MachineStage;
let volumeId: string;

before(async () => {
  if (skip !== false) return;
  stage = await setMachineStage(folder, { addressBases });
  ({ volumeId } = await buildDatabase(stage.ec2, image));
  await holding(({ now }) => now.last > 20);
  await captured("east");
});

after(() => {
  killAll();
  if (skip === false) stage.endGuests();
  rmSync(folder, { recursive: true, force: true });
});

interface Said {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** The command line beside the configuration; its exit code is the caller's to judge. */
function cli(...args: readonly string[]): Promise<Said> {
  return new Promise((resolve) => {
    execFile(understudy, [...args], { cwd: folder, maxBuffer: 2 ** 24 }, (error, out, err) => {
      const code = error === null ? 0 : typeof error.code === "number" ? error.code : -1;
      resolve({ code, out, err });
    });
  });
}

function holding(done: (seen: Holdings) => boolean): Promise<Holdings> {
  return until(
    "the database's holdings",
    async () => readHoldings(stage.databaseUrl),
    (held) => held !== null && done(held),
    120_000,
  ) as Promise<Holdings>;
}

async function captured(site: Side): Promise<void> {
  await until(
    `the capture in ${site}`,
    async () => {
      const { disks } = await stage.room.status();
      const { group } = JSON.parse((await cli("point", "list", "shop", "--json")).out) as PointsView;
      return { disks, volumes: group?.volumes ?? [] };
    },
    ({ disks, volumes }: { disks: EnvironmentStatus["disks"]; volumes: readonly { state: string }[] }) =>
      disks.length > 0 &&
      disks.every(({ site: at, capture }) => at === site && capture?.state === "continuous") &&
      volumes.every(({ state }) => state === "continuous"),
    120_000,
  );
}

function tookMs(run: RunView, ...steps: readonly string[]): number {
  return run.steps
    .filter(({ name }) => steps.includes(name))
    .reduce((sum, { startedAt, finishedAt }) => sum + (finishedAt ?? 0) - startedAt, 0);
}

async function tell(t: TestContext, said: Said): Promise<RunView> {
  if (said.code !== 0) for (const line of said.err.split("\n")) t.diagnostic(line);
  assert.equal(said.code, 0, said.err);
  return JSON.parse(said.out) as RunView;
}

test(
  "a server is live at a moment before the damage, where it is, while its disk comes over",
  { skip, timeout: 300_000 },
  async (t) => {
    const good = await holding(({ now }) => now.last > 100);
    const at = new Date().toISOString();
    await holding(({ now }) => now.last > good.now.last + 50);
    await ransom(stage.databaseUrl);
    await holding(({ now }) => now.torn > 0);
    const line = ["recover", "shop", "--live", "--server", "db-1", "--at", at, "--confirm", "shop", "--json"];
    const said = await cli(...line);
    const run = await tell(t, said);
    assert.deepEqual([run.kind, run.state], ["restore", "succeeded"]);
    const back = await holding(({ boot }) => boot.last > 0);
    t.diagnostic(
      `stopped to started: ${tookMs(run, "stop-servers", "keep-last-writes", "restore-disks", "start-servers")} ms`,
    );
    assert.equal(back.boot.torn, 0);
    assert.equal(back.boot.missing, 0);
    assert.ok(back.boot.last >= good.now.last, `${back.boot.last} of at least ${good.now.last} records`);
    const [disk] = (await stage.room.status()).disks;
    assert.deepEqual(
      [disk?.volumeId, disk?.copy?.state],
      [volumeId, "done"],
      "the command ends when its disk is whole",
    );
    // It is captured again, in the same history: what was before it can still be named.
    await captured("east");
    const { group } = JSON.parse((await cli("point", "list", "shop", "--json")).out) as PointsView;
    assert.ok((group?.oldest?.at ?? Infinity) < Date.parse(at), "the past is kept");
  },
);

test(
  "the environment moves for good to another kind of cloud, with everything that was acknowledged",
  { skip, timeout: 300_000 },
  async (t) => {
    await captured("east");
    const seen = await holding(({ now }) => now.last > 0);
    const consoles = { last: 0 };
    const watch = setInterval(() => {
      consoles.last = Math.max(consoles.last, lastAcknowledged(stage.consoles("east").slice(-4000)));
    }, 50);
    const said = await cli("migrate", "shop", "--confirm", "shop", "--reason", "a test", "--json");
    clearInterval(watch);
    const run = await tell(t, said);
    assert.deepEqual([run.kind, run.state], ["migrate", "succeeded"]);
    t.diagnostic(
      `stopped to verified: ${tookMs(run, "hold-writes", "choose-moment", "seed-disks", "start-servers", "verify")} ms`,
    );
    const there = await holding(({ boot }) => boot.last >= seen.now.last);
    assert.deepEqual([there.boot.torn, there.boot.missing], [0, 0]);
    assert.ok(
      there.boot.last >= consoles.last,
      `${there.boot.last} of ${consoles.last} acknowledged records`,
    );
    const status = await stage.room.status();
    assert.deepEqual([status.phase, status.activeSite, status.standbySite], ["protected", "west", "east"]);
    await captured("west");
  },
);
