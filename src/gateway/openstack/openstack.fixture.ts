/** A gateway that speaks OpenStack, with its real journal, and a small OpenStack of the test's own behind it. For tests alone. */
import { mkdtemp, rm } from "node:fs/promises";
import { type IncomingHttpHeaders, type ServerResponse, createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { request as send } from "undici";
import { systemClock } from "#kernel/clock.ts";
import { environmentId } from "#kernel/ids.ts";
import { silentLog } from "#kernel/log.ts";
import { systemRandom } from "#kernel/random.ts";
import { Secret } from "#kernel/secret.ts";
import type { Journal } from "#journal/contract.ts";
import { openJournal } from "#journal/open-journal.ts";
import { openSqliteStore } from "#store/open-sqlite-store.ts";
import { type AccessKeyWithSecret, type AccessKeys, openAccessKeys } from "#gateway/access-keys.ts";
import type { UpstreamService } from "#gateway/dialect.ts";
import type { FenceView, GatewayLimits } from "#gateway/gateway-options.ts";
import { type Gateway, startGateway } from "#gateway/start-gateway.ts";
import {
  KeystoneAccess,
  type KeystoneAccessOptions,
  type OpenstackUpstreamCredentials,
} from "./openstack-access.ts";
import { type OpenstackDialectOptions, createOpenstackDialect } from "./openstack-dialect.ts";

export const shop = environmentId("shop");
export const realPassword = "the-real-password-of-the-cloud";
export const cloudProject = "0123456789abcdef0123456789abcdef";

export interface Received {
  readonly method: string;
  /** Path and query. */
  readonly url: string;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
}

export interface Reply {
  readonly status: number;
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
}

/** `cut`: the request has been taken, and no answer comes. */
export type Replier = (received: Received) => Reply | "cut" | undefined;

export interface FakeOpenstack {
  readonly origin: string;
  readonly authUrl: string;
  /** Without those to Keystone. */
  readonly received: Received[];
  readonly logins: Received[];
  /** Asked first; undefined leaves it to the default: 404. */
  reply: Replier;
  /** Tokens given out, the newest last; taken away: 401. */
  readonly tokens: string[];
  /** How long tokens last, in milliseconds. */
  lifetimeMs: number;
  close(): Promise<void>;
}

export async function startFakeOpenstack(t: Pick<TestContext, "after">): Promise<FakeOpenstack> {
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      const { method = "", url = "", headers } = request;
      answer(cloud, { method, url, headers, text: Buffer.concat(chunks).toString() }, response);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const cloud: FakeOpenstack = {
    origin,
    authUrl: `${origin}/identity/v3`,
    received: [],
    logins: [],
    reply: () => undefined,
    tokens: [],
    lifetimeMs: 3_600_000,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
  t.after(() => cloud.close());
  return cloud;
}

function answer(cloud: FakeOpenstack, received: Received, response: ServerResponse): void {
  if (received.url === "/identity/v3/auth/tokens") {
    cloud.logins.push(received);
    if (!received.text.includes(realPassword)) {
      write(response, { status: 401, body: { error: { code: 401, title: "Unauthorized", message: "no" } } });
      return;
    }
    const token = `real-token-${cloud.tokens.length}`;
    cloud.tokens.push(token);
    write(response, { status: 201, headers: { "x-subject-token": token }, body: tokenOf(cloud) });
    return;
  }
  cloud.received.push(received);
  if (!cloud.tokens.includes(String(received.headers["x-auth-token"]))) {
    write(response, { status: 401, body: { error: { code: 401, title: "Unauthorized", message: "no" } } });
    return;
  }
  const reply = cloud.reply(received);
  if (reply === "cut") response.destroy();
  else write(response, reply ?? { status: 404, body: { itemNotFound: { code: 404, message: "not here" } } });
}

function tokenOf({ origin, lifetimeMs }: FakeOpenstack): unknown {
  const catalog = [
    ["compute", `${origin}/nova/v2.1`],
    ["network", `${origin}/neutron`],
    ["image", `${origin}/glance`],
    ["volumev3", `${origin}/cinder/v3/${cloudProject}`],
  ].map(([type, url]) => ({ type, endpoints: [{ interface: "public", region: "RegionOne", url }] }));
  return {
    token: {
      expires_at: new Date(Date.now() + lifetimeMs).toISOString(),
      user: { id: "u", name: "real" },
      project: { id: cloudProject, name: "real-project" },
      catalog,
    },
  };
}

function write(response: ServerResponse, { status, body, headers = {} }: Reply): void {
  response.writeHead(status, { "content-type": "application/json", ...headers });
  response.end(body === undefined ? "" : typeof body === "string" ? body : JSON.stringify(body));
}

export interface Answered {
  readonly status: number;
  readonly headers: Record<string, string | string[] | undefined>;
  readonly text: string;
  // What the tests look into is theirs to know.
  readonly body: Record<string, never> & { readonly [name: string]: unknown };
}

export interface CallOptions {
  readonly token?: string | null;
  readonly headers?: Readonly<Record<string, string>>;
  readonly raw?: string | Buffer;
}

export interface OpenstackFixture {
  readonly gateway: Gateway;
  readonly journal: Journal;
  readonly keys: AccessKeys;
  readonly key: AccessKeyWithSecret;
  readonly readKey: AccessKeyWithSecret;
  readonly access: KeystoneAccess;
  readonly folder: string;
  fence: FenceView;
  /** Ends the gateway and its store; the folder stays for another one until the test's end. */
  stop(): Promise<void>;
  login(key?: Pick<AccessKeyWithSecret, "id" | "secret">): Promise<string>;
  call(method: string, path: string, body?: unknown, options?: CallOptions): Promise<Answered>;
}

export interface OpenstackFixtureOptions {
  readonly authUrl: string;
  readonly access?: Partial<KeystoneAccessOptions>;
  readonly limits?: Partial<GatewayLimits>;
  readonly dialect?: Partial<OpenstackDialectOptions>;
  readonly journal?: (journal: Journal) => Journal;
  /** To start again on the state of an earlier one. */
  readonly folder?: string;
  readonly region?: string;
}

export async function startOpenstackFixture(
  t: Pick<TestContext, "after">,
  options: OpenstackFixtureOptions,
): Promise<OpenstackFixture> {
  const folder = options.folder ?? (await mkdtemp(join(tmpdir(), "understudy-gateway-openstack-")));
  const store = await openSqliteStore({ path: join(folder, "state.db") });
  const ports = { clock: systemClock, random: systemRandom };
  const keys = await openAccessKeys(join(folder, "keys.json"), ports);
  const key = await keys.create({ environment: shop, rights: "change", label: "test" });
  const readKey = await keys.create({ environment: shop, rights: "read-only", label: "test" });
  if (options.folder === undefined) {
    const row = {
      id: shop,
      active_site: "a",
      standby_site: "b",
      phase: "protected",
      epoch: 1,
      updated_at: 0,
    };
    await store.commit([{ query: store.db.insertInto("environment").values(row).compile() }]);
  }
  const opened = await openJournal(store, { clock: systemClock });
  const journal = options.journal?.(opened) ?? opened;
  const access = new KeystoneAccess({
    authUrl: options.authUrl,
    credentials: { type: "password", user: { name: "real" }, password: new Secret(realPassword) },
    project: { name: "real-project" },
    region: "RegionOne",
    clock: systemClock,
    ...options.access,
  });
  const credentials: OpenstackUpstreamCredentials = { kind: "openstack", access };
  const service: UpstreamService = {
    endpoint: options.authUrl,
    region: options.region ?? "RegionOne",
    credentials,
  };
  const fixture = { fence: { epoch: 1, moved: null } as FenceView };
  const gateway = await startGateway({
    listen: { host: "127.0.0.1", port: 0 },
    environments: [{ id: shop, services: new Map([["openstack", service]]) }],
    dialects: [createOpenstackDialect({ keys, ...ports, ...options.dialect })],
    journal,
    fence: () => fixture.fence,
    ...ports,
    log: silentLog,
    limits: {
      settleMs: 0,
      connectTimeoutMs: 1_000,
      answerTimeoutMs: 5_000,
      closeGraceMs: 1_000,
      ...options.limits,
    },
  });
  const stop = once(async () => {
    await gateway.close();
    await access[Symbol.asyncDispose]();
    await store.close();
  });
  t.after(async () => {
    await stop();
    if (options.folder === undefined) await rm(folder, { recursive: true });
  });
  let token: Promise<string> | undefined;
  const login = (who: Pick<AccessKeyWithSecret, "id" | "secret"> = key): Promise<string> =>
    loginAt(gateway.address, who);
  return Object.assign(fixture, {
    gateway,
    journal,
    keys,
    key,
    readKey,
    access,
    folder,
    stop,
    login,
    call: async (method: string, path: string, body?: unknown, how: CallOptions = {}) => {
      const given = how.token === undefined ? await (token ??= login()) : how.token;
      return callAt(gateway.address, method, path, body, { ...how, token: given });
    },
  });
}

function once(work: () => Promise<void>): () => Promise<void> {
  let done: Promise<void> | undefined;
  return () => (done ??= work());
}

/** The body of a password login, scoped to the environment. */
export function passwordLogin(name: string, password: string, project?: string): unknown {
  const domain = { id: "default" };
  const scope = project === undefined ? {} : { scope: { project: { name: project, domain } } };
  return {
    auth: { identity: { methods: ["password"], password: { user: { name, password, domain } } }, ...scope },
  };
}

async function loginAt(
  address: string,
  { id, secret }: Pick<AccessKeyWithSecret, "id" | "secret">,
): Promise<string> {
  const body = passwordLogin(id, secret.reveal(), shop);
  const answered = await callAt(address, "POST", "/identity/v3/auth/tokens", body, { token: null });
  const token = answered.headers["x-subject-token"];
  if (typeof token !== "string") throw new Error(`no token: ${answered.status} ${answered.text}`);
  return token;
}

export async function callAt(
  address: string,
  method: string,
  path: string,
  body: unknown,
  { token, headers = {}, raw }: CallOptions,
): Promise<Answered> {
  const content = raw ?? (body === undefined ? undefined : JSON.stringify(body));
  const answered = await send(`${address}${path}`, {
    method: method as "GET",
    headers: {
      ...(content === undefined ? {} : { "content-type": "application/json" }),
      ...(token === null || token === undefined ? {} : { "x-auth-token": token }),
      ...headers,
    },
    ...(content === undefined ? {} : { body: content }),
  });
  const text = await answered.body.text();
  let parsed: unknown = {};
  try {
    parsed = JSON.parse(text);
  } catch {
    // Not every answer is JSON.
  }
  return { status: answered.statusCode, headers: answered.headers, text, body: parsed as Answered["body"] };
}
