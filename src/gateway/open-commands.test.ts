import assert from "node:assert/strict";
import type { ServerResponse } from "node:http";
import { type TestContext, test } from "node:test";
import {
  type FakeCloud,
  type Fixture,
  type Received,
  okReply,
  shop,
  startFakeCloud,
  startFixture,
  upstreams,
  until,
} from "./gateway.fixture.ts";

/** Remembers what it ran by token, as EC2 does, and can be told to lose the next answer before or after that. */
class ForgetfulCloud {
  readonly made = new Map<string, string>();
  lose: "before" | "after" | "no" = "no";
  /** While false, questions are not answered. */
  talks = true;

  readonly reply = (received: Received, response: ServerResponse): void => {
    const { action, parameters } = received;
    if (action === "DescribeInstances") {
      if (this.talks) this.#describe(parameters, response);
      else response.destroy();
      return;
    }
    const lose = this.lose;
    this.lose = "no";
    if (lose === "before") {
      response.destroy();
      return;
    }
    const token = parameters.get("ClientToken") ?? "";
    if (!this.made.has(token)) this.made.set(token, `i-${String(this.made.size).padStart(17, "0")}`);
    if (lose === "after") response.destroy();
    else okReply(received, response);
  };

  #describe(parameters: URLSearchParams, response: ServerResponse): void {
    const wanted =
      parameters.get("Filter.1.Name") === "client-token" ? parameters.get("Filter.1.Value.1") : "";
    const id = this.made.get(wanted ?? "");
    const item = `<item><reservationId>r-1</reservationId><instancesSet><item><instanceId>${id}</instanceId><imageId>ami-1</imageId><instanceType>t3.micro</instanceType><clientToken>${wanted}</clientToken><instanceState><code>16</code><name>running</name></instanceState></item></instancesSet></item>`;
    response.end(
      `<DescribeInstancesResponse><reservationSet>${id === undefined ? "" : item}</reservationSet></DescribeInstancesResponse>`,
    );
  }
}

const run = { Action: "RunInstances", ImageId: "ami-1", MinCount: "1", MaxCount: "1" };

async function both(t: TestContext): Promise<{ cloud: FakeCloud; memory: ForgetfulCloud; fixture: Fixture }> {
  const cloud = await startFakeCloud(t);
  const memory = new ForgetfulCloud();
  cloud.reply = memory.reply;
  return { cloud, memory, fixture: await startFixture(t, { services: upstreams(cloud.endpoint) }) };
}

test("an answer lost after the cloud did it: the caller is not told of success, the journal learns the truth", async (t) => {
  const { memory, fixture } = await both(t);
  memory.lose = "after";
  const answer = await fixture.call({ ...run, ClientToken: "one" });
  assert.deepEqual([answer.status, answer.code], [504, "InternalError"]);
  await until(() => fixture.gateway.stats().open === 0);
  const [entry] = await fixture.journal.read(shop, 0, 10);
  assert.equal(entry?.outcome?.result, "applied");
  assert.equal(entry.outcome.resolvedLater, true);
  assert.deepEqual(
    entry.outcome.changes.filter(({ kind }) => kind === "server").map(({ id }) => id),
    [memory.made.get("one")],
  );
});

test("an answer lost before the cloud did it: asked, it knows nothing, so the command is refused", async (t) => {
  const { memory, fixture } = await both(t);
  memory.lose = "before";
  assert.equal((await fixture.call({ ...run, ClientToken: "one" })).status, 504);
  await until(() => fixture.gateway.stats().open === 0);
  const [entry] = await fixture.journal.read(shop, 0, 10);
  assert.deepEqual([entry?.outcome?.result, entry?.outcome?.changes], ["refused", []]);
  assert.equal(memory.made.size, 0);
});

test("a retry with the same token waits until the cloud has been asked, and makes nothing twice", async (t) => {
  const { cloud, memory, fixture } = await both(t);
  memory.lose = "after";
  memory.talks = false;
  assert.equal((await fixture.call({ ...run, ClientToken: "one" })).status, 504);
  const retry = fixture.call({ ...run, ClientToken: "one" });
  await until(() => fixture.gateway.stats().waiting === 1);
  const runs = (): number => cloud.received.filter(({ action }) => action === "RunInstances").length;
  assert.equal(runs(), 1, "nothing is repeated before the cloud has told");
  memory.talks = true;
  assert.equal((await retry).status, 200);
  assert.equal(runs(), 2);
  assert.equal(memory.made.size, 1);
});

test("a caller without tokens that repeats a lost request gets the token of the first", async (t) => {
  const { cloud, memory, fixture } = await both(t);
  memory.lose = "after";
  assert.equal((await fixture.call(run)).status, 504);
  assert.equal((await fixture.call(run)).status, 200);
  assert.equal(memory.made.size, 1);
  assert.equal((await fixture.call(run)).status, 200);
  assert.equal(memory.made.size, 2, "the third is a new command");
  const tokens = cloud.received
    .filter(({ action }) => action === "RunInstances")
    .map(({ parameters }) => parameters.get("ClientToken"));
  assert.equal(tokens[0], tokens[1]);
  assert.notEqual(tokens[1], tokens[2]);
});

