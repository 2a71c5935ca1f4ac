// No request that differs from the signed one in method, path, query, signed headers, body, time or key ever verifies.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Secret } from "#kernel/secret.ts";
import { fuzz, mutated, noise, pick } from "./fuzz-mutation.ts";
import type { Fraction } from "./shape-sample.ts";
import { bodyHash, canonicalQuery, canonicalRequest, splitTarget } from "./sigv4-canonical.ts";
import { signature } from "./sigv4-key.ts";
import { type SigV4Request, signSigV4, verifySigV4 } from "./sigv4.ts";

const now = Date.UTC(2026, 0, 2, 3, 4, 5);
const scope = { region: "eu-central-1", service: "ec2" };
const secret = new Secret("right");
const keys = new Map([
  ["AKIDRIGHT", { secretAccessKey: secret }],
  ["AKIDOTHER", { secretAccessKey: new Secret("other") }],
]);

interface Mutable {
  method: string;
  path: string;
  headers: Record<string, string>;
  body: string;
}

function byHeader(): Mutable {
  const headers = {
    host: "ec2.test:8080",
    "content-type": "application/x-www-form-urlencoded",
    "x-amz-target": "a b",
  };
  const request = {
    method: "POST",
    path: "/a/b%20c?Param2=v%2B2&Param1=v1",
    headers,
    body: "Action=RunInstances&ImageId=ami-1",
  };
  const credentials = { accessKeyId: "AKIDRIGHT", secretAccessKey: secret };
  return { ...request, headers: { ...headers, ...signSigV4(request, credentials, scope, now) } };
}

function byQuery(): Mutable {
  const credential = encodeURIComponent("AKIDRIGHT/20260102/eu-central-1/ec2/aws4_request");
  const path = `/?Action=RunInstances&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=${credential}&X-Amz-Date=20260102T030405Z&X-Amz-Expires=60&X-Amz-SignedHeaders=host`;
  const canonical = canonicalRequest({
    method: "GET",
    path: "/",
    query: canonicalQuery(splitTarget(path)?.query ?? []),
    headers: [["host", "ec2.test"]],
    payloadHash: bodyHash(""),
  });
  const proof = signature(secret, { ...scope, date: "20260102" }, "20260102T030405Z", canonical).toString(
    "hex",
  );
  return { method: "GET", path: `${path}&X-Amz-Signature=${proof}`, headers: { host: "ec2.test" }, body: "" };
}

const valid = [byHeader(), byQuery()];

const tokens = [
  ..."&=?/%+,;. \t\n".split(""),
  "%2B",
  "%20",
  "%2f",
  "/../",
  "//",
  "/./",
  "__proto__",
  "AKIDOTHER",
  "us-east-1",
  "Signature=",
  "SignedHeaders=host",
  "X-Amz-Signature=0",
  "&X-Amz-Expires=99999",
  "&X-Amz-Date=20260102T030406Z",
  "20260102",
  "aws4_request",
  "UNSIGNED-PAYLOAD",
  "\u0000",
  "é",
  "\ud800",
];

// What may be added without being signed (any header but these) is none of the signature's business.
const extraHeaders = ["x-amz-date", "x-amz-security-token", "x-amz-content-sha256", "x-amz-new", "host"];

/** Well-formed, but another time, scope, key or signature. */
function otherDigit(text: string, fraction: Fraction): string {
  const digits = [...text.matchAll(/[0-9]/g)].map((match) => match.index);
  if (digits.length === 0) return text;
  const at = pick(fraction, digits);
  return `${text.slice(0, at)}${(Number(text[at]) + 1 + Math.floor(fraction() * 9)) % 10}${text.slice(at + 1)}`;
}

