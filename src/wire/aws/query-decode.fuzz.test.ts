// Whatever arrives as a form body: a decoded value or an AwsProtocolError, nothing else, and nothing polluted.
import assert from "node:assert/strict";
import { test } from "node:test";
import { AwsProtocolError } from "./aws-protocol-error.ts";
import { fuzz, mutated, noise, pick } from "./fuzz-mutation.ts";
import { decodeQueryRequest } from "./query-decode.ts";
import { encodeQueryRequest } from "./query-encode.ts";
import { peekAction } from "./query-parameters.ts";
import { type AwsService, awsService, awsServiceNames } from "./service-model.ts";
import { type Fraction, sampleValue, seededFraction } from "./shape-sample.ts";

const services = await Promise.all(awsServiceNames.map((name) => awsService(name)));

/** Valid bodies to start from: small enough to damage quickly, of all services. */
const valid: readonly (readonly [AwsService, string])[] = services.flatMap((service) =>
  [...service.operations.values()]
    .map((operation, index) => {
      const input = sampleValue(operation.input, seededFraction(index), "plain") ?? {};
      return [service, encodeQueryRequest(service, operation, input)] as const;
    })
    .filter(([, body]) => body.length < 4000),
);

const tokens = [
  ..."&=.%+".split(""),
  "&Action=RunInstances",
  "&Action=CreateRule",
  "&%41ction=x",
  "__proto__",
  "constructor",
  "prototype",
  ".member.1",
  ".entry.1.key=",
  ".entry.1.value=",
  ".1",
  ".0",
  ".999999999",
  ".-1",
  "%00",
  "%ff",
  "%F0%9F%98%80",
  "&ImageId=a",
  "&TagSpecification.1.Tag.1.Key=",
  "&SecurityGroupId.1=",
  "&Version=",
  "true",
  "1e309",
  "9007199254740993",
  "\ud800",
  "\u0000",
];

function bodyOf(fraction: Fraction): readonly [AwsService, string] {
  const kind = fraction();
  if (kind < 0.1) return [pick(fraction, services), noise(tokens, fraction)];
  const [service, body] = pick(fraction, valid);
  if (kind < 0.2) return [service, body.slice(0, Math.floor(fraction() * body.length))];
  return [kind < 0.3 ? pick(fraction, services) : service, mutated(body, tokens, fraction)];
}

void test("fuzz: form bodies", () => {
  const prototype = Object.getOwnPropertyNames(Object.prototype).length;
  let accepted = 0;
  let refused = 0;
  fuzz((fraction) => {
    const [service, body] = bodyOf(fraction);
    const keep = fraction() < 0.5;
    try {
      const decoded = decodeQueryRequest(service, body, { unknownParameters: keep ? "keep" : "refuse" });
      accepted += 1;
      // The read path must never take a body for another operation than the decoder does.
      assert.equal(peekAction(body), decoded.operation.name);
      // An item of which only unknown parts came is an empty structure, which no parameter can say again.
      if (Object.keys(decoded.unknown).length > 0) return;
      // What was decoded encodes and decodes to itself.
      const again = decodeQueryRequest(
        service,
        encodeQueryRequest(service, decoded.operation, decoded.input),
      );
      const sorted = JSON.stringify(decoded.input).replace(
        /[\ud800-\udfff]|\\ud[89a-f][0-9a-f]{2}/g,
        "\ufffd",
      );
      const same = JSON.stringify(again.input).replace(/[\ud800-\udfff]|\\ud[89a-f][0-9a-f]{2}/g, "\ufffd");
      assert.equal(sameMembers(same), sameMembers(sorted));
    } catch (error) {
      if (!(error instanceof AwsProtocolError)) throw error;
      refused += 1;
    }
  });
  assert.equal(Object.getOwnPropertyNames(Object.prototype).length, prototype);
  if (accepted + refused >= 10_000) assert.ok(accepted > 500 && refused > 500, `${accepted} / ${refused}`);
});

/** Empty structures and lists leave no parameter behind, so that they are left out of the comparison. */
function sameMembers(json: string): string {
  return JSON.stringify(JSON.parse(json), (_key, value: unknown) =>
    Array.isArray(value) && value.length === 0 ? undefined : value,
  );
}
