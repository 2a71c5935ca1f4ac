/** A gateway with its real journal over a small upstream of the test's own, and a client that signs. For tests alone. */
import { mkdtemp, rm } from "node:fs/promises";
import { type IncomingMessage, type Server, type ServerResponse, createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import { request as send } from "undici";
import { systemClock } from "#kernel/clock.ts";
import { environmentId } from "#kernel/ids.ts";
import { silentLog } from "#kernel/log.ts";
import { systemRandom } from "#kernel/random.ts";
import { Secret } from "#kernel/secret.ts";
import type { Journal } from "#journal/contract.ts";
import { openJournal } from "#journal/open-journal.ts";
import type { Store } from "#store/contract.ts";
import { type SqliteStoreOptions, openSqliteStore } from "#store/open-sqlite-store.ts";
import { signSigV4 } from "#wire/aws/sigv4.ts";
import { type AccessKeyWithSecret, type AccessKeys, openAccessKeys } from "./access-keys.ts";
import type { AwsCredentials } from "./aws/aws-credentials.ts";
import { type AwsDialectOptions, openAwsDialect } from "./aws/aws-dialect.ts";
import type { UpstreamService, Upstreams } from "./dialect.ts";
import type { FenceView, GatewayLimits } from "./gateway-options.ts";
import { type Gateway, startGateway } from "./start-gateway.ts";

export const shop = environmentId("shop");
export const region = "eu-west-1";
export const realSecret = "the-real-secret-of-the-cloud-000000000000";
export const realCredentials: AwsCredentials = {
  kind: "aws",
  accessKeyId: "AKIAREALREALREALREAL",
  secretAccessKey: new Secret(realSecret),
};

export interface Received {
  readonly action: string;
  readonly parameters: URLSearchParams;
  readonly headers: IncomingMessage["headers"];
  readonly url: string;
}

export type Reply = (received: Received, response: ServerResponse) => void;

export interface FakeCloud {
  readonly endpoint: string;
  readonly port: number;
  readonly received: Received[];
  /** How it answers from now on. */
  reply: Reply;
  close(): Promise<void>;
}

const xml = '<?xml version="1.0" encoding="UTF-8"?>\n';

export function okReply({ action, parameters }: Received, response: ServerResponse): void {
  const id = parameters
    .get("ClientToken")
    ?.replaceAll(/[^0-9a-f]/g, "")
    .padEnd(17, "0")
    .slice(0, 17);
  const members =
    action === "RunInstances"
      ? `<reservationId>r-1</reservationId><instancesSet><item><instanceId>i-${id}</instanceId><imageId>ami-1</imageId><instanceType>t3.micro</instanceType></item></instancesSet>`
      : action === "CreateVolume"
        ? `<volumeId>vol-${id}</volumeId><size>1</size><availabilityZone>eu-west-1a</availabilityZone>`
        : "<return>true</return>";
  response.writeHead(200, { "content-type": "text/xml;charset=UTF-8", "x-amzn-RequestId": "cloud-1" });
  response.end(`${xml}<${action}Response><requestId>cloud-1</requestId>${members}</${action}Response>`);
}

export function errorReply(status: number, code: string, headers: Record<string, string> = {}): Reply {
  return (_received, response) => {
    response.writeHead(status, { "content-type": "text/xml", ...headers });
    response.end(
      `${xml}<Response><Errors><Error><Code>${code}</Code><Message>no</Message></Error></Errors><RequestID>cloud-2</RequestID></Response>`,
    );
  };
}

export async function startFakeCloud(t: Pick<TestContext, "after">, port = 0): Promise<FakeCloud> {
  const server: Server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      const parameters = new URLSearchParams(Buffer.concat(chunks).toString());
      const { headers, url = "" } = request;
      const seen: Received = { action: parameters.get("Action") ?? "", parameters, headers, url };
      cloud.received.push(seen);
      cloud.reply(seen, response);
    });
  });
  await new Promise<void>((resolve) => server.listen(port, "127.0.0.1", resolve));
  const bound = (server.address() as AddressInfo).port;
  const cloud: FakeCloud = {
    endpoint: `http://127.0.0.1:${bound}`,
    port: bound,
    received: [],
    reply: okReply,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
  t.after(() => cloud.close());
  return cloud;
}

export function upstreams(endpoint: string): Upstreams {
  const service: UpstreamService = { endpoint, region, credentials: realCredentials };
  return new Map([
    ["ec2", service],
    ["sts", service],
    ["elasticloadbalancing", service],
  ]);
}

