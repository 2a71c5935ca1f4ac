/** Whatever comes, nothing but a sealed token gets a request classified, and nothing throws. */
import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import { systemClock } from "#kernel/clock.ts";
import { environmentId } from "#kernel/ids.ts";
import { systemRandom } from "#kernel/random.ts";
import { Secret } from "#kernel/secret.ts";
import type { AccessKeyWithSecret } from "#gateway/access-keys.ts";
import type { GatewayRequest, UpstreamService } from "#gateway/dialect.ts";
import { newTokenFacts, sealToken } from "./gateway-token.ts";
import type { OpenstackGrant, OpenstackUpstreamCredentials } from "./openstack-access.ts";
import { createOpenstackDialect } from "./openstack-dialect.ts";

const runs = Number(process.env["FUZZ_RUNS"] ?? 20_000);
const key: AccessKeyWithSecret = {
  id: "UKIAAAAAAAAAAAAAAAAA",
  environment: environmentId("shop"),
  rights: "change",
  label: "",
  createdAt: 0,
  disabledAt: null,
  secret: new Secret("s".repeat(40)),
};
const grant: OpenstackGrant = {
  token: new Secret("real-token"),
  project: { id: "0123456789abcdef0123456789abcdef", name: "real" },
  roots: new Map([
    ["compute", new URL("http://cloud:8774/")],
    ["network", new URL("http://cloud/networking")],
    ["volume", new URL("http://cloud/volume")],
  ] as const),
};
const credentials: OpenstackUpstreamCredentials = {
  kind: "openstack",
  access: { grant: () => grant, reject: () => undefined },
};
const upstream: UpstreamService = { endpoint: "http://cloud:5000", region: "r", credentials };
const upstreams = new Map([["openstack", upstream]] as const);
const dialect = createOpenstackDialect({
  keys: { refresh: () => undefined, find: (id) => (id === key.id ? key : undefined) },
  clock: systemClock,
  random: systemRandom,
});
const good = sealToken(key, newTokenFacts(systemClock.now(), 3_600_000, systemRandom));
const id = "d7a8bb86-a63f-44e1-806f-32c048d11786";

const segment = fc.oneof(
  fc.constantFrom(
    "v2.1",
    "v3",
    "v2.0",
    "auth",
    "tokens",
    "servers",
    "action",
    "os-keypairs",
    "metadata",
    id,
    "..",
    "%2e",
  ),
  fc.string({ unit: "binary-ascii", maxLength: 8 }),
);
const target = fc
  .tuple(
    fc.constantFrom("/compute", "/networking", "/volume", "/image", "/identity", "/v3", "", "/computer"),
    fc.array(segment, { maxLength: 5 }),
    fc.option(fc.string({ maxLength: 10 }), { nil: undefined }),
  )
  .map(
    ([prefix, rest, query]) =>
      `${prefix}${rest.map((one) => `/${one}`).join("")}${query === undefined ? "" : `?${query}`}`,
  );
const damaged = fc
  .tuple(fc.nat({ max: good.length - 2 }), fc.string({ unit: "binary-ascii", maxLength: 2 }))
  .map(([at, text]) => good.slice(0, at) + text + good.slice(at + 1))
  .filter((text) => text !== good);
const token = fc.oneof(
  { weight: 3, arbitrary: fc.constant<string | undefined>(good) },
  damaged,
  fc.string({ maxLength: 40 }),
  fc.constant(undefined),
);
const login = fc.record(
  {
    auth: fc.record(
      {
        identity: fc.record({
          methods: fc.array(fc.constantFrom("password", "token", "application_credential", "x"), {
            maxLength: 2,
          }),
          password: fc.record({
            user: fc.record({ name: fc.constantFrom(key.id, "x"), password: fc.string() }),
          }),
          token: fc.record({ id: fc.string() }),
          application_credential: fc.record({ id: fc.constantFrom(key.id, "x"), secret: fc.string() }),
        }),
        scope: fc.anything(),
      },
      { requiredKeys: [] },
    ),
  },
  { requiredKeys: [] },
);
const body = fc.oneof(
  fc.json({ maxDepth: 3 }).map((text) => Buffer.from(text)),
  login.map((value) =>
    Buffer.from(JSON.stringify(value, (_, one) => (typeof one === "bigint" ? 0 : one) as unknown)),
  ),
  fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes)),
  fc.constantFrom(
    Buffer.from('{"server":{"name":"a"}}'),
    Buffer.from('{"os-getConsoleOutput":{}}'),
    Buffer.from('{"__proto__":{"a":1}}'),
    Buffer.alloc(0),
  ),
);

test(`${runs} requests of any form`, async () => {
  let classified = 0;
  let refused = 0;
  const check = async (request: GatewayRequest): Promise<void> => {
    const admitted = await dialect.admit(request);
    const proof = await dialect.authenticate(request);
    const { "x-auth-token": given } = request.headers;
    if (!proof.ok) {
      refused += 1;
      assert.ok(proof.answer.status >= 400);
      assert.equal(proof.answer.headers.includes("x-subject-token"), false);
      return;
    }
    assert.equal(given, good, "only the sealed token is a proof: no secret was given");
    if (admitted !== undefined) return;
    const found = await proof.classify(upstreams);
    if (found.kind === "answer") return;
    classified += 1;
    const outgoing = found.kind === "read" ? found.outgoing : found.command.outgoing(null);
    if (found.kind === "read") assert.match(outgoing.method, /^(?:GET|HEAD|POST)$/);
    const signed = await dialect.sign("openstack", outgoing, upstream);
    assert.match(signed.path, /^\/[\x21-\x7e]*$/);
    assert.equal(signed.headers.includes(good), false, "the gateway's token does not go on");
    assert.ok(signed.origin === "http://cloud:8774" || /^\/(?:networking|volume)\//.test(signed.path));
    if (found.kind === "change") JSON.stringify(found.command.input);
  };
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"),
      target,
      token,
      fc.constantFrom("gateway:1", "[::1]:1", "a b", "", 'x"y'),
      body,
      async (method, path, given, host, content) => {
        const headers: Record<string, string> = Object.create(null);
        headers["host"] = host;
        if (given !== undefined) headers["x-auth-token"] = given;
        await check({ method, target: path, headers, body: content });
      },
    ),
    { numRuns: runs },
  );
  assert.ok(classified > runs / 200 && refused > runs / 10, `${classified} classified, ${refused} refused`);
  assert.equal(({} as { a?: number }).a, undefined);
});
