// A database in a real guest, written to all the time: brought back in place at a named moment, at once, and moved for good to a
// cloud of another kind. Every record that anybody was told of before is there afterwards, and none is torn.
import assert from "node:assert/strict";
import { execFile, execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test, type TestContext } from "node:test";
import type { Evidence } from "#model/evidence.ts";
import type { RecoveryPoint } from "#recovery/recovery-points.ts";
import type { EnvironmentStatus, PointsView, RunView } from "#takeover/control.ts";
import { buildDatabase, type Holdings, ransom, readHoldings } from "../../../demo/database.ts";
import { type MachineStage, setMachineStage, type Side } from "../../../demo/machines-stage.ts";
import { killAll } from "../../../demo/processes.ts";
import { image } from "../../../demo/stage.ts";
import { until } from "../../../demo/timeline.ts";
import { liveServers } from "../../../demo/verify.ts";
import { skip } from "../hypervisor/stage.ts";

const understudy = join(import.meta.dirname, "../../../bin/understudy");
const addressBases = { east: "127.85.0.0/16", west: "127.88.0.0/16" };
const environment = `    verify:
      - {name: records, select: {tier: db}, check: {http: {port: 8080, path: /cgi-bin/records, contains: "torn=0"}}}
      - {name: files, select: {tier: db}, check: {agent: {path: /bin/sh, args: ["-c", "ls /disks/*/records"]}}}
      - {name: judge, select: {tier: db}, within: 1s, check: {script: ./judge}}
`;
const judge = `#!/bin/sh
echo "judged $UNDERSTUDY_SERVER_NAME at $UNDERSTUDY_SERVER_ADDRESS"
test ! -e ./say-no
`;
/** Unix sockets have short names. */
const folder = mkdtempSync(join(tmpdir(), "us-"));
let stage: MachineStage;
let volumeId: string;

before(async () => {
  if (skip !== false) return;
  writeFileSync(join(folder, "judge"), judge, { mode: 0o755 });
  stage = await setMachineStage(folder, { addressBases, environment });
  ({ volumeId } = await buildDatabase(stage.ec2, image));
  await holding(({ now }) => now.last > 20);
  await captured("east");
});

after(() => {
  killAll();
  if (skip === false) stage.endGuests();
  rmSync(folder, { recursive: true, force: true });
});

/** Runs a line in the guest's shell, which knows its disk's folder as `$d`. */
async function inGuest(line: string): Promise<void> {
  const [server] = liveServers(await stage.readCloud("east"));
  const args = ["-c", `d=$(ls -d /disks/*) && ${line}`];
  const program = { path: "/bin/sh", args, limitMs: 20_000 };
  const ended = await stage.host("east").exec(server?.id ?? "", program, AbortSignal.timeout(30_000));
  assert.equal(ended.exitCode, 0, ended.output);
}

async function pointNow(t: TestContext, ...flags: readonly string[]): Promise<RecoveryPoint> {
  const began = performance.now();
  const said = await cli("point", "create", "shop", "--json", ...flags);
  assert.equal(said.code, 0, said.err);
  t.diagnostic(`point create ${flags.join(" ")}: ${Math.round(performance.now() - began)} ms`);
  return JSON.parse(said.out) as RecoveryPoint;
}

/** How many bytes of the file the point's disk has, read out of the vault alone; null: it knows no such file. */
async function bytesIn(point: RecoveryPoint, file: string): Promise<number | null> {
  const store = ["--store", "./vault", "--passphrase-file", "./vault-passphrase"];
  const kept = await cli("point", "show", point.id, "shop", ...store, "--json");
  const { disks } = JSON.parse(kept.out) as { disks: Readonly<Record<string, string>> };
  const [disk = ""] = Object.values(disks);
  const path = join(folder, `${point.id}.raw`);
  const written = await cli("vault", "cat", disk, ...store, "--output", path);
  assert.equal(written.code, 0, written.err);
  const environment = { PATH: `${process.env["PATH"] ?? ""}:/usr/sbin:/sbin` };
  const found = execFileSync("debugfs", ["-R", `stat /${file}`, path], { env: environment, stdio: "pipe" });
  rmSync(path);
  const size = /Size: (\d+)/u.exec(found.toString())?.[1];
  return size === undefined ? null : Number(size);
}

