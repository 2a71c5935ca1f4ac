/** One case a kind: made, seen by every read, tagged, and gone. And what holds for creates in general. */
import assert from "node:assert/strict";
import type { ResourceId } from "#kernel/ids.ts";
import type { ResourceKind, ResourceSpecs, Tags } from "#model/resource.ts";
import type { ConformanceCase, ConformanceContext } from "./conformance-case.ts";
import type { ConformanceBench } from "./conformance-bench.ts";
import { conformancePublicKey } from "./conformance-key.ts";

interface KindSample<K extends ResourceKind> {
  readonly kind: K;
  readonly needs: readonly ResourceKind[];
  /** Makes what it refers to, and says how it shall be. */
  readonly spec: (context: ConformanceContext) => Promise<ResourceSpecs[K]>;
}

function sample<K extends ResourceKind>(kindSample: KindSample<K>): KindSample<K> {
  return kindSample;
}

const cidr = "10.98.0.0/16";

async function anyNetwork(bench: ConformanceBench): Promise<ResourceId> {
  return (await bench.make("network", { cidr, internet: false })).resource.id;
}

const samples = [
  sample({
    kind: "network",
    needs: [],
    spec: async () => ({ cidr, internet: true }),
  }),
  sample({
    kind: "subnet",
    needs: ["network"],
    spec: async ({ bench }) => ({
      networkId: await anyNetwork(bench),
      cidr: "10.98.7.0/24",
      publicAddresses: false,
    }),
  }),
  sample({
    kind: "securityGroup",
    needs: ["network"],
    spec: async ({ bench }) => ({
      networkId: await anyNetwork(bench),
      name: bench.name(),
      description: "made by understudy cloud verify",
    }),
  }),
  sample({
    kind: "keyPair",
    needs: [],
    spec: async ({ bench }) => ({ name: bench.name(), publicKey: conformancePublicKey }),
  }),
  sample({
    kind: "volume",
    needs: [],
    spec: async ({ sizes }) => ({
      sizeGiB: sizes.volumeGiB,
      ...(sizes.zone === undefined ? {} : { zone: sizes.zone }),
    }),
  }),
  sample({ kind: "address", needs: [], spec: async () => ({}) }),
] as const;

/** Every field that was asked for is there; a cloud may add others, and drop those that it says it drops. */
export function assertSpec(
  asked: object,
  seen: object,
  unsupported: readonly string[] | undefined,
  what: string,
): void {
  for (const [field, value] of Object.entries(asked)) {
    if (value === undefined || unsupported?.includes(field)) continue;
    const shown = (seen as Record<string, unknown>)[field];
    assert.deepEqual(comparable(field, shown), comparable(field, value), `${what}: field ${field}`);
  }
}

/** Clouds put a comment of their own behind a public key. */
function comparable(field: string, value: unknown): unknown {
  return field === "publicKey" && typeof value === "string" ? value.split(" ").slice(0, 2) : value;
}

function assertTags(asked: Tags, seen: Tags, what: string): void {
  for (const [key, value] of Object.entries(asked)) assert.equal(seen[key], value, `${what}: tag ${key}`);
}

