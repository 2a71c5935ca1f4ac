// What users and their machines do wrong, each against the real processes: a clear error that says what to do, the exit code
// that the help promises, and nothing lost: the journal and the clouds are compared before and after.
import assert from "node:assert/strict";
import { chmodSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import {
  CreateTagsCommand,
  DescribeInstancesCommand,
  RunInstancesCommand,
  type EC2Client,
} from "@aws-sdk/client-ec2";
import {
  clientOf,
  createKey,
  failUp,
  image,
  journalOf,
  makePlace,
  run,
  serversOf,
  statusOf,
  up,
  type Ended,
  type Keys,
  type Place,
  type Running,
} from "./understudy-process.ts";
import { until } from "#testing/until.ts";

interface Failure {
  readonly name: string;
  readonly message: string;
  readonly status: number | undefined;
}

/** The error that a tool of the user's shows. */
async function failureOf(work: Promise<unknown>): Promise<Failure> {
  try {
    await work;
  } catch (error) {
    const { name, message, $metadata } = error as Error & { $metadata?: { httpStatusCode?: number } };
    return { name, message, status: $metadata?.httpStatusCode };
  }
  throw new assert.AssertionError({ message: "expected an error" });
}

function launch(client: EC2Client, name: string): Promise<unknown> {
  return client.send(
    new RunInstancesCommand({
      ImageId: image,
      InstanceType: "t3.micro",
      MinCount: 1,
      MaxCount: 1,
      TagSpecifications: [{ ResourceType: "instance", Tags: [{ Key: "Name", Value: name }] }],
    }),
  );
}

/** All that must not change when something is refused. */
async function picture(place: Place): Promise<unknown> {
  const [status, journal, east] = await Promise.all([
    statusOf(place),
    journalOf(place),
    serversOf(place.east),
  ]);
  return {
    epoch: status.epoch,
    phase: status.phase,
    head: status.journal.head,
    resources: status.resources,
    journal,
    east: east.map(({ id }) => id).toSorted(),
  };
}

async function settled(place: Place): Promise<void> {
  await until("the reserve to follow", async () => {
    const { behind, journal } = await statusOf(place);
    return behind.state === 0 && behind.standby === 0 && journal.open === 0 ? true : undefined;
  });
}

interface Scene {
  readonly place: Place;
  readonly engine: Running;
  readonly keys: Keys;
  readonly gateway: string;
  readonly client: EC2Client;
}

/** A running control plane whose journal holds a command already. */
async function scene(t: TestContext): Promise<Scene> {
  const place = await makePlace(t);
  const keys = await createKey(place.folder);
  const engine = await up(t, place);
  const gateway = engine.ready["gateway"] ?? "";
  const client = clientOf(t, gateway, keys);
  await launch(client, "first");
  await settled(place);
  return { place, engine, keys, gateway, client };
}

function refused(ended: Ended, code: number, ...says: readonly RegExp[]): void {
  assert.equal(ended.code, code, ended.stderr);
  assert.equal(ended.stdout, "");
  for (const pattern of says) assert.match(ended.stderr, pattern);
  assert.doesNotMatch(ended.stderr, /\n\s+at /u, "a user's mistake is no stack trace");
}

/** Resident bytes of a process. */
function memoryOf(pid: number): number {
  const line = /^VmRSS:\s+(\d+) kB/mu.exec(readFileSync(`/proc/${pid}/status`, "utf8"));
  return Number(line?.[1]) * 1024;
}

test("requests that are wrong", { timeout: 60_000 }, async (t) => {
  const { place, engine, keys, gateway, client } = await scene(t);
  const before = await picture(place);
  t.afterEach(async () => assert.deepEqual(await picture(place), before));

  await t.test("wrong access keys", async () => {
    const unknown = { ...keys, accessKeyId: "UKIAAAAAAAAAAAAAAAAA" };
    const failure = await failureOf(launch(clientOf(t, gateway, unknown), "no"));
    assert.equal(failure.status, 401);
    assert.equal(failure.name, "AuthFailure");
    const secret = { ...keys, secretAccessKey: "x".repeat(40) };
    const wrong = await failureOf(launch(clientOf(t, gateway, secret), "no"));
    assert.equal(wrong.name, "AuthFailure");
    assert.match(wrong.message, /secret|signature/iu);
    assert.ok(!wrong.message.includes(keys.secretAccessKey));
  });

  await t.test("an expired clock", async () => {
    for (const offset of [-20 * 60_000, 20 * 60_000]) {
      const late = clientOf(t, gateway, keys, { systemClockOffset: offset });
      const failure = await failureOf(launch(late, "no"));
      assert.equal(failure.name, "RequestExpired");
      assert.match(failure.message, /clock|time/iu);
    }
  });

  await t.test("an unknown operation", async () => {
    const failure = await failureOf(sendAs(client, "InventServers"));
    assert.equal(failure.name, "InvalidAction");
    assert.match(failure.message, /InventServers/u);
  });

  await t.test("a malformed body", async () => {
    for (const body of [
      "Action=RunInstances&MinCount=%zz",
      "",
      "\0\0",
      "Action=RunInstances&MinCount=many",
    ]) {
      const failure = await failureOf(sendAs(client, "", body));
      assert.ok((failure.status ?? 0) >= 400 && (failure.status ?? 0) < 500, `${body}: ${failure.name}`);
      assert.notEqual(failure.message, "");
    }
  });

  await t.test("a body of 10 MB, in memory that is bounded", async () => {
    const held = memoryOf(engine.pid);
    const body = `Action=RunInstances&UserData=${"A".repeat(10_000_000)}`;
    const failures = await Promise.all(Array.from({ length: 10 }, () => failureOf(sendAs(client, "", body))));
    for (const failure of failures) {
      assert.equal(failure.status, 413, `${failure.name}: ${failure.message}`);
      assert.match(failure.message, /1048576|1 MiB/u);
    }
    const grown = memoryOf(engine.pid) - held;
    assert.ok(grown < 64 * 1024 * 1024, `100 MB were sent and ${grown} bytes stayed`);
  });

  await t.test("a witness's or a stranger's token", async () => {
    const ended = await run(place.folder, ["status"], {
      env: { UNDERSTUDY_API: engine.ready["api"] ?? "", UNDERSTUDY_TOKEN: "no-such-token" },
    });
    refused(ended, 5, /not known/u);
  });
});

/** Signs and sends what the SDK itself would never build. */
async function sendAs(
  client: EC2Client,
  action: string,
  body = `Action=${action}&Version=2016-11-15`,
): Promise<void> {
  const command = new DescribeInstancesCommand({});
  command.middlewareStack.add(
    (next) => (args) => {
      const request = args.request as { body: string; headers: Record<string, string> };
      request.body = body;
      request.headers["content-length"] = String(Buffer.byteLength(body));
      return next(args);
    },
    { step: "build", priority: "low" },
  );
  await client.send(command);
}

test("a cloud that cannot be reached", { timeout: 60_000 }, async (t) => {
  const { place, client } = await scene(t);

  await t.test("the active one: refused, kept out of the record, and taken again later", async () => {
    await place.stopCloud("east");
    const failure = await failureOf(launch(client, "second"));
    assert.equal(failure.status, 503);
    assert.match(failure.message, /shop/u);
    await place.startCloud("east");
    await until("east to take commands", async () => {
      await launch(client, "third").catch(() => undefined);
      return (await serversOf(place.east)).length >= 2 ? true : undefined;
    });
    await settled(place);
    const succeeded = (await journalOf(place)).filter(({ outcome }) => outcome?.result === "applied");
    assert.equal(succeeded.length, (await serversOf(place.east)).length);
  });

  await t.test("the standby: the status says so, commands go on, and the reserve follows later", async () => {
    await place.stopCloud("west");
    await launch(client, "fourth");
    const behind = await until("the status to tell", async () => {
      const ended = await run(place.folder, ["status"]);
      return ended.stdout.includes("cloud.api_unreachable") ? ended : undefined;
    });
    assert.equal(behind.code, 8);
    assert.match(behind.stdout, /cloud@west|reserve [1-9]\d* behind/u);
    await place.startCloud("west");
    await settled(place);
    const status = await statusOf(place);
    assert.equal(status.servers.active, (await serversOf(place.east)).length);
    assert.ok((await serversOf(place.west)).length >= 1);
  });
});

function occupy(t: TestContext, port: number): Promise<Server> {
  const server = createServer();
  t.after(() => server.close());
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, "127.0.0.1", () => resolve(server));
  });
}