function tampered(original: Mutable, fraction: Fraction): Mutable {
  const copy: Mutable = { ...original, headers: { ...original.headers } };
  const names = Object.keys(copy.headers);
  for (let edits = 1 + Math.floor(fraction() * 2); edits > 0; edits -= 1) {
    const kind = fraction();
    if (kind < 0.05) {
      copy.path = otherDigit(copy.path, fraction);
      copy.headers["x-amz-date"] &&= otherDigit(copy.headers["x-amz-date"], fraction);
    } else if (kind < 0.08)
      copy.headers["authorization"] &&= otherDigit(copy.headers["authorization"], fraction);
    else if (kind < 0.1) copy.method = pick(fraction, ["GET", "POST", "PUT", "get", "", "POST\nX"]);
    else if (kind < 0.3) copy.path = mutated(copy.path, tokens, fraction);
    else if (kind < 0.45) copy.body = mutated(copy.body, tokens, fraction);
    else if (kind < 0.8) {
      const name = pick(fraction, names);
      copy.headers[name] = mutated(copy.headers[name] ?? "", tokens, fraction);
    } else if (kind < 0.88) delete copy.headers[pick(fraction, names)];
    else if (kind < 0.95) copy.headers[pick(fraction, extraHeaders)] = noise(tokens, fraction);
    else copy.headers["authorization"] = noise(tokens, fraction);
  }
  return copy;
}

/**
 * What a request says, independent of the code under test: two texts of one meaning (blanks folded in headers, another
 * percent-encoding, parameters in another order) are one request. Header names are all signed here.
 */
function meaning(request: SigV4Request): string {
  const [path = "", ...rest] = request.path.split("?");
  const query = [...new URLSearchParams(rest.join("?"))].map((pair) =>
    pair.map((part) => part.toWellFormed()),
  );
  const headers = Object.entries(request.headers)
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => {
      const folded = String(value).trim().replace(/\s+/g, " ");
      const parts = folded.split(",").map((part) => part.trim());
      return [name, name === "authorization" ? parts.sort().join(",") : folded.toWellFormed()];
    });
  return JSON.stringify([
    request.method,
    path.toWellFormed(),
    query.map(String).sort(),
    headers.map(String).sort(),
    request.body.toString().toWellFormed(),
  ]);
}

const meanings = new Map(valid.map((request) => [request, meaning(request)]));

void test("fuzz: no tampered request verifies", () => {
  for (const request of valid)
    assert.equal(verifySigV4(request, (id) => keys.get(id), { now, ...scope }).ok, true);
  const codes = new Map<string, number>();
  let unchanged = 0;
  fuzz((fraction) => {
    const original = pick(fraction, valid);
    const request = tampered(original, fraction);
    const verdict = verifySigV4(request, (id) => keys.get(id), { now });
    if (meaning(request) === meanings.get(original)) {
      unchanged += 1;
      return;
    }
    assert.equal(verdict.ok, false, JSON.stringify(request));
    if (!verdict.ok) codes.set(verdict.reason, (codes.get(verdict.reason) ?? 0) + 1);
  });
  const total = [...codes.values()].reduce((sum, count) => sum + count, 0);
  if (total < 10_000) return;
  assert.ok(unchanged < total / 10, `${unchanged} of ${total} unchanged`);
  for (const reason of ["malformed", "expired", "scope", "body", "unknown_key", "signature"]) {
    assert.ok(
      (codes.get(reason) ?? 0) > 0,
      `nothing was refused for ${reason}: ${JSON.stringify([...codes])}`,
    );
  }
});

void test("fuzz: another key, secret, time or scope never verifies", () => {
  fuzz((fraction) => {
    const original = pick(fraction, valid);
    const kind = Math.floor(fraction() * 4);
    const other = { secretAccessKey: new Secret(`wrong ${fraction()}`) };
    const skew = (fraction() < 0.5 ? -1 : 1) * (300_001 + Math.floor(fraction() * 1e10));
    const verdict = [
      () => verifySigV4(original, () => other, { now }),
      () => verifySigV4(original, () => undefined, { now }),
      () => verifySigV4(original, (id) => keys.get(id), { now: now + skew }),
      () => verifySigV4(original, (id) => keys.get(id), { now, region: `r${Math.floor(fraction() * 1e6)}` }),
    ][kind]?.();
    assert.equal(verdict?.ok, false);
  });
});
