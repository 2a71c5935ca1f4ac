/** Who is turned away, and how it is said: the gateway's own refusals are the cloud's, and leave nothing behind. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { awsMissing, runAws } from "./aws-command-line.ts";
import { boto3Missing, openBoto3Client } from "./boto3-client.ts";
import { type Endpoint, list } from "./client.ts";
import { type JsOptions, openJsClient } from "./js-client.ts";
import { assertSame, Names, Session } from "./transcript.ts";
import { type TwoWays, startTwoWays } from "./two-ways.ts";

const vpc = { CidrBlock: "10.0.0.0/16" };
const hour = 3_600_000;

/** One script with the JS SDK on both ways. */
async function sameWithJs(
  ways: TwoWays,
  options: JsOptions,
  script: (session: Session) => Promise<void>,
  edit: (endpoint: Endpoint) => Endpoint = (endpoint) => endpoint,
): Promise<void> {
  const [direct, through] = [ways.direct, ways.through].map(
    (way) => new Session(openJsClient(edit(way), options)),
  );
  assert.ok(direct !== undefined && through !== undefined);
  try {
    await Promise.all([script(direct), script(through)]);
    assertSame(direct.lines, through.lines);
  } finally {
    await Promise.all([direct.client.close(), through.client.close()]);
  }
}

const once = { maxAttempts: 1 };