test(
  "a port in use: named, with the setting; nothing else is left running",
  { timeout: 60_000 },
  async (t) => {
    const place = await makePlace(t);
    const { gateway, api, web } = place.ports;
    for (const [port, what, setting] of [
      [gateway, /gateway/u, /gateway another port|listen\.gateway/u],
      [api, /API/u, /listen\.api/u],
      [web, /forwarder/u, /environments\.shop\.traffic/u],
    ] as const) {
      const taken = await occupy(t, port);
      const ended = await failUp(place);
      refused(ended, 2, what, new RegExp(`127\\.0\\.0\\.1:${port}\\b`, "u"), setting);
      await new Promise((resolve) => taken.close(resolve));
      for (const freed of [gateway, api, web]) {
        const server = await occupy(t, freed);
        await new Promise((resolve) => server.close(resolve));
      }
    }
    const engine = await up(t, place);
    assert.equal((await engine.stop()).code, 0);
  },
);

test("a configuration that cannot be used", { timeout: 60_000 }, async (t) => {
  const place = await makePlace(t);
  const path = join(place.folder, "understudy.yaml");
  const good = readFileSync(path, "utf8");
  t.afterEach(() => writeFileSync(path, good));

  await t.test("an unknown key, with its line", async () => {
    const bad = good.replace("    standby: west\n", "    standby: west\n    replicas: 3\n");
    writeFileSync(path, bad);
    const line = bad.split("\n").findIndex((text) => text.includes("replicas")) + 1;
    for (const args of [["up"], ["config", "check"], ["keys", "list"]]) {
      refused(await run(place.folder, args), 2, new RegExp(`understudy\\.yaml:${line}: .*"replicas"`, "u"));
    }
  });

  await t.test("a secret that is not there, by file and by environment", async () => {
    writeFileSync(path, good.replace("./west/secret-key", "./west/no-such-file"));
    refused(await failUp(place), 2, /west\/no-such-file/u, /write it/u);
    writeFileSync(path, good.replace("EAST_KEY", "NO_SUCH_VARIABLE"));
    refused(await failUp(place), 2, /NO_SUCH_VARIABLE is not set/u);
    writeFileSync(join(place.folder, "empty"), "\n");
    writeFileSync(path, good.replace("./west/secret-key", "./empty"));
    refused(await failUp(place), 2, /empty/u);
  });

  await t.test("a file that is missing, a folder, no YAML, or far too large", async () => {
    refused(
      await run(place.folder, ["status", "-c", "none.yaml"]),
      2,
      /there is no none\.yaml/u,
      /understudy init/u,
    );
    refused(await run(place.folder, ["config", "check", "-c", "east"]), 2, /EISDIR/u);
    writeFileSync(path, "sites: [");
    refused(await run(place.folder, ["config", "check"]), 2, /understudy\.yaml:1/u);
    writeFileSync(path, "#".repeat(1024 * 1024 + 1));
    refused(await run(place.folder, ["config", "check"]), 2, /larger than 1 MiB/u);
  });

  await t.test("two witnesses with one token", async () => {
    writeFileSync(join(place.folder, "token"), "0123456789abcdef0123456789abcdef\n");
    const twice = "witnesses: [{name: a, token: {file: ./token}}, {name: b, token: {file: ./token}}]";
    writeFileSync(path, good.replace("    failover: {}", `    ${twice}\n    failover: {}`));
    refused(await failUp(place), 2, /same token/u, /a.*b|b.*a/u);
  });

  await t.test("a log level that there is not", async () => {
    refused(await failUp(place, { env: { UNDERSTUDY_LOG_LEVEL: "loud" } }), 2, /loud/u, /debug, info/u);
  });
});

