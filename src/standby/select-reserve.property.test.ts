import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import { EnvironmentState } from "#model/environment-state.ts";
import type { ReservePolicy } from "#model/policy.ts";
import type { Resource } from "#model/resource.ts";
import { referencesOf } from "#model/resource.ts";
import { resourceKey } from "#model/environment-state.ts";
import { shopEnvironment } from "#testing/shop-environment.ts";
import { selectReserve } from "./select-reserve.ts";

const policyOf = (ratio: number, minimumPerGroup: number): ReservePolicy => ({
  servers: { mode: "ratio", ratio, minimumPerGroup, groupBy: "tier" },
  onlyTags: {},
  smallerTypes: false,
  volumes: "with_servers",
});

const ratios = fc.double({ min: 0.01, max: 1, noNaN: true });
const counts = fc.integer({ min: 0, max: 60 });

function serversOf(keys: ReadonlySet<string>): Set<string> {
  return new Set([...keys].filter((key) => key.startsWith("server:")));
}

function tierSizes(resources: Iterable<Resource>, keys?: ReadonlySet<string>): Map<string, number> {
  const sizes = new Map<string, number>();
  for (const { kind, id, tags } of resources) {
    if (kind !== "server" || (keys !== undefined && !keys.has(resourceKey(kind, id)))) continue;
    const tier = tags["tier"] ?? "";
    sizes.set(tier, (sizes.get(tier) ?? 0) + 1);
  }
  return sizes;
}

test("each group has its share, at least its minimum, and never a server more", () => {
  fc.assert(
    fc.property(counts, ratios, fc.nat(5), (servers, ratio, minimum) => {
      const shop = shopEnvironment({ servers, volumeEvery: 2 });
      const keys = selectReserve(EnvironmentState.of(shop), policyOf(ratio, minimum));
      const held = tierSizes(shop, keys);
      for (const [tier, size] of tierSizes(shop)) {
        const least = Math.min(size, Math.max(minimum, ratio * size - 1e-6));
        const most = Math.min(size, Math.max(minimum, ratio * size + 1));
        const count = held.get(tier) ?? 0;
        assert.ok(count >= least && count <= most, `${tier}: ${count} of ${size} at ${ratio}`);
      }
    }),
  );
});

test("what is held has everything that it refers to", () => {
  fc.assert(
    fc.property(counts, ratios, (servers, ratio) => {
      const shop = shopEnvironment({ servers, volumeEvery: 2 });
      const keys = selectReserve(EnvironmentState.of(shop), policyOf(ratio, 0));
      for (const one of shop.filter(({ kind, id }) => keys.has(resourceKey(kind, id)))) {
        for (const end of referencesOf(one)) assert.ok(keys.has(resourceKey(end.kind, end.id)), one.id);
      }
    }),
  );
});

test("growing adds members and shrinking takes some away; none is swapped for another", () => {
  fc.assert(
    fc.property(counts, counts, ratios, (before, after, ratio) => {
      const policy = policyOf(ratio, 1);
      const held = serversOf(
        selectReserve(EnvironmentState.of(shopEnvironment({ servers: before })), policy),
      );
      const shop = shopEnvironment({ servers: after });
      const next = serversOf(selectReserve(EnvironmentState.of(shop), policy, held));
      const stillThere = new Set([...held].filter((key) => shop.some(({ id }) => key === `server:${id}`)));
      const kept = [...stillThere].filter((key) => next.has(key));
      for (const [tier, size] of tierSizes(shop, next)) {
        const candidates = [...stillThere].filter((key) =>
          shop.some(({ id, tags }) => key === `server:${id}` && tags["tier"] === tier),
        );
        const stayed = candidates.filter((key) => kept.includes(key)).length;
        assert.equal(stayed, Math.min(candidates.length, size), tier);
      }
    }),
  );
});

test("servers without the tags have no reserve; no ratio means no servers but all that is free", () => {
  const shop = shopEnvironment({ servers: 9, volumeEvery: 1 });
  const state = EnvironmentState.of(shop);
  const web = selectReserve(state, { ...policyOf(1, 0), onlyTags: { tier: "web" } });
  assert.deepEqual(tierSizes(shop, web), new Map([["web", 3]]));
  const none = selectReserve(state, { ...policyOf(1, 0), servers: { mode: "none" } });
  const kinds = new Set(
    shop.filter(({ kind, id }) => none.has(resourceKey(kind, id))).map(({ kind }) => kind),
  );
  assert.deepEqual(kinds, new Set(["network", "subnet", "securityGroup", "securityGroupRule", "keyPair"]));
  const full = selectReserve(state, { ...policyOf(1, 0), servers: { mode: "full" } });
  assert.equal(full.size, shop.length);
});

test("a volume that comes back from the vault is not held, nor a server that has it, nor their link", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 40 }),
      ratios,
      fc.constantFrom("with_servers", "all"),
      (count, ratio, volumes) => {
        const shop = shopEnvironment({ servers: count, volumeEvery: 2 }).map((one) =>
          one.kind === "volume" ? { ...one, tags: { ...one.tags, keep: "vault" } } : one,
        );
        const policy: ReservePolicy = { ...policyOf(ratio, 1), volumes, recovered: { keep: "vault" } };
        const keys = selectReserve(EnvironmentState.of(shop), policy);
        for (const one of shop) {
          const held = keys.has(resourceKey(one.kind, one.id));
          if (one.kind === "volume" || one.kind === "volumeAttachment") assert.ok(!held, one.id);
          if (one.kind !== "volumeAttachment") continue;
          assert.ok(!keys.has(resourceKey("server", one.spec.serverId)), one.spec.serverId);
        }
      },
    ),
  );
});
