import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import { Secret } from "#kernel/secret.ts";
import { decodeQueryRequest } from "./query-decode.ts";
import { encodeQueryRequest } from "./query-encode.ts";
import { peekAction } from "./query-parameters.ts";
import { awsService } from "./service-model.ts";
import { type SigV4Request, signSigV4, verifySigV4 } from "./sigv4.ts";
import { canonicalTimestamp } from "./timestamp-text.ts";
import { decodeQueryError, decodeQueryResponse } from "./xml-decode.ts";
import { encodeQueryError, encodeQueryResponse } from "./xml-encode.ts";

const ec2 = await awsService("ec2");
const elb = await awsService("elasticloadbalancing");
const run = ec2.operations.get("RunInstances");
const describe = ec2.operations.get("DescribeInstances");
assert.ok(run && describe);

/** Any text that has a UTF-8 form, control characters among it. */
const text = fc.string({ unit: "binary" }).map((value) => value.toWellFormed());

/** XML 1.0 cannot hold these; they arrive as U+FFFD. */
// oxlint-disable-next-line no-control-regex
const notXml = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/g;

void test("a request survives encoding, whatever its text", () => {
  const input = fc.record(
    {
      ImageId: text,
      MinCount: fc.maxSafeInteger(),
      EbsOptimized: fc.boolean(),
      SecurityGroupIds: fc.array(text, { minLength: 1 }),
      TagSpecifications: fc.array(
        fc.record({
          ResourceType: text,
          Tags: fc.array(fc.record({ Key: text, Value: text }), { minLength: 1 }),
        }),
        { minLength: 1 },
      ),
    },
    { requiredKeys: [] },
  );
  fc.assert(
    fc.property(input, (value) => {
      const body = encodeQueryRequest(ec2, run, value);
      assert.equal(peekAction(body), "RunInstances");
      assert.equal(JSON.stringify(decodeQueryRequest(ec2, body).input), JSON.stringify(value));
      const parsed = decodeQueryRequest(ec2, new URLSearchParams(body)).input;
      assert.equal(JSON.stringify(parsed), JSON.stringify(value));
    }),
  );
});

void test("the order of parameters does not matter", () => {
  fc.assert(
    fc.property(
      fc.array(text, { minLength: 2, maxLength: 12 }),
      fc.infiniteStream(fc.nat()),
      (ids, numbers) => {
        const parts = encodeQueryRequest(ec2, describe, { InstanceIds: ids }).split("&");
        const shuffled = parts
          .map((part) => [numbers.next().value ?? 0, part] as const)
          .sort(([a], [b]) => a - b)
          .map(([, part]) => part);
        assert.deepEqual(decodeQueryRequest(ec2, shuffled.join("&")).input, { InstanceIds: ids });
      },
    ),
  );
});

void test("an answer survives XML, save what XML cannot hold", () => {
  fc.assert(
    fc.property(text, fc.array(text), (token, names) => {
      const output = {
        NextToken: token,
        Reservations: [{ Groups: names.map((name) => ({ GroupName: name })) }],
      };
      const back = decodeQueryResponse(ec2, describe, encodeQueryResponse(ec2, describe, output, "id"));
      assert.deepEqual(
        back,
        JSON.parse(JSON.stringify(output), (_key, value: unknown) =>
          typeof value === "string" ? value.replace(notXml, "\ufffd") : value,
        ),
      );
    }),
  );
});

void test("an error survives either protocol", () => {
  const code = fc.stringMatching(/^[A-Za-z.]{1,30}$/);
  fc.assert(
    fc.property(
      code,
      text,
      fc.constantFrom(ec2, elb),
      fc.integer({ min: 400, max: 599 }),
      (code, message, service, status) => {
        const xml = encodeQueryError(service, { code, message, requestId: "r", status });
        assert.deepEqual(decodeQueryError(xml), {
          code,
          message: message.replace(notXml, "\ufffd"),
          requestId: "r",
        });
      },
    ),
  );
});

void test("the one form of a time is that of the Date", () => {
  fc.assert(
    fc.property(fc.date({ min: new Date(0), max: new Date(4e12), noInvalidDate: true }), (date) => {
      assert.equal(canonicalTimestamp(date.toISOString()), date.toISOString());
      assert.equal(canonicalTimestamp(date.toISOString().replace("Z", "+00:00")), date.toISOString());
    }),
  );
});

void test("what is signed verifies, and nothing else does", () => {
  const word = fc.stringMatching(/^[\x21-\x7e]{1,20}$/);
  const query = fc.array(fc.tuple(text, text), { maxLength: 5 });
  const arbitrary = fc.record({
    segments: fc.array(text),
    query,
    body: fc.uint8Array(),
    extra: word,
    secret: word,
    token: fc.option(word),
  });
  const scope = { region: "eu-west-1", service: "ec2" };
  fc.assert(
    fc.property(
      arbitrary,
      fc.date({ min: new Date(0), max: new Date(4e12), noInvalidDate: true }),
      (made, date) => {
        const path = `/${made.segments
          .map(encodeURIComponent)
          .filter((part) => part !== "" && !/^\.+$/.test(part))
          .join("/")}`;
        const search = made.query
          .filter(([key]) => !key.startsWith("X-Amz-"))
          .map((pair) => pair.map(encodeURIComponent).join("="));
        const headers = { host: "h.test", "x-amz-extra": made.extra };
        const request: SigV4Request = {
          method: "POST",
          path: `${path}?${search.join("&")}`,
          headers,
          body: made.body,
        };
        const key = {
          secretAccessKey: new Secret(made.secret),
          sessionToken: made.token === null ? undefined : new Secret(made.token),
        };
        const now = date.getTime();
        const signed = {
          ...request,
          headers: { ...headers, ...signSigV4(request, { accessKeyId: "K", ...key }, scope, now) },
        };
        const verify = (given: SigV4Request) => verifySigV4(given, () => key, { now, ...scope }).ok;
        assert.equal(verify(signed), true);
        assert.equal(verify({ ...signed, body: Buffer.concat([made.body, Buffer.from("x")]) }), false);
        assert.equal(verify({ ...signed, path: `${signed.path}&x=` }), false);
        assert.equal(verify({ ...signed, path: `/x${signed.path}` }), false);
        assert.equal(verify({ ...signed, method: "PUT" }), false);
        assert.equal(
          verify({ ...signed, headers: { ...signed.headers, "x-amz-extra": `${made.extra}x` } }),
          false,
        );
        assert.equal(verify({ ...signed, headers: { ...signed.headers, host: "other.test" } }), false);
      },
    ),
  );
});
