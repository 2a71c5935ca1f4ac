/**
 * Two clouds alike: one that clients reach directly, one that they reach through the whole of Understudy (gateway, journal, engine,
 * a third cloud as the standby). What a client is told must be the same.
 */
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { stringify } from "yaml";
import { readConfig } from "#config/read-config.ts";
import { type Devcloud, startDevcloud } from "#devcloud/start-devcloud.ts";
import { openEc2Cloud } from "#drivers/ec2/ec2-cloud.ts";
import type { Cloud } from "#cloud/contract.ts";
import { openAccessKeys } from "#gateway/access-keys.ts";
import { openJournal } from "#journal/open-journal.ts";
import { systemClock } from "#kernel/clock.ts";
import { environmentId } from "#kernel/ids.ts";
import { silentLog } from "#kernel/log.ts";
import { systemRandom } from "#kernel/random.ts";
import { startEngine } from "#main/engine.ts";
import type { JournalEntry } from "#model/command.ts";
import { openSqliteStore } from "#store/open-sqlite-store.ts";
import type { Endpoint } from "./client.ts";

export const environment = environmentId("shop");
export const image = "ami-0a1b2c3d4e5f60001";

export interface TwoWays {
  readonly direct: Endpoint;
  readonly through: Endpoint;
  /** Through the gateway, with a key that may only read. */
  readonly readOnly: Endpoint;
  /** Of the gateway. */
  readonly apiUrl: string;
  readonly apiToken: string;
  /** The same of both clouds, through their admin API. */
  admin(method: string, path: string, body?: unknown): Promise<void>;
  /** All that the gateway recorded, by seq. */
  journal(): Promise<readonly JournalEntry[]>;
  /** The cloud behind the gateway, read past it. */
  openCloudBehind(): Cloud;
  [Symbol.asyncDispose](): Promise<void>;
}

export interface TwoWaysOptions {
  /** Stands before each of the two clouds, whose endpoint it is given; answers its own. */
  readonly front?: (endpoint: string) => Promise<string>;
}

/** Addresses are drawn from the same range, so that they are the same: nothing listens on them without compute. */
function startCloud(dataDir: string): Promise<Devcloud> {
  return startDevcloud({ dialect: "ec2", dataDir, compute: "none", addressBase: "127.71.0.0/16" });
}

function endpointOf({ endpoint, region, accessKeyId, secretAccessKey }: Devcloud): Endpoint {
  return { url: endpoint, region, accessKeyId, secretAccessKey: secretAccessKey.reveal() };
}

export async function startTwoWays(options: TwoWaysOptions = {}): Promise<TwoWays> {
  const stack = new AsyncDisposableStack();
  const folder = await mkdtemp(join(tmpdir(), "understudy-clients-"));
  stack.defer(() => rm(folder, { recursive: true }));
  const clouds: Devcloud[] = [];
  for (const name of ["direct", "active", "standby"]) {
    const cloud = await startCloud(join(folder, name));
    stack.defer(() => cloud.close());
    clouds.push(cloud);
  }
  const [direct, active, standby] = clouds as [Devcloud, Devcloud, Devcloud];
  const front = options.front ?? ((endpoint: string) => Promise.resolve(endpoint));
  const urls = { direct: await front(direct.endpoint), active: await front(active.endpoint) };
  const site = (name: string, { region }: Devcloud, endpoint: string) => ({
    driver: "ec2",
    region,
    endpoint,
    credentials: { accessKeyId: { file: `./${name}.id` }, secretAccessKey: { file: `./${name}/secret-key` } },
  });
  for (const [name, cloud] of Object.entries({ active, standby })) {
    await writeFile(join(folder, `${name}.id`), cloud.accessKeyId, { mode: 0o600 });
  }
  const path = join(folder, "understudy.yaml");
  await writeFile(
    path,
    stringify({
      version: 1,
      listen: { gateway: "127.0.0.1:0", api: "127.0.0.1:0" },
      sites: {
        active: site("active", active, urls.active),
        standby: site("standby", standby, standby.endpoint),
      },
      environments: {
        shop: {
          active: "active",
          standby: "standby",
          translate: { images: { [image]: image } },
          probes: [{ name: "cloud", check: { cloudApi: "active" } }],
          failover: {},
        },
      },
    }),
  );
  const { config } = readConfig(path);
  await mkdir(config.data, { mode: 0o700 });
  const ports = { clock: systemClock, random: systemRandom };
  const keys = await openAccessKeys(join(config.data, "access-keys.json"), ports);
  const change = await keys.create({ environment, rights: "change", label: "tools" });
  const read = await keys.create({ environment, rights: "read-only", label: "dashboards" });
  const engine = await startEngine({ config, folder, version: "0.0.0", ...ports, log: silentLog });
  stack.defer(() => engine.close());
  const gateway = (key: typeof change): Endpoint => ({
    url: engine.gatewayUrl,
    region: active.region,
    accessKeyId: key.id,
    secretAccessKey: key.secret.reveal(),
  });
  const opened = stack.move();
  return {
    direct: { ...endpointOf(direct), url: urls.direct },
    through: gateway(change),
    readOnly: gateway(read),
    apiUrl: engine.apiUrl,
    apiToken: (await readFile(join(config.data, "api-token"), "utf8")).trim(),
    admin: async (method, path, body) => {
      await Promise.all([direct, active].map((cloud) => callAdmin(cloud, method, path, body)));
    },
    journal: () => readJournal(join(config.data, "understudy.db")),
    openCloudBehind: () =>
      openEc2Cloud({
        endpoint: active.endpoint,
        region: active.region,
        credentials: { accessKeyId: active.accessKeyId, secretAccessKey: active.secretAccessKey },
        clock: systemClock,
        log: silentLog,
      }),
    [Symbol.asyncDispose]: () => opened.disposeAsync(),
  };
}

async function callAdmin(cloud: Devcloud, method: string, path: string, body: unknown): Promise<void> {
  const answer = await fetch(`${cloud.endpoint}/_devcloud/${path}`, {
    method,
    headers: { authorization: `Bearer ${cloud.adminToken.reveal()}`, "content-type": "application/json" },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${await answer.text()}`);
}

async function readJournal(path: string): Promise<readonly JournalEntry[]> {
  const store = await openSqliteStore({ path, readOnly: true });
  try {
    const journal = await openJournal(store, { clock: systemClock });
    return await journal.tail(environment, 10_000);
  } finally {
    await store.close();
  }
}
