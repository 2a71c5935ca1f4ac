// The window between intent and outcome, with a cloud whose API has no idempotency tokens: the gateway dies (SIGKILL) at each durable
// step of a workload, with the cloud losing answers too. Afterwards journal and cloud agree exactly.
import assert from "node:assert/strict";
import type { ChildProcess } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { type Devcloud, startDevcloud } from "#devcloud/start-devcloud.ts";
import { callAt, passwordLogin } from "#gateway/openstack/openstack.fixture.ts";
import { openJournal } from "#journal/open-journal.ts";
import { systemClock } from "#kernel/clock.ts";
import { environmentId } from "#kernel/ids.ts";
import { EnvironmentState } from "#model/environment-state.ts";
import { openSqliteStore } from "#store/open-sqlite-store.ts";
import { startGatewayChild, stopGatewayChild } from "../gateway/gateway-child.ts";
import type { OpenstackChildOptions } from "./openstack-child.ts";

interface Client {
  call(method: string, path: string, body?: unknown): Promise<Record<string, unknown>>;
}

interface Running {
  readonly process: ChildProcess;
  readonly client: Client;
}

/** An answer that is no success. */
class Refused extends Error {
  readonly status: number;

  constructor(status: number, text: string) {
    super(`${status} ${text}`);
    this.status = status;
  }
}

async function login(address: string, user: string, password: string, project?: string): Promise<Client> {
  const body = passwordLogin(user, password, project);
  const granted = await callAt(address, "POST", "/identity/v3/auth/tokens", body, {});
  const token = granted.headers["x-subject-token"];
  assert.ok(typeof token === "string", granted.text);
  return {
    call: async (method, path, content) => {
      const answer = await callAt(address, method, path, content, { token });
      if (answer.status >= 300) throw new Refused(answer.status, answer.text);
      return answer.body;
    },
  };
}

async function startChild(options: OpenstackChildOptions): Promise<Running | undefined> {
  const started = await startGatewayChild(new URL("./openstack-child.ts", import.meta.url), options);
  if (started === undefined) return undefined;
  const { address, id, secret } = started.at;
  return { process: started.process, client: await login(address, id, secret) };
}

/** A user's tool that looks before it repeats what was not answered. */
class Tool {
  restarts = 0;
  #client: Client;
  readonly #revive: () => Promise<Client>;

  constructor(client: Client, revive: () => Promise<Client>) {
    this.#client = client;
    this.#revive = revive;
  }

