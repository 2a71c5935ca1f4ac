import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { resourceId } from "#kernel/ids.ts";
import { EnvironmentState, resourceKey } from "#model/environment-state.ts";
import type { Resource } from "#model/resource.ts";
import type { Pairing } from "#standby/pairings.ts";
import { counterpartIds, exchangeRoles } from "#takeover/exchange-roles.ts";
import { shopEnvironment } from "#testing/shop-environment.ts";

interface Case {
  readonly resources: readonly Resource[];
  /** By the resource's place: paired, or left without a counterpart. */
  readonly paired: readonly boolean[];
  /** Public addresses that servers were born with, which the standby has as resources of their own. */
  readonly synthetic: number;
}

const cases: fc.Arbitrary<Case> = fc
  .record({ servers: fc.integer({ min: 0, max: 8 }), synthetic: fc.integer({ min: 0, max: 3 }) })
  .chain(({ servers, synthetic }) => {
    const resources = shopEnvironment({ servers, volumeEvery: 2 });
    const paired = fc.array(fc.boolean(), { minLength: resources.length, maxLength: resources.length });
    return fc.record({ resources: fc.constant(resources), paired, synthetic: fc.constant(synthetic) });
  });

function pairingOf({ kind, id, spec, tags }: Resource): Pairing {
  return {
    kind,
    activeId: id,
    standbyId: resourceId(`west-${id}`),
    state: "paired",
    token: `token-${id}`,
    applied: { spec, tags },
    counterpart: {
      spec: { ...spec, zone: "west" } as Resource["spec"],
      tags: { ...tags, translated: "yes" },
    },
    confirmed: true,
    original: false,
  };
}

function syntheticPairing(index: number): Pairing {
  const id = resourceId(`i-${index}/public`);
  return {
    ...pairingOf({ kind: "address", id, spec: {}, tags: {} }),
    standbyId: resourceId(`fip-${index}`),
  };
}

const byKey = (pairings: readonly Pairing[]): Map<string, Pairing> =>
  new Map(pairings.map((one) => [resourceKey(one.kind, one.activeId), one]));

const sorted = (resources: Iterable<Resource>): Resource[] =>
  [...resources].toSorted((a, b) => (resourceKey(a.kind, a.id) < resourceKey(b.kind, b.id) ? -1 : 1));

function set({ resources, paired, synthetic }: Case): {
  state: EnvironmentState;
  pairings: Map<string, Pairing>;
} {
  const real = resources.filter((_, index) => paired[index]).map(pairingOf);
  const extra = Array.from({ length: synthetic }, (_, index) => syntheticPairing(index));
  return { state: EnvironmentState.of(resources), pairings: byKey([...real, ...extra]) };
}

test("exchanged twice, everything is as it was, what could not follow included", () => {
  fc.assert(
    fc.property(cases, (one) => {
      const { state, pairings } = set(one);
      const there = exchangeRoles(state, pairings, []);
      const back = exchangeRoles(
        EnvironmentState.of(there.resources),
        byKey(there.pairings),
        // What was kept apart comes back with the side that it is on.
        there.stranded,
      );
      assert.deepEqual(sorted(back.resources), sorted(state.resources()));
      assert.deepEqual(byKey(back.pairings), pairings);
      // The addresses that only the copy has as resources are left there, and known by their pairings.
      assert.deepEqual(back.stranded, []);
    }),
  );
});

test("every resource is on the new side exactly once, or is kept apart", () => {
  fc.assert(
    fc.property(cases, (one) => {
      const { state, pairings } = set(one);
      const { resources, stranded } = exchangeRoles(state, pairings, []);
      const keys = resources.map(({ kind, id }) => resourceKey(kind, id));
      assert.equal(new Set(keys).size, keys.length);
      const expected = [...pairings.values()].map(({ kind, standbyId }) =>
        resourceKey(kind, standbyId ?? ""),
      );
      assert.deepEqual(keys.toSorted(), expected.toSorted());
      assert.equal(stranded.length + pairings.size - one.synthetic, state.size);
    }),
  );
});

test("a change on the copy is what the way back sees", () => {
  const [network] = shopEnvironment({ servers: 0 });
  assert.ok(network);
  const there = exchangeRoles(EnvironmentState.of([network]), byKey([pairingOf(network)]), []);
  const copy = EnvironmentState.of(there.resources);
  copy.apply({
    type: "tag",
    kind: "network",
    id: resourceId("west-vpc-1"),
    set: { release: "2" },
    remove: [],
  });
  const back = exchangeRoles(copy, byKey(there.pairings), []);
  const [pairing] = back.pairings;
  assert.equal(pairing?.original, false);
  assert.equal((pairing?.counterpart?.tags ?? {})["release"], "2", "the pairing knows what the copy has");
  assert.equal(back.resources[0]?.tags["release"], undefined, "the original was not brought up to date");
});

test("what is being made or removed has no counterpart to speak of", () => {
  const resources = shopEnvironment({ servers: 3 });
  const pairings = resources.map((resource, index): Pairing => {
    const pairing = pairingOf(resource);
    if (index % 3 === 0) return { ...pairing, state: "creating", standbyId: null, counterpart: null };
    return index % 3 === 1 ? { ...pairing, state: "deleting" } : pairing;
  });
  const exchanged = exchangeRoles(EnvironmentState.of(resources), byKey(pairings), []);
  const whole = pairings.filter(({ state }) => state === "paired");
  assert.equal(exchanged.pairings.length, whole.length);
  assert.equal(exchanged.stranded.length, resources.length - whole.length);
  const servers = whole.filter(({ kind }) => kind === "server");
  assert.deepEqual(
    [...counterpartIds(byKey(pairings))],
    servers.map(({ activeId, standbyId }) => [activeId, standbyId]),
  );
});