test("what a dead process left open is asked about at the next start, and holds its locks until then", async (t) => {
  const { cloud, memory, fixture } = await both(t);
  memory.talks = false;
  memory.lose = "after";
  assert.equal((await fixture.call({ ...run, ClientToken: "one" })).status, 504);
  await fixture.gateway.close();
  await fixture.store.close();
  const next = await startFixture(t, { services: upstreams(cloud.endpoint), folder: fixture.folder });
  assert.equal(next.gateway.stats().open, 1);
  const retry = next.call({ ...run, ClientToken: "one" });
  await until(() => next.gateway.stats().waiting === 1);
  memory.talks = true;
  assert.equal((await retry).status, 200);
  assert.equal(memory.made.size, 1);
  const entries = await next.journal.read(shop, 0, 10);
  assert.deepEqual(
    entries.map(({ outcome }) => [outcome?.result, outcome?.resolvedLater]),
    [
      ["applied", true],
      ["applied", false],
    ],
  );
});

test("a server error that does not say what happened reaches the caller as it is, and the cloud is asked", async (t) => {
  const { cloud, memory, fixture } = await both(t);
  cloud.reply = (received, response) => {
    cloud.reply = memory.reply;
    memory.made.set(received.parameters.get("ClientToken") ?? "", "i-00000000000000009");
    response.writeHead(500, { "x-marker": "cloud" });
    response.end("<html>proxy error</html>");
  };
  const answer = await fixture.call({ ...run, ClientToken: "one" });
  assert.deepEqual([answer.status, answer.text], [500, "<html>proxy error</html>"]);
  assert.equal(answer.headers["x-marker"], "cloud");
  await until(() => fixture.gateway.stats().open === 0);
  const [entry] = await fixture.journal.read(shop, 0, 10);
  assert.deepEqual([entry?.outcome?.result, entry?.outcome?.resolvedLater], ["applied", true]);
});

test("a command that waits longer than it may for an open one is refused, unsent", async (t) => {
  const cloud = await startFakeCloud(t);
  const memory = new ForgetfulCloud();
  cloud.reply = memory.reply;
  const fixture = await startFixture(t, {
    services: upstreams(cloud.endpoint),
    limits: { lockWaitMs: 50 },
  });
  memory.talks = false;
  memory.lose = "after";
  await fixture.call({ ...run, ClientToken: "one" });
  const retry = await fixture.call({ ...run, ClientToken: "one" });
  assert.deepEqual([retry.status, retry.code], [503, "Unavailable"]);
  assert.equal((await fixture.journal.counts(shop)).commands, 1);
});

test("what a lost create made is looked at again when nobody changes it any more", async (t) => {
  const { cloud, fixture } = await both(t);
  let tagged = false;
  let answerTags = (): void => assert.fail("no tags were asked for");
  let talks = false;
  let looks = 0;
  cloud.reply = (received, response) => {
    if (received.action === "CreateTags") {
      answerTags = () => {
        tagged = true;
        okReply(received, response);
      };
    } else if (received.action !== "DescribeVpcs" || !talks) response.destroy();
    else {
      looks += 1;
      const tags = tagged ? "<tagSet><item><key>tier</key><value>web</value></item></tagSet>" : "";
      response.end(
        `<DescribeVpcsResponse><vpcSet><item><vpcId>vpc-1</vpcId><cidrBlock>10.0.0.0/16</cidrBlock>${tags}</item></vpcSet></DescribeVpcsResponse>`,
      );
    }
  };
  assert.equal((await fixture.call({ Action: "CreateVpc", CidrBlock: "10.0.0.0/16" })).status, 504);
  // Somebody has found it in the cloud.
  const tagging = fixture.call({
    Action: "CreateTags",
    "ResourceId.1": "vpc-1",
    "Tag.1.Key": "tier",
    "Tag.1.Value": "web",
  });
  await until(() => cloud.received.some(({ action }) => action === "CreateTags"));
  talks = true;
  await until(() => fixture.gateway.stats().waiting === 1 || fixture.gateway.stats().open === 0);
  assert.equal(looks, 1);
  answerTags();
  assert.equal((await tagging).status, 200);
  await until(() => fixture.gateway.stats().open === 0);
  assert.equal(looks, 2);
  const entries = await fixture.journal.read(shop, 0, 10);
  assert.deepEqual(
    entries.map(({ intent }) => intent.operation),
    ["CreateTags", "CreateVpc"],
  );
  const made = entries[1]?.outcome?.changes.find(({ kind }) => kind === "network");
  assert.deepEqual(made?.type === "create" ? made.tags : undefined, { tier: "web" });
  assert.equal(fixture.gateway.stats().waiting, 0);
});
