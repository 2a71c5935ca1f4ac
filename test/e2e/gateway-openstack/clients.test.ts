/** Clients that nobody here wrote, Debian's openstacksdk and openstackclient: through the gateway they are told what the cloud says. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { promisify } from "node:util";
import { type Devcloud, startDevcloud } from "#devcloud/start-devcloud.ts";
import { type OpenstackFixture, shop, startOpenstackFixture } from "#gateway/openstack/openstack.fixture.ts";

const run = promisify(execFile);
const strict = process.env["UNDERSTUDY_STRICT"] === "1";
const missing = (path: string): false | string =>
  strict || existsSync(path) ? false : `${path} is not installed`;
const script = new URL("./sdk-client.py", import.meta.url).pathname;
const domains = { user_domain_name: "Default", project_domain_name: "Default" };

async function cloudOf(t: TestContext): Promise<Devcloud> {
  const dataDir = await mkdtemp(join(tmpdir(), "understudy-openstack-"));
  const cloud = await startDevcloud({
    dialect: "openstack",
    dataDir,
    compute: "none",
    addressBase: "127.62.0.0/16",
  });
  t.after(async () => {
    await cloud.close();
    await rm(dataDir, { recursive: true });
  });
  return cloud;
}

function gatewayOf(t: TestContext, cloud: Devcloud): Promise<OpenstackFixture> {
  return startOpenstackFixture(t, {
    authUrl: `${cloud.endpoint}/identity`,
    region: cloud.region,
    access: {
      credentials: {
        type: "password",
        user: { name: cloud.accessKeyId, domain: { name: "Default" } },
        password: cloud.secretAccessKey,
      },
      project: { name: cloud.accessKeyId, domain: { name: "Default" } },
      region: cloud.region,
    },
  });
}

function clientEnvironment(): NodeJS.ProcessEnv {
  const kept = Object.entries(process.env).filter(([name]) => !name.startsWith("OS_"));
  return { ...Object.fromEntries(kept), OS_CLIENT_CONFIG_FILE: "/dev/null", LC_ALL: "C.UTF-8" };
}

async function tell(login: object): Promise<unknown[][]> {
  const options = { env: clientEnvironment(), maxBuffer: 16 * 1024 * 1024 };
  const { stdout } = await run("/usr/bin/python3", [script, JSON.stringify(login)], options);
  return JSON.parse(stdout) as unknown[][];
}

const sdk = "/usr/lib/python3/dist-packages/openstack/__init__.py";

test("openstacksdk is told the same, with and without the gateway", { skip: missing(sdk) }, async (t) => {
  const direct = await cloudOf(t);
  const behind = await cloudOf(t);
  const { gateway, key, journal } = await gatewayOf(t, behind);
  const [plain, through] = await Promise.all([
    tell({
      type: "password",
      region: direct.region,
      bases: [[direct.endpoint, "CLOUD"]],
      auth: {
        auth_url: `${direct.endpoint}/identity`,
        username: direct.accessKeyId,
        password: direct.secretAccessKey.reveal(),
        project_name: direct.accessKeyId,
        ...domains,
      },
    }),
    tell({
      type: "v3applicationcredential",
      region: behind.region,
      bases: [
        [gateway.address, "CLOUD"],
        [behind.endpoint, "PAST THE GATEWAY"],
      ],
      auth: {
        auth_url: `${gateway.address}/identity`,
        application_credential_id: key.id,
        application_credential_secret: key.secret.reveal(),
      },
    }),
  ]);
  assert.ok(plain.length > 50);
  assert.deepEqual(through, plain);
  const refused = plain.filter(([, result]) => result === "error").map(([name]) => name);
  assert.deepEqual(refused, [
    "same range again",
    "rule again",
    "key pair again",
    "deleted while in use",
    "network in use",
    "no server",
    "no network",
    "no volume",
    "no image",
    "no size",
  ]);
  assert.equal(JSON.stringify(through).includes("PAST THE GATEWAY"), false);
  assert.equal((await journal.open(shop)).length, 0);
  const entries = await journal.read(shop, 0, 1_000);
  const applied = entries.filter(({ outcome }) => outcome?.result === "applied");
  const kinds = applied.flatMap(({ outcome }) =>
    (outcome?.changes ?? []).map((change) => `${change.type} ${change.kind}`),
  );
  for (const [change, count] of [
    ["create server", 3],
    ["delete server", 3],
    ["create network", 1],
    ["create subnet", 1],
    ["create securityGroup", 1],
    ["create keyPair", 1],
    ["create volume", 2],
    ["create volumeAttachment", 1],
    ["delete volumeAttachment", 1],
    ["delete volume", 2],
    ["delete network", 1],
  ] as const) {
    assert.equal(kinds.filter((kind) => kind === change).length, count, change);
  }
});

test(
  "openstack, the command line, works with the gateway's address alone",
  { skip: missing("/usr/bin/openstack") },
  async (t) => {
    const cloud = await cloudOf(t);
    const { gateway, key, journal } = await gatewayOf(t, cloud);
    const env = {
      ...clientEnvironment(),
      OS_AUTH_URL: `${gateway.address}/identity`,
      OS_USERNAME: key.id,
      OS_PASSWORD: key.secret.reveal(),
      OS_PROJECT_NAME: shop,
      OS_USER_DOMAIN_NAME: "Default",
      OS_PROJECT_DOMAIN_NAME: "Default",
      OS_IDENTITY_API_VERSION: "3",
      OS_REGION_NAME: cloud.region,
    };
    const openstack = async (...words: string[]): Promise<unknown> =>
      JSON.parse((await run("/usr/bin/openstack", [...words, "-f", "json"], { env })).stdout || "null");
    await openstack("network", "create", "front");
    const networks = (await openstack("network", "list")) as { Name: string }[];
    assert.ok(networks.some(({ Name }) => Name === "front"));
    assert.deepEqual(await openstack("server", "list"), []);
    const [project] = (await openstack("project", "list")) as { Name: string }[];
    assert.equal(project?.Name, shop);
    await assert.rejects(run("/usr/bin/openstack", ["user", "create", "mallory"], { env }), /403/);
    const wrong = { ...env, OS_PASSWORD: "wrong" };
    await assert.rejects(run("/usr/bin/openstack", ["network", "create", "x"], { env: wrong }), /401/);
    const [entry, more] = await journal.read(shop, 0, 10);
    assert.equal(entry?.intent.operation, "POST /networks");
    assert.equal(more, undefined);
  },
);
