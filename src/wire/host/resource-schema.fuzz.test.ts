/** Whatever comes for a spec is taken as one or refused with the field's name, and never anything else. */
import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { OperationalError } from "#kernel/errors.ts";
import { resourceKinds } from "#model/resource.ts";
import { shopEnvironment } from "#testing/shop-environment.ts";
import { decodePartialSpec, decodeSpec } from "./resource-schema.ts";

void test("what an environment is made of crosses as it is", () => {
  for (const { kind, spec } of shopEnvironment({ servers: 3 })) {
    assert.deepEqual(decodeSpec(kind, JSON.parse(JSON.stringify(spec))), JSON.parse(JSON.stringify(spec)));
  }
});

void test("an unknown field, a missing one, one of another type: refused by name", () => {
  for (const [spec, where] of [
    [{ internet: true, more: 1 }, /more/u],
    [{}, /network\.internet/u],
    [{ internet: "yes" }, /network\.internet/u],
  ] as const) {
    assert.throws(
      () => decodeSpec("network", spec),
      (error: OperationalError) => {
        assert.equal(error.code, "input.invalid");
        assert.match(error.message, where);
        return true;
      },
    );
  }
  assert.deepEqual(decodePartialSpec("server", { power: "stopped" }), { power: "stopped" });
});

void test("rubbish", () => {
  const runs = process.env["FUZZ_RUNS"] === undefined ? 5000 : Number(process.env["FUZZ_RUNS"]);
  const fields = fc.constantFrom(
    "internet",
    "cidr",
    "networkId",
    "sizeGiB",
    "peer",
    "groupIds",
    "__proto__",
    "x",
  );
  const rubbish = fc.oneof(fc.anything(), fc.dictionary(fields, fc.anything()));
  fc.assert(
    fc.property(fc.constantFrom(...resourceKinds), rubbish, (kind, value) => {
      for (const decode of [decodeSpec, decodePartialSpec]) {
        try {
          decode(kind, value);
        } catch (error) {
          assert.ok(error instanceof OperationalError, String(error));
          assert.equal(error.code, "input.invalid");
        }
      }
    }),
    { numRuns: runs },
  );
});