test("a configuration that has left what is recorded", { timeout: 60_000 }, async (t) => {
  const { place, engine, keys, gateway } = await scene(t);
  const before = await picture(place);
  await engine.stop();
  const path = join(place.folder, "understudy.yaml");
  const good = readFileSync(path, "utf8");
  const shop = good.slice(good.indexOf("  shop:\n"));

  writeFileSync(path, good.replace("active: east\n    standby: west", "active: west\n    standby: east"));
  refused(await failUp(place), 2, /active site "east"/u, /understudy swap shop/u);

  const third = good.replace(/ {2}west:\n(.*\n){4}/u, (site) => site + site.replace("  west:", "  north:"));
  writeFileSync(path, third.replace("standby: west", "standby: north"));
  refused(await failUp(place), 2, /standby "west"/u, /"north"/u, /name them again/u);

  // Another environment in its place: what is left of the old one is told, and kept.
  writeFileSync(path, good.replace(shop, shop.replace("  shop:\n", "  store:\n")));
  const other = await up(t, place);
  await until("the warning", () => (other.stderr().includes('environment \\"shop\\"') ? true : undefined));
  assert.match(other.stderr(), /not in the configuration any more/u);
  const failure = await failureOf(launch(clientOf(t, gateway, keys), "nowhere"));
  assert.equal(failure.name, "UnsupportedOperation");
  assert.match(failure.message, /shop/u);
  refused(await run(place.folder, ["env", "show", "shop"]), 4, /"shop"/u, /store/u);
  await other.stop();

  writeFileSync(path, good);
  await up(t, place);
  assert.deepEqual(await picture(place), before);
  await launch(clientOf(t, gateway, keys), "second");
});

