// The command line as a user meets it, with the real processes: what it prints where, how it ends, and what stays.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { test } from "node:test";
import { RunInstancesCommand } from "@aws-sdk/client-ec2";
import type { RunView } from "#takeover/control.ts";
import {
  adminOf,
  ask,
  clientOf,
  createKey,
  image,
  journalOf,
  makeFolder,
  makePlace,
  operatorToken,
  run,
  start,
  statusOf,
  up,
  watch,
} from "./understudy-process.ts";
import { until } from "#testing/until.ts";

const root = join(import.meta.dirname, "..", "..", "..");

test(
  "before there is anything: help, version, mistakes of the first minute",
  { timeout: 60_000 },
  async (t) => {
    const folder = makeFolder(t);
    const version = await run(folder, ["--version"]);
    assert.deepEqual([version.code, version.stderr], [0, ""]);
    assert.match(version.stdout, /^\d+\.\d+\.\d+\n$/u);

    const written = await run(folder, ["init", "--json"]);
    assert.deepEqual(JSON.parse(written.stdout), { written: "understudy.yaml" });
    const twice = await run(folder, ["init"]);
    assert.equal(twice.code, 3);
    assert.match(twice.stderr, /understudy\.yaml exists.*--force/u);
    assert.equal((await run(folder, ["init", "--force"])).code, 0);
    const check = await run(folder, ["config", "check"]);
    assert.deepEqual(check, { code: 0, stdout: "understudy.yaml is in order\n", stderr: "" });

    const idle = await run(folder, ["status"]);
    assert.equal(idle.code, 5);
    assert.match(idle.stderr, /api-token.*understudy up/u);
    const nobody = await run(folder, ["status", "--json"], {
      env: { UNDERSTUDY_API: "http://127.0.0.1:9", UNDERSTUDY_TOKEN: "0123456789abcdef" },
    });
    assert.equal(nobody.code, 6);
    assert.equal(nobody.stdout, "");
    const { error } = JSON.parse(nobody.stderr) as { error: { code: string; message: string } };
    assert.equal(error.code, "api.unreachable");
    assert.match(error.message, /understudy up/u);
  },
);

test("the light commands load no driver, no gateway and no server", () => {
  const trace = `import { registerHooks } from "node:module";
    registerHooks({ load(url, context, next) { process.stderr.write(url + "\\n"); return next(url, context); } });`;
  const args = [
    "--import",
    `data:text/javascript,${encodeURIComponent(trace)}`,
    "src/main/understudy.ts",
    "--version",
  ];
  const loaded = execFileSync("bash", ["-c", `"$0" "$@" 2>&1 >/dev/null`, process.execPath, ...args], {
    cwd: root,
    encoding: "utf8",
  });
  assert.match(loaded, /commander/u);
  assert.doesNotMatch(
    loaded,
    /aws-sdk|smithy|fastify|fast-xml|kysely|node:sqlite|pino|undici|node_modules\/(zod|yaml)|drivers\/|gateway\/|devcloud\//u,
  );
});