  async until<T>(attempt: (client: Client) => Promise<T>, look: () => Promise<T | undefined>): Promise<T> {
    for (let tries = 0; ; tries += 1) {
      try {
        const found = tries === 0 ? undefined : await look();
        return found ?? (await attempt(this.#client));
      } catch (error) {
        if (tries > 30 || (error instanceof Refused && error.status < 500 && error.status !== 409))
          throw error;
        if (error instanceof Refused) await sleep(50);
        else {
          this.#client = await this.#revive();
          this.restarts += 1;
        }
      }
    }
  }
}

type Item = Readonly<Record<string, unknown>>;

interface Scenario {
  readonly cloud: Devcloud;
  readonly direct: Client;
  readonly project: string;
  readonly name: string;
  readonly killAt: number;
  readonly lose: readonly string[];
}

async function listed(direct: Client, path: string, plural: string, name: string): Promise<Item[]> {
  const all = (await direct.call("GET", path))[plural] as Item[];
  return all.filter((item) => item["name"] === name);
}

/** Ends with one network, one server and no volume; returns the ids as the tool was told them. */
async function workload(tool: Tool, { direct, name, project }: Scenario): Promise<string[]> {
  const make = (post: string, list: string, plural: string, noun: string, body: Item): Promise<string> =>
    tool.until(
      async (client) => String(((await client.call("POST", post, { [noun]: body }))[noun] as Item)["id"]),
      async () => {
        const id = (await listed(direct, list, plural, name))[0]?.["id"];
        return typeof id === "string" ? id : undefined;
      },
    );
  const remove = (path: string): Promise<unknown> =>
    tool.until(
      async (client) => (await client.call("DELETE", path), true),
      async () => {
        const there = await direct.call("GET", path).catch((error: unknown) => error);
        return there instanceof Refused && there.status === 404 ? true : undefined;
      },
    );
  const networks = "/networking/v2.0/networks";
  const network = await make(networks, networks, "networks", "network", { name });
  const flavors = (await direct.call("GET", "/compute/v2.1/flavors"))["flavors"] as Item[];
  const images = (await direct.call("GET", "/image/v2/images"))["images"] as Item[];
  const server = await make("/compute/v2.1/servers", "/compute/v2.1/servers/detail", "servers", "server", {
    name,
    imageRef: images[0]?.["id"],
    flavorRef: flavors[0]?.["id"],
    networks: "none",
  });
  const at = `/compute/v2.1/servers/${server}/metadata`;
  await tool.until(
    async (client) => (await client.call("POST", at, { metadata: { run: name } }), true),
    async () => (((await direct.call("GET", at))["metadata"] as Item)["run"] === name ? true : undefined),
  );
  const volumes = `/volume/v3/${project}/volumes`;
  const volume = await make(volumes, `${volumes}/detail`, "volumes", "volume", { name, size: 1 });
  while (((await direct.call("GET", `${volumes}/${volume}`))["volume"] as Item)["status"] !== "available")
    await sleep(20);
  await remove(`${volumes}/${volume}`);
  return [network, server];
}

async function folded(
  folder: string,
  name: string,
): Promise<{ state: EnvironmentState; open: number; made: string[] }> {
  const store = await openSqliteStore({ path: join(folder, "state.db"), readOnly: true });
  const journal = await openJournal(store, { clock: systemClock });
  const id = environmentId(name);
  const state = new EnvironmentState();
  const made: string[] = [];
  for (const { outcome } of await journal.read(id, 0, 1_000)) {
    for (const change of outcome?.changes ?? []) {
      state.apply(change);
      if (change.type === "create") made.push(`${change.kind} ${change.id}`);
    }
  }
  const { open } = await journal.counts(id);
  await store.close();
  return { state, open, made };
}

/** True if the gateway was killed on the way. */
async function runScenario(scenario: Scenario): Promise<boolean> {
  const { cloud, name, killAt, lose } = scenario;
  const folder = await mkdtemp(join(tmpdir(), "understudy-kill-"));
  const faults = lose.map((operation) => ({ operation, effect: "fail-after", answer: "cut", count: 1 }));
  const put = await fetch(`${cloud.endpoint}/_devcloud/faults`, {
    method: "PUT",
    headers: { authorization: `Bearer ${cloud.adminToken.reveal()}`, "content-type": "application/json" },
    body: JSON.stringify(faults),
  });
  assert.equal(put.status, 200);
  const options: OpenstackChildOptions = {
    folder,
    authUrl: `${cloud.endpoint}/identity`,
    region: cloud.region,
    user: cloud.accessKeyId,
    password: cloud.secretAccessKey.reveal(),
    environment: name,
    killAt,
  };
  let running = await startChild(options);
  assert.ok(running !== undefined, "the first start has no open commands to resolve");
  const revive = async (): Promise<Client> => {
    if (running !== undefined) await stopGatewayChild(running.process);
    running = await startChild({ ...options, killAt: 0 });
    assert.ok(running !== undefined);
    return running.client;
  };
  const tool = new Tool(running.client, revive);
  try {
    const [network = "", server = ""] = await workload(tool, scenario);
    if (running === undefined || running.process.signalCode !== null) await revive();
    while ((await folded(folder, name)).open > 0) await sleep(20);
    const { state, made } = await folded(folder, name);
    const recorded = [...state.resources()].map(({ kind, id }) => `${kind} ${id}`).toSorted();
    assert.deepEqual(
      recorded,
      [`network ${network}`, `server ${server}`],
      "the journal is what the tool was told",
    );
    assert.equal(new Set(made).size, made.length, "nothing was made twice");
    assert.equal(state.get("server", server as never)?.tags["run"], name);
    const { direct, project } = scenario;
    const there = async (path: string, plural: string): Promise<unknown[]> =>
      (await listed(direct, path, plural, name)).map((item) => item["id"]);
    assert.deepEqual(await there("/networking/v2.0/networks", "networks"), [network]);
    assert.deepEqual(await there("/compute/v2.1/servers/detail", "servers"), [server]);
    assert.deepEqual(await there(`/volume/v3/${project}/volumes/detail`, "volumes"), []);
    return tool.restarts > 0;
  } finally {
    if (running !== undefined) await stopGatewayChild(running.process);
    await rm(folder, { recursive: true });
  }
}

async function withCloud(t: TestContext, lose: readonly string[]): Promise<void> {
  const dataDir = await mkdtemp(join(tmpdir(), "understudy-cloud-"));
  const cloud = await startDevcloud({
    dialect: "openstack",
    dataDir,
    compute: "none",
    addressBase: "127.63.0.0/16",
  });
  t.after(async () => {
    await cloud.close();
    await rm(dataDir, { recursive: true });
  });
  const direct = await login(
    cloud.endpoint,
    cloud.accessKeyId,
    cloud.secretAccessKey.reveal(),
    cloud.accessKeyId,
  );
  const owned = await direct.call("GET", "/identity/v3/auth/projects");
  const project = String((owned["projects"] as Item[])[0]?.["id"]);
  let killAt = 1;
  for (; ; killAt += 1) {
    const name = `run-${lose.length}-${killAt}`;
    const killed = await runScenario({ cloud, direct, project, name, killAt, lose });
    if (!killed) break;
  }
  // Five changes have two durable steps each.
  assert.ok(killAt > 10, `the kill reached each step: ${killAt - 1}`);
}

test("killed at each durable step, the journal and the cloud agree afterwards", { timeout: 300_000 }, (t) =>
  withCloud(t, []),
);

test("the same while the cloud loses answers after it did what was asked", { timeout: 300_000 }, (t) =>
  withCloud(t, ["POST /network/networks", "POST /compute/servers", "POST /volume/volumes"]),
);