test("a data directory that cannot be used", { timeout: 60_000 }, async (t) => {
  const { place, engine } = await scene(t);
  const before = await picture(place);

  await t.test("of another engine that runs: the process is named", async () => {
    const [a, b, c] = [place.ports.gateway, place.ports.api, place.ports.web];
    const config = readFileSync(join(place.folder, "understudy.yaml"), "utf8");
    const other = config.replaceAll(`:${a}"`, ':0"').replaceAll(`:${b}"`, ':0"').replaceAll(`:${c}"`, ':0"');
    writeFileSync(join(place.folder, "other.yaml"), other);
    const ended = await failUp({ folder: place.folder }, { env: {} }, "other.yaml");
    refused(ended, 1, new RegExp(`process ${engine.pid}\\b`, "u"), /stop it/u);
  });

  await t.test("not writable", async () => {
    const sealed = join(place.folder, "sealed");
    mkdirSync(sealed, { mode: 0o500 });
    const config = readFileSync(join(place.folder, "other.yaml"), "utf8");
    writeFileSync(join(place.folder, "sealed.yaml"), config.replace("data: ./data", "data: ./sealed/data"));
    const nobody = process.getuid?.() === 0 ? { uid: 65_534 } : {};
    for (const [name, mode] of [["secret-key", 0o644]] as const) {
      for (const site of ["east", "west"]) chmodSync(join(place.folder, site, name), mode);
    }
    for (const folder of ["", "east", "west"]) chmodSync(join(place.folder, folder), 0o755);
    const ended = await failUp(place, nobody, "sealed.yaml");
    refused(ended, 1, /sealed\/data/u, /cannot be written/u, /permission/u);
    rmSync(sealed, { recursive: true });
  });

  assert.deepEqual(await picture(place), before);
});

test(
  "a tag on what is not there is the cloud's own refusal, and recorded as one",
  { timeout: 60_000 },
  async (t) => {
    const { place, client } = await scene(t);
    const failure = await failureOf(
      client.send(
        new CreateTagsCommand({ Resources: ["i-00000000000000000"], Tags: [{ Key: "a", Value: "b" }] }),
      ),
    );
    assert.equal(failure.name, "InvalidInstanceID.NotFound");
    const last = (await journalOf(place)).at(-1);
    assert.equal(last?.outcome?.result, "refused");
    assert.equal(last?.outcome?.errorCode, "InvalidInstanceID.NotFound");
  },
);
