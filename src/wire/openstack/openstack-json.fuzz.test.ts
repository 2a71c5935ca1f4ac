/** Hostile bodies: a decoded value or a declared refusal, never anything else. FUZZ_RUNS raises the number of inputs. */
import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import { z } from "zod";
import { volumeSchema, volumesResponseSchema } from "./cinder.ts";
import { imagesResponseSchema } from "./glance.ts";
import { tokenRequestSchema, tokenResponseSchema } from "./keystone.ts";
import {
  floatingIpsResponseSchema,
  networksResponseSchema,
  portsResponseSchema,
  routersResponseSchema,
  securityGroupsResponseSchema,
  subnetsResponseSchema,
} from "./neutron.ts";
import {
  flavorsResponseSchema,
  serverCreateSchema,
  serverResponseSchema,
  serversResponseSchema,
} from "./nova.ts";
import { openstackChanges } from "./openstack-changes.ts";
import { decodeOpenstackError } from "./openstack-errors.ts";
import { decodeBody } from "./openstack-json.ts";
import { serverFromBody, volumeFromBody } from "./openstack-resources.ts";
import { errorFixtures, exchangeFixtures } from "./recorded.fixture.ts";

const numRuns = Number(process.env["FUZZ_RUNS"] ?? 20_000);
const seed = Number(process.env["FUZZ_SEED"] ?? 20_261_121);
const schemas: readonly z.ZodType[] = [
  volumesResponseSchema,
  imagesResponseSchema,
  tokenRequestSchema,
  tokenResponseSchema,
  floatingIpsResponseSchema,
  networksResponseSchema,
  portsResponseSchema,
  routersResponseSchema,
  securityGroupsResponseSchema,
  subnetsResponseSchema,
  flavorsResponseSchema,
  serverCreateSchema,
  serverResponseSchema,
  serversResponseSchema,
];

const exchanges = [...exchangeFixtures().values()];
const bodies = [
  ...exchanges
    .flatMap(({ request, response }) => [request, response])
    .filter((body) => body !== undefined)
    .map((body) => JSON.stringify(body)),
  ...errorFixtures().map(({ body }) => body),
];
const inserts = [
  '"__proto__":{"polluted":1},',
  '"constructor":{"prototype":{"polluted":1}},',
  '"\\u005f_proto__":{"polluted":1},',
  "null",
  "[",
  "{",
  '"',
  "1e999",
  "-0",
  "\\u0000",
  "\u{1f600}",
];

/** A recorded body, cut or with something put into it. */
const mutated = fc
  .tuple(fc.constantFrom(...bodies), fc.nat(), fc.nat(40), fc.constantFrom("", ...inserts))
  .map(([body, at, cut, insert]) => {
    const from = body.length === 0 ? 0 : at % body.length;
    return body.slice(0, from) + insert + body.slice(from + cut);
  });
const input = fc.oneof(
  { weight: 8, arbitrary: mutated },
  { weight: 1, arbitrary: fc.json() },
  { weight: 1, arbitrary: fc.string() },
);

function unpolluted(): void {
  assert.equal((Object.prototype as { polluted?: unknown }).polluted, undefined);
}

void test("bodies", () => {
  fc.assert(
    fc.property(input, fc.constantFrom(...schemas), (text, schema) => {
      const decoded = decodeBody(schema, text);
      if (!decoded.ok) assert.ok(decoded.reason.length > 0);
      const server = decodeBody(serverResponseSchema, text);
      if (server.ok) serverFromBody(server.value.server, { ports: [] });
      const volume = decodeBody(z.object({ volume: volumeSchema }), text);
      if (volume.ok) volumeFromBody(volume.value.volume);
      unpolluted();
    }),
    { numRuns, seed },
  );
});

void test("errors", () => {
  fc.assert(
    fc.property(input, fc.integer({ min: 300, max: 599 }), (text, status) => {
      const error = decodeOpenstackError(status, text);
      assert.ok(error.message.length <= 2_100 && error.code.length > 0 && error.code.length <= 100);
      unpolluted();
    }),
    { numRuns, seed },
  );
});

void test("acknowledged changes", async () => {
  const path = fc.oneof(fc.constantFrom(...exchanges.map((one) => one.path)), fc.webPath(), fc.string());
  const body = input.map((text) => {
    const decoded = decodeBody(z.unknown(), text);
    return decoded.ok ? decoded.value : undefined;
  });
  const prefix = fc.constantFrom("", "/v2.1", "/v2.0", "/v3");
  const method = fc.constantFrom("POST", "PUT", "DELETE", "PATCH");
  await fc.assert(
    fc.asyncProperty(
      method,
      prefix,
      path,
      body,
      body,
      body,
      async (verb, version, rest, request, response, looked) => {
        const effect = await openstackChanges(
          {
            method: verb,
            path: `${version}${rest}`,
            requestBody: request,
            responseBody: response,
            status: 200,
          },
          { get: async () => looked },
        );
        assert.ok(Array.isArray(effect.changes) && Array.isArray(effect.gaps));
        for (const gap of effect.gaps) assert.ok((gap.operation ?? "").length < 700);
        unpolluted();
      },
    ),
    { numRuns, seed },
  );
});

void test("size and depth", () => {
  const deep = `${'{"a":'.repeat(200_000)}1${"}".repeat(200_000)}`;
  const decoded = decodeBody(serversResponseSchema, deep);
  assert.equal(decoded.ok, false);
  assert.equal(decodeOpenstackError(500, "<".repeat(500_000)).status, 500);
  assert.equal(decodeBody(z.unknown(), " ".repeat(33 * 1024 * 1024)).ok, false);
});