test(
  "a consistent point has what applications wrote and nobody has flushed yet; another has not",
  { skip, timeout: 300_000 },
  async (t) => {
    await captured("east");
    await inGuest("mount -o remount,async $d && yes understudy | head -c 65536 >$d/unflushed");
    const plain = await pointNow(t);
    const quiet = await pointNow(t, "--consistent");
    await inGuest("mount -o remount,sync $d && sync");
    assert.deepEqual(
      [plain.consistency, quiet.consistency, quiet.consistencyNote],
      ["crash", "application", null],
    );
    assert.equal(await bytesIn(plain, "unflushed"), null);
    assert.equal(await bytesIn(quiet, "unflushed"), 65_536);
    const seen = await holding(({ now }) => now.last > 0);
    await holding(({ now }) => now.last > seen.now.last + 20);
  },
);

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
      const listed = await cli("point", "list", "shop", "--json");
      const { group } = JSON.parse(listed.code === 0 ? listed.out : "{}") as Partial<PointsView>;
      return { disks, volumes: group?.volumes ?? null };
    },
    ({
      disks,
      volumes,
    }: {
      disks: EnvironmentStatus["disks"];
      volumes: readonly { state: string }[] | null;
    }) =>
      disks.length > 0 &&
      disks.every(({ site: at, capture }) => at === site && capture?.state === "continuous") &&
      volumes?.every(({ state }) => state === "continuous") === true,
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
  "a point is verified by HTTP, the guest's agent and a script, and what was seen is kept beside it",
  { skip, timeout: 300_000 },
  async (t) => {
    await captured("east");
    const point = await pointNow(t);
    const shown = async () => {
      const said = await cli("point", "show", point.id, "shop", "--json");
      return JSON.parse(said.out) as RecoveryPoint & { readonly evidence: Evidence | null };
    };
    assert.equal((await shown()).evidence, null);
    const verified = await tell(t, await cli("point", "verify", point.id, "shop", "--json"));
    assert.equal(verified.state, "succeeded");
    const good = await shown();
    assert.ok(good.verifiedAt !== null && good.evidence?.good === true, JSON.stringify(good));
    const [server] = good.evidence.servers;
    assert.deepEqual(
      server?.verdicts.map(({ check, problem }) => [check, problem]),
      [
        ["records", null],
        ["files", null],
        ["judge", null],
      ],
    );
    assert.match(server.verdicts[1]?.output ?? "", /^\/disks\/\S+\/records/u);
    assert.match(server.verdicts[2]?.output ?? "", /judged db-1 at [0-9.]+/u);
    // How far it got before it was judged good is its own affair: its boot, at least.
    assert.match(server.console ?? "", /boot of \S+ at|guest: ready|ack \d+/u, "the end of its console");
    assert.equal(server.screenshot, null, "it has no display");
    assert.equal((await cli("point", "show", point.id, "--screenshot", "x.png")).code, 4);

    writeFileSync(join(folder, "say-no"), "");
    const refused = await cli("point", "verify", point.id, "shop", "--json");
    rmSync(join(folder, "say-no"));
    assert.equal(refused.code, 8, refused.err);
    const bad = await shown();
    assert.equal(bad.evidence?.good, false);
    assert.match(bad.evidence.summary, /db-1: judge fails: it ended with 1/u);
    const told = await cli("point", "show", point.id, "shop");
    assert.match(told.out, /NOT good[^]*db-1 +judge: fails: it ended with 1/u);
  },
);

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
    // The last one that was printed: what was acknowledged before the disk went back to an earlier moment had higher numbers.
    const consoles = { last: 0 };
    const watch = setInterval(() => {
      const [, last] = [...stage.consoles("east").matchAll(/^ack (\d+)\r?\n/gmu)].at(-1) ?? [];
      consoles.last = Math.max(consoles.last, Number(last ?? 0));
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