export interface Answered {
  readonly status: number;
  readonly headers: Record<string, string | string[] | undefined>;
  readonly text: string;
  readonly code: string | undefined;
}

export interface Fixture {
  readonly gateway: Gateway;
  readonly journal: Journal;
  readonly store: Store;
  readonly keys: AccessKeys;
  readonly key: AccessKeyWithSecret;
  readonly readKey: AccessKeyWithSecret;
  readonly folder: string;
  fence: FenceView;
  call(parameters: Record<string, string>, options?: CallOptions): Promise<Answered>;
}

export interface CallOptions {
  readonly key?: Pick<AccessKeyWithSecret, "id" | "secret">;
  readonly service?: string;
  readonly region?: string;
  readonly signal?: AbortSignal;
  readonly body?: string;
}

export interface FixtureOptions {
  readonly services: Upstreams;
  readonly limits?: Partial<GatewayLimits>;
  readonly store?: Partial<SqliteStoreOptions>;
  readonly dialect?: Partial<AwsDialectOptions>;
  /** To start again on the state of an earlier one. */
  readonly folder?: string;
  readonly journal?: (journal: Journal) => Journal;
}

export async function startFixture(t: Pick<TestContext, "after">, options: FixtureOptions): Promise<Fixture> {
  const folder = options.folder ?? (await mkdtemp(join(tmpdir(), "understudy-gateway-")));
  const store = await openSqliteStore({ path: join(folder, "state.db"), ...options.store });
  const ports = { clock: systemClock, random: systemRandom };
  const keys = await openAccessKeys(join(folder, "keys.json"), ports);
  const key = await keys.create({ environment: shop, rights: "change", label: "test" });
  const readKey = await keys.create({ environment: shop, rights: "read-only", label: "test" });
  if (options.folder === undefined) await insertEnvironment(store);
  const opened = await openJournal(store, { clock: systemClock });
  const journal = options.journal?.(opened) ?? opened;
  const dialect = await openAwsDialect({ keys, ...ports, ...options.dialect });
  const fixture = { fence: { epoch: 1, moved: null } as FenceView };
  const gateway = await startGateway({
    listen: { host: "127.0.0.1", port: 0 },
    environments: [{ id: shop, services: options.services }],
    dialects: [dialect],
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
  t.after(async () => {
    await gateway.close();
    await store.close();
    if (options.folder === undefined) await rm(folder, { recursive: true });
  });
  return Object.assign(fixture, {
    gateway,
    journal,
    store,
    keys,
    key,
    readKey,
    folder,
    call: (parameters: Record<string, string>, how: CallOptions = {}) =>
      call(gateway.address, key, parameters, how),
  });
}

async function insertEnvironment(store: Store): Promise<void> {
  const row = { id: shop, active_site: "a", standby_site: "b", phase: "protected", epoch: 1, updated_at: 0 };
  await store.commit([{ query: store.db.insertInto("environment").values(row).compile() }]);
}

export function signedForm(
  address: string,
  key: Pick<AccessKeyWithSecret, "id" | "secret">,
  body: string,
  options: Pick<CallOptions, "service" | "region"> = {},
): Record<string, string> {
  const headers = {
    host: new URL(address).host,
    "content-type": "application/x-www-form-urlencoded; charset=utf-8",
  };
  const added = signSigV4(
    { method: "POST", path: "/", headers, body },
    { accessKeyId: key.id, secretAccessKey: key.secret },
    { region: options.region ?? region, service: options.service ?? "ec2" },
    Date.now(),
  );
  return { ...headers, ...added };
}

async function call(
  address: string,
  key: AccessKeyWithSecret,
  parameters: Record<string, string>,
  options: CallOptions,
): Promise<Answered> {
  const body = options.body ?? new URLSearchParams({ Version: "2016-11-15", ...parameters }).toString();
  const answer = await send(`${address}/`, {
    method: "POST",
    headers: signedForm(address, options.key ?? key, body, options),
    body,
    ...(options.signal === undefined ? {} : { signal: options.signal }),
  });
  const text = await answer.body.text();
  const code = /<Code>([^<]*)<\/Code>/.exec(text)?.[1];
  return { status: answer.statusCode, headers: answer.headers, text, code };
}

/** Resolves when it holds; what never comes fails the test by its own time limit. */
export async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await condition())) await turn();
}
