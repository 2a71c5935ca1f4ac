import assert from "node:assert/strict";
import { test } from "node:test";
import { inspect } from "node:util";
import { systemClock } from "#kernel/clock.ts";
import { isOperational } from "#kernel/errors.ts";
import type { OperationalError } from "#kernel/errors.ts";
import { silentLog } from "#kernel/log.ts";
import { Secret } from "#kernel/secret.ts";
import type { ResourceId } from "#kernel/ids.ts";
import { collect } from "#cloud/contract.ts";
import type { CreateRequest } from "#cloud/contract.ts";
import { openOpenstackCloud } from "./openstack-cloud.ts";
import { openScripted } from "./scripted-openstack.fixture.ts";

const signal = (): AbortSignal => new AbortController().signal;
const volumeId = "0a795c15-6609-4623-b4c9-4c2f2a7112d4" as ResourceId;

function volume(id: string, metadata: Readonly<Record<string, string>> = {}): object {
  return { id, name: "data", status: "available", size: 1, metadata };
}

const request: CreateRequest<"volume"> = {
  kind: "volume",
  spec: { sizeGiB: 1 },
  tags: { Name: "data" },
  token: "token-a",
  scope: "shop",
  mayExist: false,
};

async function failure(work: Promise<unknown>): Promise<OperationalError> {
  try {
    await work;
  } catch (error) {
    assert.ok(isOperational(error), String(error));
    return error;
  }
  return assert.fail("it succeeded");
}

void test("one token for all, a new one when a service no longer takes it", async () => {
  let revoked = false;
  await using scripted = await openScripted(({ token }) =>
    revoked && token === "token-1"
      ? { status: 401, body: { error: { code: 401, title: "Unauthorized", message: "no" } } }
      : { status: 200, body: { volume: volume(volumeId) } },
  );
  const { cloud } = scripted;
  await Promise.all([1, 2, 3].map(() => cloud.get("volume", volumeId, signal())));
  assert.equal(scripted.tokensIssued(), 1);
  revoked = true;
  assert.ok(await cloud.get("volume", volumeId, signal()));
  assert.equal(scripted.tokensIssued(), 2);
});

void test("a service that takes no token at all: credentials, after one renewal", async () => {
  await using scripted = await openScripted(() => ({ status: 401, body: {} }));
  const error = await failure(scripted.cloud.get("volume", volumeId, signal()));
  assert.equal(error.code, "cloud.credentials");
  assert.equal(scripted.tokensIssued(), 2);
});

void test("a token is renewed before it expires", async () => {
  const answer = { status: 200, body: { volume: volume(volumeId) } };
  await using scripted = await openScripted(() => answer, { tokenLifeMs: 60_000 });
  await scripted.cloud.get("volume", volumeId, signal());
  await scripted.cloud.get("volume", volumeId, signal());
  assert.equal(scripted.tokensIssued(), 2);
});

void test("no redirect is followed, so that the token stays with its cloud", async () => {
  let strayed = 0;
  await using elsewhere = await openScripted(() => {
    strayed += 1;
    return { status: 200, body: {} };
  });
  const target = (await elsewhere.cloud.identify(signal())).endpoint.replace("/v3", "/volumes");
  await using scripted = await openScripted(() => ({ status: 302, headers: { location: target } }));
  const error = await failure(scripted.cloud.get("volume", volumeId, signal()));
  assert.equal(error.code, "cloud.protocol");
  assert.equal(strayed, 0);
});

void test("what is known after a failure: refused connection, broken answer, silence", async () => {
  const closed = openOpenstackCloud({
    authUrl: "http://127.0.0.1:9/v3",
    credentials: { type: "token", token: new Secret("x") },
    clock: systemClock,
    log: silentLog,
  });
  const refused = await failure(closed.identify(signal()));
  assert.deepEqual([refused.code, refused.outcome], ["cloud.unreachable", "not_applied"]);
  await closed.close();

  await using broken = await openScripted((_request, response) => {
    response.destroy();
    return undefined;
  });
  const lost = await failure(broken.cloud.create(request, signal()));
  assert.deepEqual([lost.code, lost.outcome], ["cloud.unreachable", "unknown"]);
  const read = await failure(broken.cloud.get("volume", volumeId, signal()));
  assert.deepEqual([read.code, read.outcome], ["cloud.unreachable", "not_applied"]);

  await using silent = await openScripted(() => undefined, { limits: { answerTimeoutMs: 50 } });
  const late = await failure(silent.cloud.create(request, signal()));
  assert.deepEqual([late.code, late.outcome], ["cloud.timeout", "unknown"]);
});

