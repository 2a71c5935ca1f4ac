import assert from "node:assert/strict";
import { createHash, createHmac } from "node:crypto";
import { type TestContext, test } from "node:test";
import { SignatureV4 } from "@smithy/signature-v4";
import { request as send } from "undici";
import { awsService } from "#wire/aws/service-model.ts";
import {
  type FakeCloud,
  type Fixture,
  type FixtureOptions,
  region,
  shop,
  startFakeCloud,
  startFixture,
  upstreams,
} from "#gateway/gateway.fixture.ts";
import { withoutSecrets } from "./journal-input.ts";

/** What the vendor's signer asks for. */
class NodeSha256 {
  readonly #hash;

  constructor(secret?: string | ArrayBuffer | ArrayBufferView) {
    this.#hash = secret === undefined ? createHash("sha256") : createHmac("sha256", secret as Buffer);
  }

  update(data: string | Uint8Array): void {
    this.#hash.update(data);
  }

  digest(): Promise<Uint8Array> {
    return Promise.resolve(this.#hash.digest());
  }
}

async function both(
  t: TestContext,
  dialect: FixtureOptions["dialect"] = {},
): Promise<{ cloud: FakeCloud; fixture: Fixture }> {
  const cloud = await startFakeCloud(t);
  return { cloud, fixture: await startFixture(t, { services: upstreams(cloud.endpoint), dialect }) };
}

test("no operation that makes, changes or removes something counts as a read", async () => {
  for (const name of ["ec2", "elasticloadbalancing", "autoscaling"] as const) {
    const { operations } = await awsService(name);
    for (const { name: operation, readOnly } of operations.values()) {
      const changes = /^(?:Create|Delete|Modify|Run|Terminate|Attach|Detach|Associate|Disassociate|Put|Set)/;
      if (changes.test(operation)) assert.equal(readOnly, false, operation);
    }
  }
});

test("the journal's input has the user data and no secret member", async () => {
  const { operations } = await awsService("ec2");
  const vpn = operations.get("CreateVpnConnection");
  const run = operations.get("RunInstances");
  assert.ok(vpn !== undefined && run !== undefined);
  const tunnels = [
    { PreSharedKey: "secret-1", TunnelInsideCidr: "169.254.0.0/30" },
    { PreSharedKey: "secret-2" },
  ];
  const kept = withoutSecrets(vpn, { Type: "ipsec.1", Options: { TunnelOptions: tunnels } });
  assert.deepEqual(kept, {
    Type: "ipsec.1",
    Options: { TunnelOptions: [{ TunnelInsideCidr: "169.254.0.0/30" }, {}] },
  });
  assert.deepEqual(withoutSecrets(run, { UserData: "aGk=", MinCount: 1 }), { UserData: "aGk=", MinCount: 1 });
});

test("an operation beyond this release's model passes only where that is allowed, recorded raw and as a gap", async (t) => {
  const { cloud, fixture } = await both(t, { passUnknownOperations: true });
  const answer = await fixture.call({ Action: "MakeCoffee", Cups: "2", AdminPassword: "hush" });
  assert.equal(answer.status, 200);
  assert.equal(cloud.received[0]?.parameters.get("AdminPassword"), "hush");
  const [entry] = await fixture.journal.read(shop, 0, 10);
  assert.deepEqual(entry?.intent.input, { Cups: "2", AdminPassword: "***" });
  assert.equal(entry.outcome?.gaps[0]?.code, "operation.untranslated");
});

test("parameters beyond this release's model are forwarded and become a gap", async (t) => {
  const { cloud, fixture } = await both(t);
  const run = { Action: "RunInstances", ImageId: "ami-1", MinCount: "1", MaxCount: "1" };
  assert.equal((await fixture.call({ ...run, QuantumMode: "on" })).status, 200);
  assert.equal(cloud.received[0]?.parameters.get("QuantumMode"), "on");
  const [entry] = await fixture.journal.read(shop, 0, 10);
  assert.ok(
    entry?.outcome?.gaps.some(
      ({ code, message }) => code === "field.untranslated" && message.includes("QuantumMode"),
    ),
  );
});

test("STS tells who one is and hands out nothing; load balancers are recorded as a gap", async (t) => {
  const { cloud, fixture } = await both(t);
  const identity = await fixture.call(
    { Action: "GetCallerIdentity", Version: "2011-06-15" },
    { service: "sts" },
  );
  assert.equal(identity.status, 200);
  assert.match(String(cloud.received[0]?.headers.authorization), /\/sts\/aws4_request/);
  for (const Action of ["AssumeRole", "GetFederationToken", "GetSessionToken"]) {
    const refused = await fixture.call({ Action, Version: "2011-06-15" }, { service: "sts" });
    assert.deepEqual([refused.status, refused.code], [403, "AccessDenied"]);
  }
  cloud.reply = (_received, response) =>
    void response.end("<CreateTargetGroupResponse><CreateTargetGroupResult/></CreateTargetGroupResponse>");
  const made = await fixture.call(
    { Action: "CreateTargetGroup", Name: "web", Version: "2015-12-01" },
    { service: "elasticloadbalancing" },
  );
  assert.equal(made.status, 200);
  const [entry] = await fixture.journal.read(shop, 0, 10);
  assert.deepEqual(
    entry?.outcome?.gaps.map(({ code, operation }) => [code, operation]),
    [["operation.untranslated", "elasticloadbalancing:CreateTargetGroup"]],
  );
});

test("a presigned GET is taken, and goes on as a signed POST without the caller's signature", async (t) => {
  const { cloud, fixture } = await both(t);
  const { gateway, key } = fixture;
  const signer = new SignatureV4({
    service: "ec2",
    region,
    credentials: { accessKeyId: key.id, secretAccessKey: key.secret.reveal() },
    sha256: NodeSha256,
  });
  const { hostname, port } = new URL(gateway.address);
  const signed = await signer.presign({
    method: "GET",
    protocol: "http:",
    hostname,
    port: Number(port),
    path: "/",
    query: { Action: "DescribeVpcs", Version: "2016-11-15" },
    headers: { host: `${hostname}:${port}` },
  });
  const query = new URLSearchParams(signed.query as Record<string, string>).toString();
  const answer = await send(`${gateway.address}/?${query.replaceAll("+", "%20")}`);
  assert.equal(answer.statusCode, 200, await answer.body.text());
  const [received] = cloud.received;
  assert.equal(received?.action, "DescribeVpcs");
  assert.equal(received.url, "/");
  assert.deepEqual([...received.parameters.keys()], ["Action", "Version"]);
});