async function wholeLife<K extends ResourceKind>(
  { kind, spec: specOf }: KindSample<K>,
  context: ConformanceContext,
): Promise<void> {
  const { bench, cloud } = context;
  const unsupported = cloud.facts.unsupportedFields[kind];
  const withTags = !unsupported?.includes("tags");
  const spec = await specOf(context);
  const tags: Tags = { Name: bench.name(), tier: "web", remark: "ä & <b> = 1" };
  const made = await bench.make(kind, spec, tags);
  const { id } = made.resource;
  assertSpec(spec, made.resource.spec, unsupported, "created");

  const got = await bench.get(kind, id);
  assert.ok(got, `get sees what create returned (${kind} ${id})`);
  assertSpec(spec, got.resource.spec, unsupported, "got");
  if (withTags) assertTags(tags, got.resource.tags, "got");

  const count = async (filter: Parameters<ConformanceBench["list"]>[1]): Promise<number> =>
    (await bench.list(kind, filter)).filter(({ resource }) => resource.id === id).length;
  assert.equal(await count({ scope: bench.scope }), 1, "listed once for its scope");
  assert.equal(await count({ scope: `${bench.scope}-other` }), 0, "not listed for another scope");
  assert.equal((await bench.list(kind, { ids: [id] })).length, 1, "listed alone by id");
  if (withTags) {
    assert.equal(await count({ tags: { Name: tags["Name"] ?? "" } }), 1, "listed by tag");
    assert.equal(await count({ scope: bench.scope, tags: { tier: "db" } }), 0, "not listed by another value");
    for (let time = 0; time < 2; time += 1) {
      await bench.setTags(kind, id, { tier: "app", added: "yes" }, ["remark"]);
    }
    const retagged = await bench.get(kind, id);
    const seenTags = retagged?.resource.tags ?? {};
    assertTags({ Name: tags["Name"] ?? "", tier: "app", added: "yes" }, seenTags, "set");
    assert.equal(seenTags["remark"], undefined, "a removed tag is gone");
    assert.equal(await count({ scope: bench.scope }), 1, "still of its scope after its tags changed");
  }
  await bench.delete(kind, id);
  assert.equal(await bench.get(kind, id), undefined, "get after delete");
  assert.equal(await count({ scope: bench.scope }), 0, "list after delete");
  await bench.delete(kind, id);
}

async function idempotent<K extends ResourceKind>(
  { kind, spec: specOf }: KindSample<K>,
  context: ConformanceContext,
): Promise<void> {
  const { bench } = context;
  const request = bench.request(kind, await specOf(context));
  const made = await Promise.all([1, 2, 3].map(() => bench.create({ ...request, mayExist: true })));
  const again = await bench.create({ ...request, mayExist: true });
  const ids = new Set([...made, again].map(({ resource }) => resource.id));
  assert.equal(ids.size, 1, `one token, one ${kind}: ${[...ids].join(", ")}`);
  const name = request.tags["Name"];
  const listed = await bench.list(kind, { scope: bench.scope });
  const twins = listed.filter(
    ({ resource }) => ids.has(resource.id) || (name !== undefined && resource.tags["Name"] === name),
  );
  assert.equal(twins.length, 1, "listed once");
}

/** The caller loses patience at an arbitrary moment and does not know what became of the request. */
async function survivesAbort<K extends ResourceKind>(
  { kind, spec: specOf }: KindSample<K>,
  context: ConformanceContext,
): Promise<void> {
  const { bench, cloud, ports } = context;
  for (const afterMs of [0, 2, 10, 50]) {
    const request = bench.request(kind, await specOf(context));
    const impatience = new AbortController();
    const attempt = cloud.create(request, impatience.signal).then(
      () => "made",
      () => "lost",
    );
    if (afterMs > 0) await ports.clock.sleep(afterMs, context.signal);
    impatience.abort(new Error("the caller lost patience"));
    await attempt;
    const made = await bench.create({ ...request, mayExist: true });
    const listed = await bench.list(kind, { scope: bench.scope });
    const twins = listed.filter(({ resource }) => resource.tags["Name"] === request.tags["Name"]);
    assert.equal(twins.length, 1, `one ${kind} although the first answer was lost after ${afterMs} ms`);
    await bench.delete(kind, made.resource.id);
  }
}

type AnySample = KindSample<ResourceKind>;

const samplesAsAny = samples as unknown as readonly AnySample[];

export const kindCases: readonly ConformanceCase[] = [
  ...samplesAsAny.map((one) => ({
    name: `${one.kind}: made, seen, tagged and gone; deleting it twice succeeds`,
    needs: [one.kind, ...one.needs],
    run: (context: ConformanceContext) => wholeLife(one, context),
  })),
  ...samplesAsAny.map((one) => ({
    name: `${one.kind}: one token makes one, also in parallel`,
    needs: [one.kind, ...one.needs],
    run: (context: ConformanceContext) => idempotent(one, context),
  })),
  ...samplesAsAny
    .filter(({ kind }) => ["network", "volume", "address"].includes(kind))
    .map((one) => ({
      name: `${one.kind}: one token makes one, also when an answer was lost`,
      needs: [one.kind, ...one.needs],
      run: (context: ConformanceContext) => survivesAbort(one, context),
    })),
];
