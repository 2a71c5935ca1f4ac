import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import {
  type FakeOpenstack,
  type OpenstackFixture,
  type OpenstackFixtureOptions,
  type Received,
  type Reply,
  callAt,
  cloudProject,
  passwordLogin,
  realPassword,
  shop,
  startFakeOpenstack,
  startOpenstackFixture,
} from "./openstack.fixture.ts";
import { until } from "#gateway/gateway.fixture.ts";

const id = "d7a8bb86-a63f-44e1-806f-32c048d11786";

async function both(
  t: TestContext,
  options: Partial<OpenstackFixtureOptions> = {},
): Promise<{ cloud: FakeOpenstack; fixture: OpenstackFixture }> {
  const cloud = await startFakeOpenstack(t);
  return { cloud, fixture: await startOpenstackFixture(t, { authUrl: cloud.authUrl, ...options }) };
}

function serving(routes: Readonly<Record<string, Reply | "cut" | ((received: Received) => Reply)>>) {
  return (received: Received): Reply | "cut" | undefined => {
    const path = received.url.split("?", 1)[0] ?? "";
    const found = routes[`${received.method} ${path}`];
    return typeof found === "function" ? found(received) : found;
  };
}

const serverBody = {
  server: { name: "web", imageRef: "i", flavorRef: "f", networks: "none", adminPass: "hunter2" },
};
const created: Reply = {
  status: 202,
  body: { server: { id, links: [{ rel: "self", href: `http://cloud/v2.1/servers/${id}` }] } },
};

test("everyone may ask for Keystone's versions, and nobody without a token for anything else", async (t) => {
  const { cloud, fixture } = await both(t);
  const none = { token: null };
  const versions = await fixture.call("GET", "/identity", undefined, none);
  assert.equal(versions.status, 300);
  const version = await fixture.call("GET", "/identity/v3/", undefined, none);
  assert.equal(version.status, 200);
  assert.ok(version.text.includes(`${fixture.gateway.address}/identity/v3/`));
  for (const token of [null, "", "x", "uk1.UKIA.1.2.3.4"]) {
    for (const [method, path] of [
      ["GET", "/compute/v2.1/servers"],
      ["POST", "/compute/v2.1/servers"],
      ["DELETE", `/networking/v2.0/networks/${id}`],
      ["GET", "/identity/v3/auth/catalog"],
      ["GET", "/image/"],
      ["PUT", "/elsewhere"],
    ] as const) {
      const answer = await fixture.call(method, path, method === "POST" ? serverBody : undefined, { token });
      assert.equal(answer.status, path === "/elsewhere" ? 404 : 401, `${method} ${path} ${token}`);
      if (answer.status === 401) {
        assert.match(
          String(answer.headers["www-authenticate"]),
          /^Keystone uri="http:\/\/127\.0\.0\.1:\d+\/identity"$/,
        );
      }
    }
  }
  assert.equal(cloud.received.length + cloud.logins.length, 0, "nothing reached the cloud");
  assert.equal((await fixture.journal.read(shop, 0, 10)).length, 0);
});