void test("refusals through the gateway", { timeout: 120_000 }, async (t) => {
  await using ways = await startTwoWays();
  const recorded = async (): Promise<number> => (await ways.journal()).length;

  await t.test("a wrong secret", async () => {
    const edit = (way: Endpoint): Endpoint => ({ ...way, secretAccessKey: "not the secret" });
    await sameWithJs(
      ways,
      once,
      async (session) => {
        await session.refused("AuthFailure", "DescribeVpcs", {});
        await session.refused("AuthFailure", "CreateVpc", vpc);
      },
      edit,
    );
    assert.equal(await recorded(), 0);
  });

  await t.test("a key that nobody has", async () => {
    const edit = (way: Endpoint): Endpoint => ({ ...way, accessKeyId: "AKIANOBODYHASTHIS000" });
    await sameWithJs(ways, once, (session) => session.refused("AuthFailure", "CreateVpc", vpc), edit);
    assert.equal(await recorded(), 0);
  });

  await t.test("a clock an hour off, either way", async () => {
    for (const systemClockOffset of [hour, -hour]) {
      await sameWithJs(ways, { ...once, systemClockOffset }, (session) =>
        session.refused("RequestExpired", "CreateVpc", vpc),
      );
    }
    assert.equal(await recorded(), 0);
  });

  await t.test("a key that may only read", async () => {
    const session = new Session(openJsClient(ways.readOnly, once));
    await session.done("DescribeVpcs", {});
    await session.refused("UnauthorizedOperation", "CreateVpc", vpc);
    assert.equal(session.lines.at(-1)?.answered.status, 403);
    const vpcs = await session.done("DescribeVpcs", {});
    assert.equal(list(vpcs, "Vpcs").length, 1, "only the default network");
    await session.client.close();
    assert.equal(await recorded(), 0);
  });

  await t.test("forms that no SDK sends", async () => {
    const before = await recorded();
    const tampered = (from: RegExp, to: string, script: (session: Session) => Promise<void>): Promise<void> =>
      sameWithJs(ways, { ...once, tamper: (form) => form.replace(from, to) }, script);
    await tampered(/Action=\w+/, "Action=", (session) => session.refused("MissingAction", "CreateVpc", vpc));
    await tampered(/$/, "&Bogus=1", async (session) => {
      await session.refused("UnknownParameter", "DescribeVpcs", {});
    });
    await tampered(/$/, "&DryRun=perhaps", (session) =>
      session.refused("InvalidParameterValue", "CreateVpc", vpc),
    );
    await tampered(/$/, "&CidrBlock=%zz", (session) =>
      session.refused("MalformedQueryString", "CreateVpc", vpc),
    );
    await tampered(/$/, "&Action=DeleteVpc", (session) =>
      session.refused("MalformedQueryString", "CreateVpc", vpc),
    );
    assert.equal(await recorded(), before);
    await tampered(/$/, "&Bogus=1", (session) => session.refused("UnknownParameter", "CreateVpc", vpc));
    assert.equal(await recorded(), before + 1, "the cloud was asked, and said no");
  });

  await t.test("an operation that does not exist", async () => {
    const options: JsOptions = { ...once, tamper: (form) => form.replace("CreateVpc", "CreateMoon") };
    const answers = [];
    for (const way of [ways.direct, ways.through]) {
      const client = openJsClient(way, options);
      answers.push(await client.call("CreateVpc", vpc));
      await client.close();
    }
    assert.deepEqual(
      answers.map(({ code, status }) => ({ code, status })),
      [
        { code: "InvalidAction", status: 400 },
        { code: "InvalidAction", status: 400 },
      ],
    );
    assert.match(JSON.stringify(answers[1]?.shown), /CreateMoon.*Update Understudy/);
  });

  await t.test("a body of 10 MB", async () => {
    const big = {
      ...vpc,
      TagSpecifications: [{ ResourceType: "vpc", Tags: [{ Key: "a", Value: "x".repeat(1e7) }] }],
    };
    for (const way of [ways.direct, ways.through]) {
      const client = openJsClient(way, once);
      const { code, status } = await client.call("CreateVpc", big);
      assert.deepEqual({ code, status }, { code: "RequestEntityTooLarge", status: 413 });
      await client.close();
    }
  });

  await t.test("boto3: a wrong secret", { skip: boto3Missing() }, async () => {
    const [direct, through] = [ways.direct, ways.through].map(
      (way) => new Session(openBoto3Client({ ...way, secretAccessKey: "not the secret" }, once)),
    );
    assert.ok(direct !== undefined && through !== undefined);
    const script = (session: Session): Promise<void> => session.refused("AuthFailure", "CreateVpc", vpc);
    await Promise.all([script(direct), script(through)]);
    assertSame(direct.lines, through.lines);
    await Promise.all([direct.client.close(), through.client.close()]);
  });

  await t.test("awscli: a wrong secret, an unknown key", { skip: awsMissing() }, async () => {
    for (const wrong of [{ secretAccessKey: "not the secret" }, { accessKeyId: "AKIANOBODYHASTHIS000" }]) {
      const [direct, through] = await Promise.all(
        [ways.direct, ways.through].map((way) => runAws({ ...way, ...wrong }, ["ec2", "describe-vpcs"])),
      );
      assert.match(direct?.stderr ?? "", /AuthFailure/);
      assert.deepEqual(through, direct);
    }
  });

  await t.test("the SDK finds the endpoint in AWS_ENDPOINT_URL", async () => {
    process.env["AWS_ENDPOINT_URL"] = ways.through.url;
    try {
      const session = new Session(openJsClient(ways.through, { ...once, endpoint: false }));
      await session.done("DescribeVpcs", {});
      await session.done("GetCallerIdentity", {}, "sts");
      await session.client.close();
    } finally {
      delete process.env["AWS_ENDPOINT_URL"];
    }
  });

  await t.test("boto3: URLs that are signed in their query", { skip: boto3Missing() }, async () => {
    const before = await recorded();
    const answers: unknown[][] = [];
    for (const way of [ways.direct, ways.through]) {
      const names = new Names();
      const client = openBoto3Client(way, once);
      const told: unknown[] = [];
      const ask = async (method: "GET" | "POST", operation: string, input: object): Promise<void> => {
        const answer = await fetch(await client.presign(method, operation, input), { method });
        const body = await answer.text();
        told.push(names.comparable({ operation, status: answer.status, body }));
      };
      await ask("GET", "DescribeVpcs", { Filters: [{ Name: "is-default", Values: ["true"] }] });
      await ask("GET", "CreateVolume", { AvailabilityZone: "us-east-1a", Size: 1 });
      await ask("GET", "DeleteVolume", { VolumeId: "vol-0123456789abcdef0" });
      // What boto3 makes unless it is told otherwise.
      await ask("POST", "CreateVolume", { AvailabilityZone: "us-east-1a", Size: 2 });
      await client.close();
      answers.push(told);
    }
    assert.deepEqual(answers[1], answers[0]);
    assert.equal((await recorded()) - before, 3);
  });
});