test("a control plane from its start to its end", { timeout: 90_000 }, async (t) => {
  const place = await makePlace(t);
  const { folder } = place;
  const keys = await createKey(folder);
  const plain = await start(t, folder, ["up"], {
    env: { EAST_KEY: "AKIADEVCLOUD00000001", WEST_KEY: "AKIADEVCLOUD00000001" },
  });
  await until("all that it says", () => (plain.stdout().includes("data ") ? true : undefined));
  assert.match(plain.stdout(), new RegExp(`gateway +http://127\\.0\\.0\\.1:${place.ports.gateway}\\b`, "u"));
  assert.match(plain.stdout(), new RegExp(`api +http://127\\.0\\.0\\.1:${place.ports.api}\\b`, "u"));
  assert.match(plain.stdout(), new RegExp(`data +${folder}/data`, "u"));
  const begun = performance.now();
  const ended = await plain.stop("SIGTERM");
  assert.ok(performance.now() - begun < 10_000, "an orderly end takes seconds");
  assert.deepEqual([ended.code, ended.stderr], [0, ""]);

  const engine = await up(t, place);
  await clientOf(t, engine.ready["gateway"] ?? "", keys).send(
    new RunInstancesCommand({ ImageId: image, InstanceType: "t3.micro", MinCount: 2, MaxCount: 2 }),
  );
  await until("the reserve", async () => {
    const status = await statusOf(place);
    return status.behind.standby === 0 && status.servers.active === 2 ? true : undefined;
  });

  await t.test("--json is one document on standard output, for each command", async () => {
    for (const args of [
      ["status"],
      ["env", "show"],
      ["env", "show", "shop"],
      ["journal", "tail", "-n", "5"],
      ["pairs"],
      ["gaps", "shop"],
      ["run", "list"],
      ["keys", "list"],
      ["config", "check"],
    ]) {
      const said = await run(folder, [...args, "--json"]);
      assert.ok([0, 8].includes(said.code ?? -1), `${args.join(" ")}: ${said.code} ${said.stderr}`);
      assert.equal(said.stderr, "", args.join(" "));
      assert.equal(said.stdout.trimEnd().split("\n").length, 1, args.join(" "));
      assert.equal(typeof JSON.parse(said.stdout), "object");
    }
  });

  await t.test("metrics are the operator's", async () => {
    const url = `${engine.ready["api"]}/metrics`;
    assert.equal((await fetch(url)).status, 401);
    const headers = { authorization: `Bearer ${operatorToken(folder)}` };
    const text = await (await fetch(url, { headers })).text();
    assert.match(text, /^understudy_environment_servers\{environment="shop",side="active"\} 2$/mu);
    assert.match(text, /^understudy_environment_epoch\{environment="shop"\} 1$/mu);
  });

  await t.test("not found, not allowed, not confirmed", async () => {
    for (const [args, code, says] of [
      [["env", "show", "nowhere"], 4, /nowhere.*shop/u],
      [["run", "show", "failover-0"], 4, /run list/u],
      [["run", "list", "nowhere"], 4, /nowhere/u],
      [["failover", "shop"], 3, /--confirm shop/u],
      [["failover", "shop", "--confirm", "shopp"], 3, /--confirm shop/u],
      [["failover", "shop", "--confirm", "shop", "--force"], 2, /--reason/u],
      [["failback", "shop", "--confirm", "shop"], 3, /shop/u],
      [["keys", "create", "nowhere"], 4, /shop/u],
      [["keys", "disable", "UKIANOSUCHKEY0000000"], 4, /UKIANOSUCHKEY0000000/u],
      [["cloud", "verify", "north"], 4, /east, west/u],
    ] as const) {
      const said = await run(folder, args);
      assert.equal(said.code, code, `${args.join(" ")}: ${said.stderr}`);
      assert.match(said.stderr, says);
      assert.equal(said.stdout, "");
    }
  });

  await t.test("SIGKILL: the next start has everything", async () => {
    const before = await journalOf(place);
    await engine.stop("SIGKILL");
    const again = await up(t, place);
    assert.deepEqual(await journalOf(place), before);
    assert.equal((await statusOf(place)).servers.active, 2);
    await again.stop();
  });

  await t.test("Ctrl-C ends the watching and leaves the run going; --no-wait never watches", async () => {
    const again = await up(t, place);
    await adminOf(place.west, "PUT", "latency", { fixedMs: 200, jitterMs: 0 });
    const watcher = watch(t, folder, ["drill", "shop", "--reason", "an exercise"]);
    const drill = await until("the run to begin", async () => {
      const { runs } = await ask<{ runs: readonly RunView[] }>(place, "/v1/runs");
      return runs[0];
    });
    await until("the timeline", () => (watcher.stderr().includes("\n") ? true : undefined));
    watcher.signal("SIGINT");
    const ended = await watcher.ended;
    assert.equal(ended.code, 130, ended.stderr);
    assert.equal(ended.stdout, "");
    assert.match(ended.stderr, new RegExp(`${drill.id} goes on: understudy run show ${drill.id}`, "u"));
    const seen = await ask<RunView>(place, `/v1/runs/${drill.id}`);
    assert.equal(seen.state, "running");
    const second = await run(folder, ["drill", "shop", "--no-wait"]);
    assert.equal(second.code, 3, "one run at a time");
    assert.match(second.stderr, new RegExp(drill.id, "u"));
    await adminOf(place.west, "PUT", "latency", { fixedMs: 0, jitterMs: 0 });
    await until("the run to end by itself", async () => {
      const { state } = await ask<RunView>(place, `/v1/runs/${drill.id}`);
      return state === "running" ? undefined : state;
    });
    const args = ["failover", "shop", "--confirm", "shop", "--no-wait", "--json"];
    const noWait = await run(folder, args);
    assert.equal(noWait.code, 0, noWait.stderr);
    const { id } = JSON.parse(noWait.stdout) as { id: string };
    await until("the failover to end", async () => {
      const { state } = await ask<RunView>(place, `/v1/runs/${id}`);
      return state === "running" ? undefined : state;
    });
    const shown = await run(folder, ["run", "show", id]);
    assert.equal(shown.code, 0);
    assert.match(shown.stdout, new RegExp(id, "u"));
    assert.equal((await again.stop()).code, 0);
  });
});