test("an access key logs in as user or application credential, by the environment or the cloud's project", async (t) => {
  const { fixture } = await both(t);
  const { id: name, secret } = fixture.key;
  const login = (body: unknown) =>
    callAt(fixture.gateway.address, "POST", "/identity/v3/auth/tokens", body, {});
  for (const project of [undefined, shop, cloudProject, "real-project"]) {
    const answer = await login(passwordLogin(name, secret.reveal(), project));
    assert.equal(answer.status, 201, answer.text);
    const token = answer.body["token"] as unknown as Record<string, { id: string }> & {
      catalog: { type: string; endpoints: { url: string; region: string }[] }[];
    };
    assert.equal(token["project"]?.id, cloudProject);
    assert.equal(token["user"]?.id, name);
    const urls = Object.fromEntries(token.catalog.map(({ type, endpoints }) => [type, endpoints[0]?.url]));
    assert.deepEqual(urls, {
      identity: `${fixture.gateway.address}/identity`,
      compute: `${fixture.gateway.address}/compute/v2.1`,
      network: `${fixture.gateway.address}/networking`,
      image: `${fixture.gateway.address}/image`,
      volumev3: `${fixture.gateway.address}/volume/v3/${cloudProject}`,
      "block-storage": `${fixture.gateway.address}/volume/v3/${cloudProject}`,
    });
  }
  const application_credential = { id: name, secret: secret.reveal() };
  const identity = { methods: ["application_credential"], application_credential };
  assert.equal((await login({ auth: { identity } })).status, 201);
  const bare = await callAt(fixture.gateway.address, "POST", "/v3/auth/tokens", { auth: { identity } }, {});
  assert.equal(bare.status, 201);
  for (const [body, status] of [
    [passwordLogin(name, "wrong"), 401],
    [passwordLogin("UKIAZZZZZZZZZZZZZZZZ", secret.reveal()), 401],
    [passwordLogin("UKIAZZZZZZZZZZZZZZZZ", ""), 401],
    [passwordLogin(name, secret.reveal(), "another"), 401],
    [{ auth: { identity, scope: { system: { all: true } } } }, 403],
    [{ auth: { identity: { methods: ["totp"] } } }, 401],
    [{ auth: {} }, 400],
    [[], 400],
  ] as const) {
    const answer = await login(body);
    assert.equal(answer.status, status, JSON.stringify(body));
    assert.ok((answer.body["error"] as unknown as { message?: string }).message);
    assert.equal(answer.headers["x-subject-token"], undefined);
  }
});

test("a token ends with its key", async (t) => {
  const { fixture } = await both(t);
  const token = await fixture.login();
  const catalogue = () => fixture.call("GET", "/identity/v3/auth/catalog", undefined, { token });
  assert.equal((await catalogue()).status, 200);
  await fixture.keys.disable(fixture.key.id);
  assert.equal((await catalogue()).status, 401);
});

test("a change is recorded without secrets, forwarded with the cloud's token, and answered with the gateway's links", async (t) => {
  const { cloud, fixture } = await both(t);
  const href = `${cloud.origin}/nova/v2.1/servers/${id}`;
  cloud.reply = serving({
    "POST /nova/v2.1/servers": {
      status: 202,
      headers: { location: href },
      body: { server: { id, adminPass: "made-by-nova", links: [{ rel: "self", href }] } },
    },
    "GET /nova/v2.1/flavors/f": {
      status: 200,
      body: { flavor: { id: "f", name: "small", vcpus: 1, ram: 1 } },
    },
  });
  const answer = await fixture.call("POST", "/compute/v2.1/servers", serverBody);
  assert.equal(answer.status, 202);
  const own = `${fixture.gateway.address}/compute/v2.1/servers/${id}`;
  assert.deepEqual(answer.body["server"], {
    id,
    adminPass: "made-by-nova",
    links: [{ rel: "self", href: own }],
  });
  assert.equal(answer.headers["location"], own);
  const [sent] = cloud.received;
  assert.equal(sent?.headers["x-auth-token"], cloud.tokens[0]);
  assert.deepEqual(JSON.parse(sent?.text ?? ""), serverBody);
  const [entry] = await fixture.journal.read(shop, 0, 10);
  assert.equal(entry?.intent.service, "openstack");
  assert.equal(entry.intent.operation, "POST /servers");
  assert.equal(entry.intent.principal, fixture.key.id);
  assert.deepEqual(entry.intent.input, {
    method: "POST",
    path: "/compute/v2.1/servers",
    body: { server: { name: "web", imageRef: "i", flavorRef: "f", networks: "none" } },
  });
  assert.equal(entry.outcome?.result, "applied");
  const [change] = entry.outcome.changes;
  assert.equal(change?.type === "create" && change.kind === "server" && change.spec.type, "small");
  const state = await readFile(join(fixture.folder, "state.db"), "latin1");
  const log = await readFile(join(fixture.folder, "state.db-wal"), "latin1").catch(() => "");
  for (const text of ["hunter2", "made-by-nova", realPassword, fixture.key.secret.reveal(), "real-token-"]) {
    assert.equal((state + log).includes(text), false, text);
  }
});

