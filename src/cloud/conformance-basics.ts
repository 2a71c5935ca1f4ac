/** Cases about the connection, errors, waiting and listings. */
import assert from "node:assert/strict";
import { collect } from "#cloud/contract.ts";
import type { ResourceId } from "#kernel/ids.ts";
import type { ConformanceCase, ConformanceContext } from "./conformance-case.ts";
import { conformancePublicKey } from "./conformance-key.ts";

async function pagesThrough({ bench, cloud, harness, signal }: ConformanceContext): Promise<void> {
  const pageSize = harness.pageSize ?? 1;
  const made = new Set<ResourceId>();
  for (let count = 0; count < pageSize * 2 + 1; count += 1) {
    made.add((await bench.make("volume", { sizeGiB: 1 })).resource.id);
  }
  const seen: ResourceId[] = [];
  let pages = 0;
  for await (const page of cloud.list("volume", { scope: bench.scope }, signal)) {
    pages += 1;
    seen.push(...page.map(({ resource }) => resource.id));
  }
  assert.deepEqual([...seen].sort(), [...made].sort(), "each once, none left out");
  assert.ok(pages > 1, "more than one page");
}

/** Each of them, called with a signal that has fired already, does not answer. */
async function honoursSignals({ bench, cloud }: ConformanceContext): Promise<void> {
  const reason = new Error("aborted before the call");
  const fired = AbortSignal.abort(reason);
  const request = bench.request("network", { cidr: "10.95.0.0/16", internet: false });
  const id = "unused" as ResourceId;
  const calls: [string, () => Promise<unknown>][] = [
    ["identify", () => cloud.identify(fired)],
    ["catalogue", () => cloud.catalogue(fired)],
    ["create", () => cloud.create(request, fired)],
    ["get", () => cloud.get("network", id, fired)],
    ["list", () => collect(cloud.list("network", { scope: bench.scope }, fired))],
    ["update", () => cloud.update("network", id, { internet: true }, fired)],
    ["setTags", () => cloud.setTags("network", id, {}, ["x"], fired)],
    ["delete", () => cloud.delete("network", id, fired)],
  ];
  for (const [name, call] of calls) await assert.rejects(call(), `${name} with a fired signal`);
  const listed = await bench.list("network", { scope: bench.scope });
  assert.equal(listed.length, 0, "nothing was made");
}

async function unknownIds({ bench }: ConformanceContext): Promise<void> {
  const { resource } = await bench.make("network", { cidr: "10.96.0.0/16", internet: false });
  const subnetSpec = { networkId: resource.id, cidr: "10.96.1.0/24", publicAddresses: false };
  await bench.delete("network", resource.id);
  assert.equal(await bench.get("network", resource.id), undefined);
  assert.deepEqual(await bench.list("network", { ids: [resource.id] }), []);
  const gone = ["cloud.not_found"] as const;
  const refused = [
    await bench.expectRefusal(gone, () => bench.update("network", resource.id, { internet: true })),
    await bench.expectRefusal(gone, () => bench.setTags("network", resource.id, { a: "b" }, [])),
    await bench.expectRefusal(gone, () => bench.create(bench.request("subnet", subnetSpec))),
  ];
  for (const error of refused) assert.equal(error.outcome, "not_applied", error.message);
}

async function keepsWhatIsUsed({ bench, cloud, signal }: ConformanceContext): Promise<void> {
  const { network, subnet } = await bench.network();
  // A conflict is worth repeating later, which is why it is not repeated here.
  const error = await bench.expectRefusal(["cloud.conflict"], () =>
    cloud.delete("network", network.id, signal),
  );
  assert.equal(error.outcome, "not_applied");
  assert.equal(error.retry, "later", "the dependants may go");
  assert.ok(await bench.get("network", network.id), "the network stays whole");
  await bench.delete("subnet", subnet.id);
  await bench.delete("network", network.id);
}

export const basicCases: readonly ConformanceCase[] = [
  {
    name: "identify names the account",
    needs: [],
    run: async ({ bench, cloud, signal }) => {
      const identity = await bench.call(() => cloud.identify(signal));
      assert.ok(identity.account.length > 0 && identity.endpoint.length > 0);
    },
  },
  {
    name: "wrong credentials are told as such",
    needs: [],
    harness: ["badCredentials"],
    run: async ({ bench, harness, signal }) => {
      const cloud = await harness.badCredentials?.();
      assert.ok(cloud);
      try {
        const error = await bench.expectRefusal(["cloud.credentials"], () => cloud.identify(signal));
        assert.equal(error.retry, "never");
      } finally {
        await cloud.close();
      }
    },
  },
  {
    name: "the catalogue has types, images and what the suite uses",
    needs: [],
    run: async ({ bench, cloud, sizes, signal }) => {
      const catalogue = await bench.call(() => cloud.catalogue(signal));
      assert.ok(catalogue.types.every(({ vcpus, memoryMiB }) => vcpus > 0 && memoryMiB > 0));
      assert.ok(catalogue.types.some(({ name }) => name === sizes.type));
      assert.equal(new Set(catalogue.types.map(({ name }) => name)).size, catalogue.types.length);
    },
  },
  {
    name: "a signal that has fired stops every call",
    needs: ["network"],
    run: honoursSignals,
  },
  { name: "unknown ids: nothing to get, not_found to change", needs: ["network", "subnet"], run: unknownIds },
  {
    name: "what is in use is not deleted: cloud.conflict, later",
    needs: ["network", "subnet"],
    run: keepsWhatIsUsed,
  },
  {
    name: "a name that is taken is refused for good",
    needs: ["keyPair"],
    run: async ({ bench }) => {
      const spec = { name: bench.name(), publicKey: conformancePublicKey };
      await bench.make("keyPair", spec);
      const error = await bench.expectRefusal(["cloud.conflict"], () => bench.make("keyPair", spec));
      assert.equal(error.retry, "never");
    },
  },
  { name: "a listing goes over all its pages", needs: ["volume"], harness: ["pageSize"], run: pagesThrough },
  {
    name: "throttling is told as such",
    needs: [],
    harness: ["throttle"],
    run: async ({ cloud, harness, bench, signal }) => {
      const relax = await harness.throttle?.();
      try {
        const error = await bench.expectRefusal(["cloud.throttled"], async () => {
          for (let count = 0; count < 500; count += 1)
            await cloud.get("network", "none" as ResourceId, signal);
        });
        assert.equal(error.retry, "throttled");
        assert.equal(error.outcome, "not_applied");
      } finally {
        await relax?.();
      }
    },
  },
];
