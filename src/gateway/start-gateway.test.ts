import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { type TestContext, test } from "node:test";
import { isOperational } from "#kernel/errors.ts";
import { OperationalError } from "#kernel/errors.ts";
import {
  type Fixture,
  type FixtureOptions,
  type FakeCloud,
  errorReply,
  okReply,
  realSecret,
  shop,
  startFakeCloud,
  startFixture,
  upstreams,
  until,
} from "./gateway.fixture.ts";

async function both(
  t: TestContext,
  options: Partial<FixtureOptions> = {},
): Promise<{ cloud: FakeCloud; fixture: Fixture }> {
  const cloud = await startFakeCloud(t);
  return { cloud, fixture: await startFixture(t, { services: upstreams(cloud.endpoint), ...options }) };
}

const run = { Action: "RunInstances", ImageId: "ami-1", MinCount: "1", MaxCount: "1" };

test("a change is recorded with what it created, and the caller gets the cloud's own bytes", async (t) => {
  const { cloud, fixture } = await both(t);
  const answer = await fixture.call({ ...run, ClientToken: "abc", UserData: "IyEvYmluL3No" });
  assert.equal(answer.status, 200);
  assert.equal(answer.headers["x-amzn-requestid"], "cloud-1");
  assert.match(answer.text, /<reservationId>r-1</);
  const [entry] = await fixture.journal.read(shop, 0, 10);
  assert.equal(entry?.intent.operation, "RunInstances");
  assert.equal(entry.intent.token, "abc");
  assert.equal(entry.intent.principal, fixture.key.id);
  assert.deepEqual(entry.intent.input, {
    ImageId: "ami-1",
    MinCount: 1,
    MaxCount: 1,
    ClientToken: "abc",
    UserData: "IyEvYmluL3No",
  });
  assert.equal(entry.outcome?.result, "applied");
  assert.ok(entry.outcome.changes.some((change) => change.type === "create" && change.kind === "server"));
  const [received] = cloud.received;
  assert.match(String(received?.headers.authorization), /Credential=AKIAREALREALREALREAL\//);
});

test("where the caller gave no token, the gateway's own goes to the cloud and into the journal", async (t) => {
  const { cloud, fixture } = await both(t);
  await fixture.call(run);
  const [entry] = await fixture.journal.read(shop, 0, 10);
  assert.ok(entry?.intent.token);
  assert.equal(cloud.received[0]?.parameters.get("ClientToken"), entry.intent.token);
});

test("reads and dry runs pass through and are not recorded", async (t) => {
  const { cloud, fixture } = await both(t);
  const answer = await fixture.call({ Action: "DescribeInstances" });
  assert.match(answer.text, /DescribeInstancesResponse/);
  cloud.reply = errorReply(412, "DryRunOperation");
  const dry = await fixture.call({ ...run, DryRun: "true" });
  assert.equal(dry.code, "DryRunOperation");
  assert.equal((await fixture.journal.counts(shop)).commands, 0);
});

test("what the cloud refuses is recorded as refused and reaches the caller as the cloud said it", async (t) => {
  const { cloud, fixture } = await both(t);
  cloud.reply = errorReply(400, "InvalidVolume.NotFound");
  const refused = await fixture.call({ Action: "DeleteVolume", VolumeId: "vol-00000000" });
  assert.equal(refused.status, 400);
  assert.equal(refused.code, "InvalidVolume.NotFound");
  cloud.reply = errorReply(503, "RequestLimitExceeded", { "retry-after": "7" });
  const throttled = await fixture.call({ Action: "DeleteVolume", VolumeId: "vol-00000000" });
  assert.equal(throttled.status, 503);
  assert.equal(throttled.headers["retry-after"], "7");
  const entries = await fixture.journal.read(shop, 0, 10);
  assert.deepEqual(
    entries.map(({ outcome }) => [outcome?.result, outcome?.errorCode, outcome?.status]),
    [
      ["refused", "InvalidVolume.NotFound", 400],
      ["refused", "RequestLimitExceeded", 503],
    ],
  );
});

test("refusals of the gateway's own never reach the cloud", async (t) => {
  const { cloud, fixture } = await both(t);
  const { readKey, key } = fixture;
  const call: Fixture["call"] = (...request) => fixture.call(...request);
  const volume = { Action: "DeleteVolume", VolumeId: "vol-00000000" };
  const cases: [string, Promise<{ status: number; code: string | undefined }>, number, string][] = [
    ["read-only key", call(volume, { key: readKey }), 403, "UnauthorizedOperation"],
    ["unknown operation", call({ Action: "MakeCoffee" }), 400, "InvalidAction"],
    ["no action", call({ VolumeId: "vol-1" }), 400, "MissingAction"],
    [
      "doubled action",
      call({}, { body: "Action=DeleteVolume&Action=DescribeVolumes" }),
      400,
      "MalformedQueryString",
    ],
    ["bad number", call({ ...run, MinCount: "many" }), 400, "InvalidParameterValue"],
    ["wrong region", call(volume, { region: "us-east-1" }), 403, "SignatureDoesNotMatch"],
    ["unknown service", call(volume, { service: "s3" }), 400, "UnsupportedOperation"],
    ["wrong secret", call(volume, { key: { id: key.id, secret: readKey.secret } }), 401, "AuthFailure"],
    ["credentials", call({ Action: "GetSessionToken" }, { service: "sts" }), 403, "AccessDenied"],
    [
      "classic load balancers",
      call({ Action: "CreateLoadBalancer", Version: "2012-06-01" }, { service: "elasticloadbalancing" }),
      400,
      "InvalidAction",
    ],
  ];
  for (const [what, answer, status, code] of cases) {
    const got = await answer;
    assert.deepEqual([what, got.status, got.code], [what, status, code]);
  }
  assert.equal(cloud.received.length, 0);
  assert.equal((await fixture.journal.counts(shop)).commands, 0);
});

test("a disabled key is refused like an unknown one", async (t) => {
  const { fixture } = await both(t);
  await fixture.keys.disable(fixture.key.id);
  const answer = await fixture.call({ Action: "DescribeInstances" });
  assert.equal(answer.code, "AuthFailure");
});

test("an unreachable cloud: nothing was sent, so the command is refused and the caller may repeat it", async (t) => {
  const { cloud, fixture } = await both(t);
  await cloud.close();
  const answer = await fixture.call(run);
  assert.equal(answer.status, 503);
  assert.equal(answer.code, "Unavailable");
  const [entry] = await fixture.journal.read(shop, 0, 10);
  assert.deepEqual([entry?.outcome?.result, entry?.outcome?.status], ["refused", null]);
  assert.equal(fixture.gateway.stats().open, 0);
});

test("changes of one resource go one after another, in the journal's order; others side by side", async (t) => {
  const { cloud, fixture } = await both(t);
  const held: (() => void)[] = [];
  cloud.reply = (received, response) => void held.push(() => okReply(received, response));
  const call = (volume: string, size: string) =>
    fixture.call({ Action: "ModifyVolume", VolumeId: volume, Size: size });
  const all = [call("vol-aaaaaaaa", "1")];
  await until(() => held.length === 1);
  all.push(call("vol-aaaaaaaa", "2"), call("vol-bbbbbbbb", "3"));
  await until(() => held.length === 2);
  assert.equal(cloud.received[1]?.parameters.get("VolumeId"), "vol-bbbbbbbb");
  await until(() => fixture.gateway.stats().waiting === 1);
  held[0]?.();
  await until(() => held.length === 3);
  for (const go of held.slice(1)) go();
  await Promise.all(all);
  const entries = await fixture.journal.tail(shop, 10);
  const sizes = entries
    .map(({ intent }) => intent.input as { VolumeId: string; Size: number })
    .filter(({ VolumeId }) => VolumeId === "vol-aaaaaaaa")
    .map(({ Size }) => Size);
  assert.deepEqual(sizes, [1, 2]);
});

test("a caller that leaves while it waits for a lock leaves no trace", async (t) => {
  const { cloud, fixture } = await both(t);
  let answer = (): void => assert.fail("nothing was received");
  cloud.reply = (received, response) => {
    answer = () => okReply(received, response);
  };
  const volume = { Action: "ModifyVolume", VolumeId: "vol-aaaaaaaa", Size: "1" };
  const first = fixture.call(volume);
  await until(() => cloud.received.length === 1);
  const control = new AbortController();
  const second = fixture.call(volume, { signal: control.signal });
  await until(() => fixture.gateway.stats().waiting === 1);
  control.abort();
  await assert.rejects(second);
  await until(() => fixture.gateway.stats().waiting === 0);
  answer();
  assert.equal((await first).status, 200);
  assert.equal((await fixture.journal.counts(shop)).commands, 1);
});

test("too many changes at once: the surplus is told to slow down, and the next ones pass again", async (t) => {
  const { cloud, fixture } = await both(t, { limits: { changes: 3 } });
  const held: (() => void)[] = [];
  cloud.reply = (received, response) => void held.push(() => okReply(received, response));
  const calls = Array.from({ length: 8 }, () => fixture.call(run));
  await until(() => held.length === 3 && fixture.gateway.stats().problems.overloaded === 5);
  cloud.reply = okReply;
  for (const go of held) go();
  const answers = await Promise.all(calls);
  const shed = answers.filter(({ status }) => status === 503);
  assert.equal(shed.length, 5);
  assert.ok(
    shed.every(({ code, headers }) => code === "RequestLimitExceeded" && headers["retry-after"] === "1"),
  );
  assert.equal((await fixture.call(run)).status, 200);
  assert.equal((await fixture.journal.counts(shop)).commands, 4);
});

test("an environment that moved takes no changes here, and says where it went", async (t) => {
  const { cloud, fixture } = await both(t);
  fixture.fence = { epoch: 2, moved: { site: "frankfurt", at: Date.UTC(2026, 0, 2) } };
  const answer = await fixture.call(run);
  assert.deepEqual([answer.status, answer.code], [400, "OperationNotPermitted"]);
  assert.match(answer.text, /failed over to site frankfurt at 2026-01-02/);
  fixture.fence = { epoch: 7, moved: null };
  const stale = await fixture.call(run);
  assert.equal(stale.code, "OperationNotPermitted", "the journal has the last word on the epoch");
  assert.equal(cloud.received.length, 0);
});

test("a journal that cannot record the intent: nothing is forwarded, and the answer names the disk", async (t) => {
  const { cloud, fixture } = await both(t, {
    journal: (journal) => ({
      ...journal,
      recordIntent: () => Promise.reject(new OperationalError("store.full", "the disk is full")),
    }),
  });
  const answer = await fixture.call(run);
  assert.deepEqual([answer.status, answer.code], [503, "Unavailable"]);
  assert.match(answer.text, /disk is full/);
  assert.equal(cloud.received.length, 0);
});

test("an outcome that cannot be recorded is never a success, stays open, and is recorded once it can be", async (t) => {
  let failures = 3;
  const { fixture } = await both(t, {
    journal: (journal) => ({
      ...journal,
      recordOutcome: (...outcome) => {
        failures -= 1;
        return failures >= 0
          ? Promise.reject(new OperationalError("store.failing", "the disk fails"))
          : journal.recordOutcome(...outcome);
      },
    }),
  });
  const answer = await fixture.call({ ...run, ClientToken: "tok" });
  assert.deepEqual([answer.status, answer.code], [500, "InternalError"]);
  const again = await fixture.call({ ...run, ClientToken: "tok" });
  assert.equal(again.status, 200);
  const entries = await fixture.journal.read(shop, 0, 10);
  assert.deepEqual(
    entries.map(({ outcome }) => outcome?.result),
    ["applied", "applied"],
  );
  const created = entries.map(({ outcome }) => outcome?.changes.map(({ id }) => id));
  assert.deepEqual(created[0], created[1], "both entries name the same server, so that it exists once");
});

test("neither the cloud's secret nor a key's is in an answer or in the state on disk", async (t) => {
  const { fixture, cloud } = await both(t);
  cloud.reply = errorReply(500, "InternalError");
  const answers = [await fixture.call(run), await fixture.call({ Action: "MakeCoffee" })];
  for (const { text, headers } of answers) {
    const all = text + JSON.stringify(headers);
    assert.ok(!all.includes(realSecret) && !all.includes(fixture.key.secret.reveal()));
  }
  const state = await readFile(`${fixture.folder}/state.db-wal`, "latin1");
  assert.ok(!state.includes(realSecret) && !state.includes(fixture.key.secret.reveal()));
});

test("a port that is taken is an error that says so", async (t) => {
  const { fixture, cloud } = await both(t);
  const { startGateway } = await import("./start-gateway.ts");
  const { systemClock } = await import("#kernel/clock.ts");
  const { systemRandom } = await import("#kernel/random.ts");
  const { silentLog } = await import("#kernel/log.ts");
  await assert.rejects(
    startGateway({
      listen: { host: "127.0.0.1", port: cloud.port },
      environments: [],
      dialects: [],
      journal: fixture.journal,
      fence: () => ({ epoch: 1, moved: null }),
      clock: systemClock,
      random: systemRandom,
      log: silentLog,
    }),
    (error) => isOperational(error, "port.in_use") && error.message.includes(String(cloud.port)),
  );
});