void test("an answer beyond the limit is not held in memory", async () => {
  const limits = { maxAnswerBytes: 10_000 };
  await using scripted = await openScripted(() => ({ status: 200, body: "x".repeat(100_000) }), { limits });
  const error = await failure(scripted.cloud.get("volume", volumeId, signal()));
  assert.equal(error.code, "cloud.protocol");
});

void test("an answer that is not the API's is a protocol error; after a create, nothing is known", async () => {
  await using scripted = await openScripted(() => ({ status: 200, body: { volume: { id: 1 } } }));
  const read = await failure(scripted.cloud.get("volume", volumeId, signal()));
  assert.deepEqual([read.code, read.outcome], ["cloud.protocol", "not_applied"]);
  const made = await failure(scripted.cloud.create(request, signal()));
  assert.deepEqual([made.code, made.outcome], ["cloud.protocol", "unknown"]);
});

void test("no secret is in an error", async () => {
  await using scripted = await openScripted(() => ({ status: 401, body: {} }));
  const error = await failure(scripted.cloud.get("volume", volumeId, signal()));
  assert.doesNotMatch(inspect(error, { depth: null, showHidden: true }), /secret-word|token-\d/);
});

void test("a repeated create waits for the first one's answer, though its caller gave up", async () => {
  const made: object[] = [];
  const arrived = Promise.withResolvers<void>();
  const released = Promise.withResolvers<void>();
  await using scripted = await openScripted(async ({ method, body }) => {
    if (method === "GET") return { status: 200, body: { volumes: made } };
    arrived.resolve();
    await released.promise;
    const { volume: asked } = JSON.parse(body) as { volume: { metadata: Record<string, string> } };
    made.push(volume(`${made.length}${volumeId.slice(1)}`, asked.metadata));
    return { status: 202, body: { volume: made.at(-1) } };
  });
  const impatience = new AbortController();
  const first = failure(scripted.cloud.create(request, impatience.signal));
  await arrived.promise;
  impatience.abort();
  const given = await first;
  assert.deepEqual([given.code, given.outcome], ["aborted", "unknown"]);
  const second = scripted.cloud.create(request, signal());
  released.resolve();
  const { resource } = await second;
  assert.equal(made.length, 1);
  assert.equal(resource.id, (made[0] as { id: string }).id);
});

void test("listings go on by marker while the cloud links to more, and stop when it does not advance", async () => {
  const all = ["a", "b", "c", "d", "e"];
  await using scripted = await openScripted(({ target }) => {
    const query = new URL(target, "http://x").searchParams;
    const from = all.indexOf(query.get("marker") ?? "") + 1;
    const page = all.slice(from, from + 2);
    const links =
      from + 2 < all.length ? { volumes_links: [{ rel: "next", href: "http://elsewhere/" }] } : {};
    return { status: 200, body: { volumes: page.map((id) => volume(id)), ...links } };
  });
  const found = await collect(scripted.cloud.list("volume", {}, signal()));
  assert.deepEqual(
    found.map(({ resource }) => resource.id as string),
    all,
  );
  assert.equal(scripted.requests.length, 3);

  await using stuck = await openScripted(() => ({
    status: 200,
    body: { volumes: [volume("a")], volumes_links: [{ rel: "next" }] },
  }));
  assert.equal((await failure(collect(stuck.cloud.list("volume", {}, signal())))).code, "cloud.protocol");
});

void test("a closed cloud refuses", async () => {
  const scripted = await openScripted(() => ({ status: 200, body: {} }));
  await scripted[Symbol.asyncDispose]();
  assert.equal((await failure(scripted.cloud.get("volume", volumeId, signal()))).code, "cloud.unreachable");
});
