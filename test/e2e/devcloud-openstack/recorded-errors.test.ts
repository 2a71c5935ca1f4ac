/** The refusals that were recorded from a real OpenStack (Zed), asked of devcloud in the same situation. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { readFile } from "node:fs/promises";
import { decodeOpenstackError } from "#wire/openstack/openstack-errors.ts";
import {
  type CloudUnderTest,
  firstImage,
  makeWorld,
  openCloudUnderTest,
  passwordRequest,
} from "./cloud-under-test.ts";

interface Recorded {
  readonly name: string;
  readonly service: string;
  readonly method: string;
  readonly path: string;
  readonly request?: unknown;
  readonly status: number;
  readonly body: string;
}

const file = new URL("../../../src/wire/openstack/fixtures/errors.json", import.meta.url);
const recorded = JSON.parse(await readFile(file, "utf8")) as Recorded[];

/** Why a recording is not asked here: each needs what devcloud has not, or a way to ask that fetch has not. */
const leftOut: Readonly<Record<string, string>> = {
  "server pause during reboot": "devcloud has no pause",
  "server action too early": "asked in its own test, while the server is built",
  "image not found html": "asked without an Accept header",
};

/** Only status and code are compared: the words are of a JSON schema, or name ids that differ. */
const wordsDiffer = new Set([
  "malformed",
  "rule duplicate",
  "server bad metadata",
  "server quota",
  "network in use",
  "router in use",
  "tag too long",
  "image bad token",
  "volume gigabytes quota",
  "key pair not found",
]);

const bases: Readonly<Record<string, string>> = {
  identity: "/identity",
  network: "/networking",
  image: "/image",
  compute: "/compute/v2.1",
};

let cloud: CloudUnderTest;
/** Recorded id -> the one here. */
const ids = new Map<string, string>();
const at = (path: string, service: string): string => {
  const base = bases[service] ?? `/volume/v3/${cloud.projectId}`;
  return `${base}${path.startsWith("/") ? path : `/${path}`}`;
};
function here<T>(value: T): T {
  if (value === undefined) return value;
  let text = JSON.stringify(value);
  for (const [theirs, ours] of ids) text = text.replaceAll(theirs, ours);
  return JSON.parse(text) as T;
}

function idIn(name: string, pattern: RegExp): string {
  const found = recorded.find((each) => each.name === name);
  const match = pattern.exec(`${found?.path} ${JSON.stringify(found?.request)}`);
  assert.ok(match?.[1], `the recording ${name} has an id`);
  return match[1];
}

const uuid = "([0-9a-f-]{36})";

before(async () => {
  cloud = await openCloudUnderTest({ addressBase: "127.63.0.0/16" });
  const world = await makeWorld(cloud);
  const image = await firstImage(cloud);
  const keyName = "deploy";
  const imported = recorded.find(({ name }) => name === "key pair duplicate")?.request;
  const { keypair } = imported as { keypair: { public_key: string } };
  await cloud.make("/compute/v2.1/os-keypairs", {
    keypair: { name: keyName, public_key: keypair.public_key },
  });
  const server = await cloud.make("/compute/v2.1/servers", {
    server: {
      name: "web-1",
      flavorRef: "1",
      imageRef: image,
      networks: [{ uuid: world.network }],
      security_groups: [{ name: world.group }],
    },
  });
  await cloud.admin("POST", "settle");
  const volume = await cloud.make(`/volume/v3/${cloud.projectId}/volumes`, { volume: { size: 1 } });
  await cloud.make(`/compute/v2.1/servers/${server.id}/os-volume_attachments`, {
    volumeAttachment: { volumeId: volume.id },
  });
  const ports = await cloud.call("GET", `/networking/v2.0/ports?device_id=${server.id}`);
  const [port] = ports.body["ports"] as unknown as { id: string }[];
  const address = await cloud.make("/networking/v2.0/floatingips", {
    floatingip: { floating_network_id: world.publicNetwork, port_id: port?.id },
  });
  ids.set(idIn("server unknown image", /"flavorRef":"([^"]+)"/), "1");
  ids.set(idIn("server unknown flavor", new RegExp(`"imageRef":"${uuid}"`)), image);
  ids.set(idIn("network in use", new RegExp(uuid)), world.network);
  ids.set(idIn("subnet in use", new RegExp(uuid)), world.subnet);
  ids.set(idIn("router in use", new RegExp(uuid)), world.router);
  ids.set(idIn("security group in use", new RegExp(uuid)), world.group);
  ids.set(idIn("server start when active", new RegExp(uuid)), server.id);
  ids.set(idIn("volume delete in use", new RegExp(uuid)), volume.id);
  ids.set(idIn("floating ip unknown port", new RegExp(uuid)), address.id);
  ids.set(idIn("floating ip quota", new RegExp(uuid)), world.publicNetwork);
});

after(() => cloud.close());

/** Logins are not recorded, as they hold secrets. */
const logins: Readonly<Record<string, object>> = {
  "wrong password": passwordRequest("understudy", "wrong"),
  "unknown token": { auth: { identity: { methods: ["token"], token: { id: "not-a-token" } } } },
  "unknown application credential": {
    auth: {
      identity: {
        methods: ["application_credential"],
        application_credential: { id: "nope", secret: "wrong" },
      },
    },
  },
  malformed: { auth: {} },
};

const quotas: Readonly<Record<string, object>> = {
  "server quota": { servers: 0 },
  "network quota": { networks: 0 },
  "floating ip quota": { addresses: 0 },
  "volume quota": { volumes: 0 },
  "volume gigabytes quota": { volumeGiB: 1 },
};

for (const one of recorded) {
  const skip = leftOut[one.name];
  if (skip !== undefined) continue;
  test(`as recorded: ${one.name}`, async () => {
    const quota = quotas[one.name];
    if (quota !== undefined) await cloud.admin("PUT", "quotas", quota);
    const headers: Record<string, string> = {
      ...(one.name.endsWith("bad token") ? { "x-auth-token": "not-a-token" } : {}),
      ...(one.name === "compute microversion" ? { "openstack-api-version": "compute 9.99" } : {}),
    };
    const body = logins[one.name] ?? here(one.request);
    const answer = await cloud.call(one.method, at(here(one.path), one.service), body, headers);
    if (quota !== undefined) {
      await cloud.admin("PUT", "quotas", {
        servers: 2000,
        networks: 50,
        addresses: 200,
        volumes: 5000,
        volumeGiB: 100_000,
      });
    }
    const wanted = decodeOpenstackError(one.status, here(one.body));
    const given = decodeOpenstackError(answer.status, answer.text);
    assert.deepEqual(
      { status: given.status, code: given.code },
      { status: wanted.status, code: wanted.code },
      answer.text,
    );
    if (!wordsDiffer.has(one.name)) assert.equal(given.message, wanted.message);
  });
}
