// Every operation of all four services, against the vendor's own client: what it sends is decoded here to the same
// value, under a signature that verifies here, and what is encoded here it reads back as the same value.
import assert from "node:assert/strict";
import { Readable } from "node:stream";
import { test } from "node:test";
import { AutoScalingClient } from "@aws-sdk/client-auto-scaling";
import { EC2Client } from "@aws-sdk/client-ec2";
import { ElasticLoadBalancingV2Client } from "@aws-sdk/client-elastic-load-balancing-v2";
import { STSClient } from "@aws-sdk/client-sts";
import { HttpResponse } from "@smithy/core/protocols";
import { Secret } from "#kernel/secret.ts";
import { decodeQueryRequest } from "./query-decode.ts";
import { encodeQueryRequest } from "./query-encode.ts";
import { type AwsServiceName, awsService } from "./service-model.ts";
import { sampleValue, seededFraction } from "./shape-sample.ts";
import { type SigV4Request, type SigV4Verdict, verifySigV4 } from "./sigv4.ts";
import { decodeQueryError, decodeQueryResponse } from "./xml-decode.ts";
import { encodeQueryError, encodeQueryResponse } from "./xml-encode.ts";

interface Wire {
  body: string;
  verdict: SigV4Verdict | undefined;
  answer: { status: number; xml: string };
}

const key = { secretAccessKey: new Secret("a secret") };

function clientOptions(wire: Wire): object {
  return {
    region: "eu-central-1",
    endpoint: "http://127.0.0.1:1",
    credentials: { accessKeyId: "AKIDEXAMPLE", secretAccessKey: key.secretAccessKey.reveal() },
    maxAttempts: 1,
    requestHandler: {
      metadata: { handlerProtocol: "http/1.1" },
      handle: (request: SigV4Request & { body: string }) => {
        wire.body = request.body;
        wire.verdict = verifySigV4(request, (id) => (id === "AKIDEXAMPLE" ? key : undefined), {
          now: Date.now(),
        });
        const { status, xml } = wire.answer;
        const response = new HttpResponse({
          statusCode: status,
          headers: {},
          body: Readable.from([Buffer.from(xml)]),
        });
        return Promise.resolve({ response });
      },
      destroy: () => undefined,
      updateHttpClientConfig: () => undefined,
      httpHandlerConfigs: () => ({}),
    },
  };
}

const vendors: Record<
  AwsServiceName,
  { module: () => Promise<object>; client: (wire: Wire) => object; count: number }
> = {
  ec2: {
    module: () => import("@aws-sdk/client-ec2"),
    client: (wire) => new EC2Client(clientOptions(wire)),
    count: 823,
  },
  elasticloadbalancing: {
    module: () => import("@aws-sdk/client-elastic-load-balancing-v2"),
    client: (wire) => new ElasticLoadBalancingV2Client(clientOptions(wire)),
    count: 51,
  },
  autoscaling: {
    module: () => import("@aws-sdk/client-auto-scaling"),
    client: (wire) => new AutoScalingClient(clientOptions(wire)),
    count: 68,
  },
  sts: {
    module: () => import("@aws-sdk/client-sts"),
    client: (wire) => new STSClient(clientOptions(wire)),
    count: 11,
  },
};

/** The client calls these without credentials: the input is the proof. */
const unsigned = new Set(["AssumeRoleWithSAML", "AssumeRoleWithWebIdentity"]);

type Send = (command: object) => Promise<Record<string, unknown>>;
type CommandClass = new (input: unknown) => object;

for (const [name, vendor] of Object.entries(vendors) as [
  AwsServiceName,
  (typeof vendors)[AwsServiceName],
][]) {
  void test(`${name}: every operation round-trips with the vendor's client`, async () => {
    const service = await awsService(name);
    assert.ok(service.operations.size >= vendor.count, `${service.operations.size} operations`);
    const commands = (await vendor.module()) as Record<string, CommandClass>;
    const wire: Wire = { body: "", verdict: undefined, answer: { status: 200, xml: "" } };
    const client = vendor.client(wire) as { send: Send };
    let seed = 1;
    for (const operation of service.operations.values()) {
      const Command = commands[`${operation.name}Command`];
      assert.ok(Command, operation.name);
      seed += 1;
      const input = sampleValue(operation.input, seededFraction(seed), "client") ?? {};
      const plainInput = sampleValue(operation.input, seededFraction(seed), "plain") ?? {};
      const output = sampleValue(operation.output, seededFraction(seed), "client") ?? {};
      wire.answer.xml = encodeQueryResponse(service, operation, output, "request-1");

      const plainOutput = sampleValue(operation.output, seededFraction(seed), "plain") ?? {};
      const own = decodeQueryResponse(service, operation, wire.answer.xml);
      assert.deepEqual(toPrototyped(own), plainOutput, `${operation.name}: own response decoder`);

      const { $metadata, ...received } = await client.send(new Command(input));
      assert.ok($metadata, operation.name);
      if (!unsigned.has(operation.name)) {
        assert.ok(wire.verdict?.ok, `${operation.name}: ${JSON.stringify(wire.verdict)}`);
        assert.equal(wire.verdict.service, name);
      }
      assert.deepEqual(received, output, `${operation.name}: the client read another answer`);

      const decoded = decodeQueryRequest(service, wire.body);
      assert.equal(decoded.operation, operation);
      assert.deepEqual(
        toPrototyped(decoded.input),
        plainInput,
        `${operation.name}: another request was decoded`,
      );

      const ours = decodeQueryRequest(service, encodeQueryRequest(service, operation, input));
      assert.deepEqual(toPrototyped(ours.input), plainInput, `${operation.name}: own encoder`);
    }
  });

  void test(`${name}: the vendor's client reads an error`, async () => {
    const service = await awsService(name);
    const wire: Wire = { body: "", verdict: undefined, answer: { status: 400, xml: "" } };
    const commands = (await vendor.module()) as Record<string, CommandClass>;
    const operation = [...service.operations.keys()][0] ?? "";
    const Command = commands[`${operation}Command`];
    assert.ok(Command);
    const client = vendor.client(wire) as { send: Send };
    const error = { code: "Made<Up", message: "because & <why>", requestId: "r-1", status: 400 };
    wire.answer.xml = encodeQueryError(service, error);
    await assert.rejects(client.send(new Command({})), (thrown: Error) => {
      assert.equal(thrown.name, "Made<Up");
      assert.equal(thrown.message, "because & <why>");
      return true;
    });
    const { status, ...expected } = error;
    assert.equal(status, 400);
    assert.deepEqual(decodeQueryError(Buffer.from(wire.answer.xml)), expected);
  });
}

/** Decoded maps have no prototype, on purpose; the samples' have. */
function toPrototyped(value: unknown): unknown {
  return JSON.parse(JSON.stringify(value));
}
