import assert from "node:assert/strict";
import { test } from "node:test";
import type { OperationalError } from "#kernel/errors.ts";
import { checkAddresses } from "./check-addresses.ts";
import { catalogueOf, freeAddress } from "./site-settings.ts";
import { settings } from "./site.fixture.ts";

void test("addresses are given out in order, none twice, and not the first and the last of a prefix", () => {
  const taken = new Set<string>();
  const given: string[] = [];
  for (;;) {
    const address = freeAddress(["192.0.2.0/29", "192.0.2.9", "198.51.100.4/31"], taken);
    if (address === undefined) break;
    taken.add(address);
    given.push(address);
  }
  const inner = [1, 2, 3, 4, 5, 6].map((last) => `192.0.2.${last}`);
  assert.deepEqual(given, [...inner, "192.0.2.9", "198.51.100.4", "198.51.100.5"]);
});

void test("what the host offers is a catalogue", () => {
  const { types, images, zones } = catalogueOf(settings);
  assert.deepEqual(
    types.map(({ name, vcpus, memoryMiB }) => [name, vcpus, memoryMiB]),
    [
      ["small", 1, 96],
      ["large", 2, 256],
    ],
  );
  assert.deepEqual(
    images.map(({ id, name }) => [id, name]),
    [
      ["kernel", "kernel"],
      ["disk", "disk"],
    ],
  );
  assert.deepEqual(zones, []);
});

void test("an address that is not the host's is told at the start", async () => {
  await checkAddresses({ ...settings, addresses: ["127.60.0.0/24"] });
  // TEST-NET-1 (RFC 5737): nobody's.
  await assert.rejects(
    checkAddresses({ ...settings, addresses: ["127.0.0.1", "192.0.2.0/24"] }),
    (error: OperationalError) => {
      assert.equal(error.code, "config.invalid");
      assert.match(error.message, /no address 192\.0\.2\.1/u);
      return true;
    },
  );
});
