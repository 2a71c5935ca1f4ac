/** Clients that nobody here wrote: openstacksdk and the OpenStack command line, from Debian. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import { type CloudUnderTest, openCloudUnderTest } from "./cloud-under-test.ts";

const run = promisify(execFile);
const strict = process.env["UNDERSTUDY_STRICT"] === "1";
const missing = (path: string): false | string =>
  strict || existsSync(path) ? false : `${path} is not installed`;

let cloud: CloudUnderTest;
let env: NodeJS.ProcessEnv;

before(async () => {
  cloud = await openCloudUnderTest({ addressBase: "127.64.0.0/16" });
  env = {
    ...process.env,
    OS_CLIENT_CONFIG_FILE: join(cloud.data, "credentials"),
    OS_CLOUD: "devcloud",
    PYTHONWARNINGS: "ignore",
  };
});

after(() => cloud.close());

const sdk = "/usr/lib/python3/dist-packages/openstack/__init__.py";
const script = new URL("sdk.py", import.meta.url).pathname;

test("openstacksdk: a server with all that belongs to it", { skip: missing(sdk) }, async () => {
  const { stdout } = await run("/usr/bin/python3", [script], { env });
  assert.deepEqual(JSON.parse(stdout), {
    image: ["active", "public"],
    "rules of a new group": ["IPv4egress", "IPv6egress"],
    key: ["-----BEGIN RSA PRIVATE KEY-----", "ssh-rsa"],
    server: ["ACTIVE", "m1.tiny", true],
    pages: ["sdk-4", "sdk-3", "sdk-2", "sdk-1", "sdk-0"],
    tagged: ["sdk-net"],
    address: "ACTIVE",
    volume: ["/dev/vdb", "in-use"],
    resized: "m1.small",
    stopped: "SHUTOFF",
    size: 2,
    "network in use": 409,
    left: ["public"],
    "application credential": true,
  });
});

const cli = "/usr/bin/openstack";
test("openstack: the command line finds catalogue, quotas and networks", { skip: missing(cli) }, async () => {
  const ask = async (...words: string[]): Promise<unknown> =>
    JSON.parse((await run("/usr/bin/python3", [cli, ...words, "-f", "json"], { env })).stdout);
  const networks = (await ask("network", "list", "--external")) as { Name: string }[];
  assert.deepEqual(
    networks.map(({ Name }) => Name),
    ["public"],
  );
  const made = (await ask("volume", "create", "--size", "3", "cli")) as { size: number };
  assert.equal(made.size, 3);
  const volumes = (await ask("volume", "list")) as { Name: string; Status: string }[];
  assert.deepEqual(
    volumes.map(({ Name, Status }) => [Name, Status]),
    [["cli", "available"]],
  );
});
