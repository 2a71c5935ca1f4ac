/**
 * Load balancers and scaling groups, where the cloud has them: forwarded, answered the same as without the gateway, recorded, and
 * named as what a takeover would lack.
 */
import assert from "node:assert/strict";
import { once } from "node:events";
import { type IncomingMessage, type ServerResponse, createServer, request as forward } from "node:http";
import type { AddressInfo } from "node:net";
import { type TestContext, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { decodeQueryRequest } from "#wire/aws/query-decode.ts";
import { type AwsServiceName, awsService } from "#wire/aws/service-model.ts";
import { encodeQueryError, encodeQueryResponse } from "#wire/aws/xml-encode.ts";
import { boto3Missing, openBoto3Client } from "./boto3-client.ts";
import type { Client, Endpoint } from "./client.ts";
import { assertRecorded } from "./journal-agrees.ts";
import { openJsClient } from "./js-client.ts";
import { assertSame, Session } from "./transcript.ts";
import { startTwoWays } from "./two-ways.ts";

const balancer =
  "arn:aws:elasticloadbalancing:us-east-1:000000000000:loadbalancer/app/front/0123456789abcdef";

/** By operation: what this cloud answers; undefined is an error of its own. */
const answers: Readonly<Record<string, object | undefined>> = {
  CreateLoadBalancer: {
    LoadBalancers: [{ LoadBalancerArn: balancer, LoadBalancerName: "front", Type: "application" }],
  },
  DescribeLoadBalancers: { LoadBalancers: [{ LoadBalancerArn: balancer, CreatedTime: new Date(0) }] },
  DeleteLoadBalancer: {},
  CreateAutoScalingGroup: {},
  DescribeAutoScalingGroups: { AutoScalingGroups: [] },
};

async function answer(name: AwsServiceName, body: string, response: ServerResponse): Promise<void> {
  const service = await awsService(name);
  const { operation } = decodeQueryRequest(service, body);
  const output = answers[operation.name];
  const requestId = "00000000-0000-4000-8000-000000000000";
  const status = output === undefined ? 400 : 200;
  const text =
    output === undefined
      ? encodeQueryError(service, { code: "ValidationError", message: "not today", requestId, status })
      : encodeQueryResponse(service, operation, output, requestId);
  const headers = { "content-type": "text/xml", "content-length": Buffer.byteLength(text) };
  response.writeHead(status, headers).end(text);
}

async function serve(cloud: string, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  const body = Buffer.concat(chunks);
  const [, name] =
    /\/(elasticloadbalancing|autoscaling)\/aws4_request/.exec(request.headers.authorization ?? "") ?? [];
  if (name !== undefined) {
    await answer(name as AwsServiceName, body.toString(), response);
    return;
  }
  const { method = "GET", url = "/", headers } = request;
  const onward = forward(new URL(url, cloud), { method, headers });
  onward.end(body);
  const [answered] = (await once(onward, "response")) as [IncomingMessage];
  response.writeHead(answered.statusCode ?? 502, answered.headers);
  answered.pipe(response);
}

/** A cloud with all four services: two of them its own, the rest the cloud's behind it. */
async function startFront(t: TestContext, cloud: string): Promise<string> {
  const server = createServer((request, response) => {
    serve(cloud, request, response).catch((error: unknown) => response.destroy(error as Error));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

async function manage(session: Session): Promise<void> {
  await session.done("CreateLoadBalancer", { Name: "front", Subnets: ["subnet-1", "subnet-2"] }, "elbv2");
  await session.done("DescribeLoadBalancers", { Names: ["front"] }, "elbv2");
  await session.refused("ValidationError", "CreateTargetGroup", { Name: "web" }, "elbv2");
  const group = { AutoScalingGroupName: "web", MinSize: 1, MaxSize: 3, LaunchConfigurationName: "web" };
  await session.done("CreateAutoScalingGroup", group, "autoscaling");
  await session.done("DescribeAutoScalingGroups", {}, "autoscaling");
  await session.refused(
    "ValidationError",
    "SetDesiredCapacity",
    { AutoScalingGroupName: "web", DesiredCapacity: 2 },
    "autoscaling",
  );
  await session.done("DeleteLoadBalancer", { LoadBalancerArn: balancer }, "elbv2");
  await session.done("GetCallerIdentity", {}, "sts");
}

async function forwardedAndNamed(t: TestContext, open: (endpoint: Endpoint) => Client): Promise<void> {
  await using ways = await startTwoWays({ front: (cloud) => startFront(t, cloud) });
  const direct = new Session(open(ways.direct));
  const through = new Session(open(ways.through));
  t.after(() => Promise.all([direct.client.close(), through.client.close()]));
  await Promise.all([manage(direct), manage(through)]);
  assertSame(direct.lines, through.lines);
  assertRecorded(through.lines, await ways.journal());
  const wanted = ["autoscaling:CreateAutoScalingGroup", "elasticloadbalancing:CreateLoadBalancer"];
  for (;;) {
    const answer = await fetch(`${ways.apiUrl}/v1/environments/shop/gaps`, {
      headers: { authorization: `Bearer ${ways.apiToken}` },
      signal: t.signal,
    });
    const { gaps } = (await answer.json()) as {
      gaps: readonly { code: string; severity: string; operation?: string }[];
    };
    const lost = gaps.filter(({ severity }) => severity === "lost");
    // The standby's reader follows the journal at its own pace; the test's limit bounds the wait.
    if (lost.length < wanted.length) {
      await sleep(20, undefined, { signal: t.signal });
      continue;
    }
    const named = new Set(lost.map(({ operation }) => operation));
    assert.deepEqual(named, new Set(wanted));
    assert.ok(lost.every(({ code }) => code === "operation.untranslated"));
    return;
  }
}

void test("the JS SDK: load balancers and scaling groups become named gaps", { timeout: 60_000 }, (t) =>
  forwardedAndNamed(t, (endpoint) => openJsClient(endpoint, { maxAttempts: 1 })),
);

void test(
  "boto3: load balancers and scaling groups become named gaps",
  { skip: boto3Missing(), timeout: 60_000 },
  (t) => forwardedAndNamed(t, (endpoint) => openBoto3Client(endpoint, { maxAttempts: 1 })),
);
