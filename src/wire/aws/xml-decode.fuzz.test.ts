// Whatever a server answers: a decoded value, an AwsProtocolError, or (errors) undefined; nothing else.
import assert from "node:assert/strict";
import { test } from "node:test";
import { AwsProtocolError } from "./aws-protocol-error.ts";
import { fuzz, mutated, noise, pick } from "./fuzz-mutation.ts";
import { type AwsOperation, type AwsService, awsService, awsServiceNames } from "./service-model.ts";
import { type Fraction, sampleValue, seededFraction } from "./shape-sample.ts";
import { decodeQueryError, decodeQueryResponse } from "./xml-decode.ts";
import { encodeQueryError, encodeQueryResponse } from "./xml-encode.ts";

const services = await Promise.all(awsServiceNames.map((name) => awsService(name)));

type Answer = readonly [AwsService, AwsOperation, string];

const valid: readonly Answer[] = services.flatMap((service) =>
  [...service.operations.values()]
    .map((operation, index): Answer => {
      const output = sampleValue(operation.output, seededFraction(index), "plain") ?? {};
      return [service, operation, encodeQueryResponse(service, operation, output, "id")];
    })
    .filter(([, , xml]) => xml.length < 4000),
);

const tokens = [
  ..."<>/&;'\"= \n".split(""),
  "<!--",
  "-->",
  "<![CDATA[",
  "]]>",
  "<?xml",
  "?>",
  "<!DOCTYPE a [<!ENTITY b 'c'>]>",
  "&b;",
  "&amp;",
  "&#x41;",
  "&#xd800;",
  "&#99999999;",
  "<item>",
  "</item>",
  "<member>",
  "<entry><key>__proto__</key><value>x</value></entry>",
  "<__proto__>",
  "<a b='c'/>",
  "<Error><Code>x</Code></Error>",
  "<a>".repeat(70),
  "\u0000",
  "\ud800",
];

function damaged(text: string, fraction: Fraction): string {
  const kind = fraction();
  if (kind < 0.1) return noise(tokens, fraction);
  if (kind < 0.2) return text.slice(0, Math.floor(fraction() * text.length));
  return mutated(text, tokens, fraction);
}

void test("fuzz: answers", () => {
  const prototype = Object.getOwnPropertyNames(Object.prototype).length;
  let accepted = 0;
  let refused = 0;
  fuzz((fraction) => {
    const [service, operation, xml] = pick(fraction, valid);
    try {
      const output = decodeQueryResponse(service, operation, damaged(xml, fraction));
      accepted += 1;
      // What was decoded is an output: it encodes, and decodes to itself.
      const text = encodeQueryResponse(service, operation, output, "id");
      const again = decodeQueryResponse(service, operation, text);
      assert.equal(encodeQueryResponse(service, operation, again, "id"), text);
    } catch (error) {
      if (!(error instanceof AwsProtocolError)) throw error;
      assert.equal(error.code, "MalformedResponse");
      refused += 1;
    }
  });
  assert.equal(Object.getOwnPropertyNames(Object.prototype).length, prototype);
  if (accepted + refused >= 10_000) assert.ok(accepted > 500 && refused > 500, `${accepted} / ${refused}`);
});

void test("fuzz: error answers, as text and as bytes", () => {
  const error = { code: "Throttling", message: "slow & <down>", requestId: "r-1", status: 503 };
  const bodies = [
    ...services.map((service) => encodeQueryError(service, error)),
    "<html><head><title>502 Bad Gateway</title></head><body><center><h1>502</h1></center><hr>x</body></html>",
    '{"__type":"Throttling","message":"x"}',
  ];
  fuzz((fraction) => {
    const text = damaged(pick(fraction, bodies), fraction);
    const bytes = Buffer.from(text);
    for (let flip = Math.floor(fraction() * 3); flip > 0 && bytes.length > 0; flip -= 1) {
      bytes[Math.floor(fraction() * bytes.length)] = Math.floor(fraction() * 256);
    }
    for (const body of [text, bytes]) {
      const decoded = decodeQueryError(body);
      if (decoded === undefined) continue;
      assert.ok(decoded.code.length > 0);
      assert.equal(typeof decoded.message, "string");
    }
  });
});