test("pages lead through the gateway; what the cloud refuses is refused in its own words", async (t) => {
  const { cloud, fixture } = await both(t);
  const fault = { itemNotFound: { code: 404, message: "Instance nope could not be found." } };
  cloud.reply = serving({
    "GET /nova/v2.1/servers": {
      status: 200,
      body: {
        servers: [],
        servers_links: [{ rel: "next", href: `${cloud.origin}/nova/v2.1/servers?marker=1` }],
      },
    },
    "DELETE /nova/v2.1/servers/nope": { status: 404, body: fault },
  });
  const list = await fixture.call("GET", "/compute/v2.1/servers?limit=1");
  assert.deepEqual(list.body["servers_links"], [
    { rel: "next", href: `${fixture.gateway.address}/compute/v2.1/servers?marker=1` },
  ]);
  assert.equal(cloud.received[0]?.url, "/nova/v2.1/servers?limit=1");
  const gone = await fixture.call("DELETE", "/compute/v2.1/servers/nope");
  assert.deepEqual([gone.status, gone.body], [404, fault]);
  const [entry] = await fixture.journal.read(shop, 0, 10);
  assert.deepEqual([entry?.outcome?.result, entry?.outcome?.errorCode], ["refused", "itemNotFound"]);
});

test("a key that may only read changes nothing, and gets no console", async (t) => {
  const { cloud, fixture } = await both(t);
  cloud.reply = () => ({ status: 200, body: {} });
  const token = await fixture.login(fixture.readKey);
  const console_ = { remote_console: { protocol: "vnc", type: "novnc" } };
  for (const [path, body] of [
    ["/compute/v2.1/servers", serverBody],
    [`/compute/v2.1/servers/${id}/remote-consoles`, console_],
    [`/compute/v2.1/servers/${id}/action`, { "os-getVNCConsole": { type: "novnc" } }],
    [`/compute/v2.1/servers/${id}/action`, { "os-stop": null }],
  ] as const) {
    const answer = await fixture.call("POST", path, body, { token });
    assert.equal(answer.status, 403, path);
    assert.match(answer.text, /^\{"forbidden"/);
  }
  assert.equal((await fixture.call("GET", "/compute/v2.1/servers", undefined, { token })).status, 200);
  assert.deepEqual(
    cloud.received.map(({ method }) => method),
    ["GET"],
  );
});

test("the cloud's token is renewed when the cloud takes it no more, and the caller does not notice", async (t) => {
  const { cloud, fixture } = await both(t);
  cloud.reply = serving({
    "GET /nova/v2.1/servers": { status: 200, body: { servers: [] } },
    "POST /nova/v2.1/os-keypairs": { status: 201, body: { keypair: { name: "k", public_key: "ssh-rsa A" } } },
  });
  assert.equal((await fixture.call("GET", "/compute/v2.1/servers")).status, 200);
  cloud.tokens.length = 0;
  cloud.tokens.push("another");
  assert.equal((await fixture.call("GET", "/compute/v2.1/servers")).status, 200);
  cloud.tokens.length = 0;
  cloud.tokens.push("a", "b");
  const made = await fixture.call("POST", "/compute/v2.1/os-keypairs", { keypair: { name: "k" } });
  assert.equal(made.status, 201);
  assert.equal(cloud.logins.length, 3);
  assert.equal((await fixture.journal.read(shop, 0, 10)).length, 1);
});

test("tokens that end soon are renewed before, one login for all who wait", async (t) => {
  const { cloud, fixture } = await both(t);
  cloud.lifetimeMs = 60_000;
  cloud.reply = () => ({ status: 200, body: {} });
  const token = await fixture.login();
  const before = cloud.logins.length;
  await Promise.all(
    Array.from({ length: 8 }, () => fixture.call("GET", "/compute/v2.1/servers", undefined, { token })),
  );
  assert.ok(cloud.logins.length > before);
  assert.ok(cloud.received.every(({ headers }) => cloud.tokens.includes(String(headers["x-auth-token"]))));
});

test("a Keystone that does not let the gateway in: nothing is recorded, and the caller is told to come back", async (t) => {
  const { cloud, fixture } = await both(t);
  const token = await fixture.login();
  await cloud.close();
  fixture.access.reject(cloud.tokens[0] ?? "");
  const answer = await fixture.call("POST", "/compute/v2.1/servers", serverBody, { token });
  assert.equal(answer.status, 503);
  assert.equal(answer.headers["retry-after"], "5");
  assert.match(answer.text, /^\{"serviceUnavailable".*Nothing was changed/);
  assert.equal((await fixture.journal.open(shop)).length, 0);
});

test("problems of the gateway have each service's own form", async (t) => {
  const { cloud, fixture } = await both(t);
  cloud.reply = () => ({ status: 200, body: {} });
  fixture.fence = { epoch: 2, moved: { site: "b", at: 0 } };
  const answers = await Promise.all([
    fixture.call("POST", "/compute/v2.1/servers", serverBody),
    fixture.call("DELETE", `/volume/v3/${cloudProject}/volumes/${id}`),
    fixture.call("POST", "/networking/v2.0/networks", { network: { name: "n" } }),
  ]);
  assert.deepEqual(
    answers.map(({ status, body }) => [status, Object.keys(body)[0]]),
    [
      [409, "conflictingRequest"],
      [409, "conflictingRequest"],
      [409, "NeutronError"],
    ],
  );
  const users = await fixture.call("POST", "/identity/v3/users", { user: { name: "u" } });
  assert.equal(users.status, 403);
  const image = await fixture.call("PUT", `/image/v2/images/${id}/file`, undefined, {
    raw: "data",
    headers: { "content-type": "application/octet-stream" },
  });
  assert.equal(image.status, 415);
  assert.deepEqual(cloud.received, []);
});

test("too many changes at once are told to slow down, as Nova does", async (t) => {
  const { cloud, fixture } = await both(t, { limits: { changes: 0 } });
  const answer = await fixture.call("POST", "/compute/v2.1/servers", serverBody);
  assert.equal(answer.status, 413);
  assert.equal(answer.headers["retry-after"], "1");
  assert.match(answer.text, /^\{"overLimit":\{"code":413,.*"retryAfter":"1"\}\}$/);
  assert.deepEqual(cloud.received, []);
});

/** Sends a change whose answer is lost; the cloud then answers by `routes`. */
async function lost(
  t: TestContext,
  change: readonly [method: string, path: string, body?: unknown],
  routes: Parameters<typeof serving>[0],
): Promise<{ readonly result: string | undefined; readonly changes: unknown; readonly gaps: string[] }> {
  const { cloud, fixture } = await both(t);
  const [method, path, body] = change;
  const answering = serving(routes);
  cloud.reply = (received) => (received.method === method ? "cut" : answering(received));
  const answer = await fixture.call(method, path, body);
  assert.equal(answer.status, 504, answer.text);
  await until(async () => (await fixture.journal.open(shop)).length === 0);
  const entry = (await fixture.journal.read(shop, 0, 10)).at(-1);
  assert.equal(cloud.received.filter((one) => one.method === method).length, 1, "sent once");
  return {
    result: entry?.outcome?.result,
    changes: entry?.outcome?.changes.map((one) => [one.type, one.id]),
    gaps: entry?.outcome?.gaps.map(({ code }) => code) ?? [],
  };
}

const now = (): string => new Date().toISOString();
const old = "2020-01-01T00:00:00Z";
const server = (more: object = {}): object => ({
  id,
  name: "web",
  status: "ACTIVE",
  created: now(),
  metadata: {},
  addresses: {},
  flavor: {},
  image: "",
  ...more,
});
const other = "e7a8bb86-a63f-44e1-806f-32c048d11786";

test("a lost create: one new server of the name is it, none is none, two cannot be told apart", async (t) => {
  const create = ["POST", "/compute/v2.1/servers", serverBody] as const;
  const listing = (...servers: readonly object[]) => ({
    "GET /nova/v2.1/servers/detail": { status: 200, body: { servers } },
  });
  const one = await lost(t, create, listing(server(), server({ id: other, name: "db" })));
  const changes = [
    ["create", id],
    ["tag", id],
  ];
  // The gap is about the server's having no network.
  assert.deepEqual(one, { result: "applied", changes, gaps: ["field.untranslated"] });
  const none = await lost(t, create, listing(server({ created: old }), server({ name: "web2" })));
  assert.equal(none.result, "refused");
  const two = await lost(t, create, listing(server(), server({ id: other })));
  assert.deepEqual(two, { result: "applied", changes: [], gaps: ["outcome.unknown"] });
});

test("a lost create is not confused with what another command made", async (t) => {
  const { cloud, fixture } = await both(t);
  let cut = false;
  cloud.reply = ({ method, url }) => {
    if (method === "POST") return cut ? "cut" : created;
    if (!url.startsWith("/nova/v2.1/servers/detail")) return undefined;
    return { status: 200, body: { servers: [server(), server({ id: other })] } };
  };
  assert.equal((await fixture.call("POST", "/compute/v2.1/servers", serverBody)).status, 202);
  cut = true;
  assert.equal((await fixture.call("POST", "/compute/v2.1/servers", serverBody)).status, 504);
  await until(async () => (await fixture.journal.open(shop)).length === 0);
  const entry = (await fixture.journal.read(shop, 0, 10)).at(-1);
  assert.deepEqual(
    entry?.outcome?.changes.map((change) => change.id),
    [other, other],
  );
});

test("a lost delete, update, attachment and action are read from the cloud's state", async (t) => {
  const path = `/compute/v2.1/servers/${id}`;
  const at = `GET /nova/v2.1/servers/${id}`;
  const shown = (more: object = {}) => ({ [at]: { status: 200, body: { server: server(more) } } });
  const gone = await lost(t, ["DELETE", path], {});
  assert.deepEqual(gone, { result: "applied", changes: [["delete", id]], gaps: [] });
  const leaving = await lost(t, ["DELETE", path], shown({ "OS-EXT-STS:task_state": "deleting" }));
  assert.equal(leaving.result, "applied");
  assert.equal((await lost(t, ["DELETE", path], shown())).result, "refused");
  const rename = ["PUT", path, { server: { name: "new" } }] as const;
  assert.deepEqual((await lost(t, rename, shown({ name: "new" }))).changes, [["tag", id]]);
  assert.equal((await lost(t, rename, shown())).result, "refused");
  const stop = ["POST", `${path}/action`, { "os-stop": null }] as const;
  assert.deepEqual((await lost(t, stop, shown({ status: "SHUTOFF" }))).changes, [["update", id]]);
  assert.equal((await lost(t, stop, shown())).result, "refused");
  const attach = [
    "POST",
    `${path}/os-volume_attachments`,
    { volumeAttachment: { volumeId: other } },
  ] as const;
  const attachments = (...list: readonly object[]) => ({
    [`${at}/os-volume_attachments`]: { status: 200, body: { volumeAttachments: list } },
  });
  const attached = attachments({ id: other, volumeId: other, serverId: id, device: "/dev/vdb" });
  assert.equal((await lost(t, attach, attached)).result, "applied");
  assert.equal((await lost(t, attach, attachments())).result, "refused");
  const dump = ["POST", `${path}/action`, { trigger_crash_dump: null }] as const;
  assert.deepEqual((await lost(t, dump, shown())).gaps, ["outcome.unknown"]);
});

test("a server error is not believed: the cloud is asked, and the caller gets its words", async (t) => {
  const { cloud, fixture } = await both(t);
  cloud.reply = ({ method, url }) => {
    if (method === "POST")
      return { status: 503, body: "<html>proxy</html>", headers: { "content-type": "text/html" } };
    return url.startsWith("/nova/v2.1/servers/detail")
      ? { status: 200, body: { servers: [server()] } }
      : undefined;
  };
  const answer = await fixture.call("POST", "/compute/v2.1/servers", serverBody);
  assert.deepEqual([answer.status, answer.text], [503, "<html>proxy</html>"]);
  await until(async () => (await fixture.journal.open(shop)).length === 0);
  const entry = (await fixture.journal.read(shop, 0, 10)).at(-1);
  assert.equal(entry?.outcome?.result, "applied");
});

test("a command that was open when the process ended is settled by the next one, and held until then", async (t) => {
  const cloud = await startFakeOpenstack(t);
  const first = await startOpenstackFixture(t, { authUrl: cloud.authUrl });
  cloud.reply = ({ method }) => (method === "POST" ? "cut" : { status: 500, body: {} });
  assert.equal((await first.call("POST", "/compute/v2.1/servers", serverBody)).status, 504);
  assert.equal((await first.journal.open(shop)).length, 1);
  await first.stop();
  const second = await startOpenstackFixture(t, { authUrl: cloud.authUrl, folder: first.folder });
  cloud.reply = serving({ "GET /nova/v2.1/servers/detail": { status: 200, body: { servers: [server()] } } });
  await until(async () => (await second.journal.open(shop)).length === 0);
  const entry = (await second.journal.read(shop, 0, 10)).at(-1);
  assert.deepEqual(
    entry?.outcome?.changes.map((change) => change.id),
    [id, id],
  );
});
