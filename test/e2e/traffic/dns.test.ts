import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { describe, it } from "node:test";
import { promisify } from "node:util";
import { systemClock } from "#kernel/clock.ts";
import { isOperational } from "#kernel/errors.ts";
import { Secret } from "#kernel/secret.ts";
import { lookupAddresses } from "#traffic/dns/address-set.ts";
import { type DnsUpdateConfig, DnsUpdateSwitch } from "#traffic/dns/dns-update-switch.ts";
import { memoryEpochRecord } from "#traffic/epoch-record.ts";
import { type PowerdnsConfig, PowerdnsSwitch } from "#traffic/powerdns/powerdns-switch.ts";
import { addressOf, type Backend } from "#traffic/traffic-switch.ts";
import { trafficSwitchConformance } from "#traffic/traffic-switch.conformance.ts";
import { findProgram, needs, startPeer, temporaryFolder } from "./peer-process.ts";
import { freePorts } from "../../../demo/free-ports.ts";

const run = promisify(execFile);
const live = new AbortController().signal;
const secret = Buffer.from("understudy-test-key-0123456789ab").toString("base64");
const key = { name: "switch.key.", secret: new Secret(secret) };
const otherKey = { name: "switch.key.", secret: new Secret(Buffer.from("wrong").toString("base64")) };
const backends = ["192.0.2.1", "192.0.2.2", "2001:db8::3", "192.0.2.4"].map((host, index) => ({
  id: `b${index}`,
  host,
  port: 443,
})) as [Backend, Backend, Backend, Backend];
const zoneFile = `ex.test. 60 SOA ns1.ex.test. admin.ex.test. 1 60 60 600 1
ex.test. 60 NS ns1.ex.test.
ns1.ex.test. 60 A 127.0.0.1
www.ex.test. 1 A 192.0.2.200
alias.ex.test. 60 CNAME www.ex.test.
`;

interface DnsWorld extends AsyncDisposable {
  readonly port: number;
  readonly apiUrl?: string;
}

function answering(port: number): () => Promise<boolean> {
  const server = { host: "127.0.0.1", port };
  return () =>
    lookupAddresses(server, "ns1.ex.test.", { clock: systemClock, timeoutMs: 300 }, live).then(
      (found) => found.length === 1,
      () => false,
    );
}

async function openKnot(): Promise<DnsWorld> {
  const stack = new AsyncDisposableStack();
  const folder = stack.use(await temporaryFolder());
  const [port = 0] = await freePorts(1);
  await mkdir(join(folder.path, "db"));
  await writeFile(join(folder.path, "ex.test.zone"), zoneFile);
  await writeFile(
    join(folder.path, "knot.conf"),
    `server:
    listen: 127.0.0.1@${port}
    rundir: ${folder.path}
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
database:
    storage: ${join(folder.path, "db")}
key:
  - id: switch.key.
    algorithm: hmac-sha256
    secret: ${secret}
  - id: reader.key.
    algorithm: hmac-sha256
    secret: ${secret}
acl:
  - id: update
    key: switch.key.
    action: update
zone:
  - domain: ex.test
    storage: ${folder.path}
    file: ex.test.zone
    acl: update
`,
  );
  stack.use(await startPeer("knotd", ["-c", join(folder.path, "knot.conf")], answering(port)));
  return { port, [Symbol.asyncDispose]: () => stack.disposeAsync() };
}

async function openPowerdns(): Promise<DnsWorld & { readonly apiUrl: string }> {
  const stack = new AsyncDisposableStack();
  const folder = stack.use(await temporaryFolder());
  const [port = 0, apiPort = 0] = await freePorts(2);
  const database = join(folder.path, "pdns.sqlite3");
  const schema = await readFile("/usr/share/doc/pdns-backend-sqlite3/schema.sqlite3.sql", "utf8");
  const sqlite = new DatabaseSync(database);
  sqlite.exec(schema);
  sqlite.close();
  await writeFile(
    join(folder.path, "pdns.conf"),
    `launch=gsqlite3
gsqlite3-database=${database}
local-address=127.0.0.1
local-port=${port}
socket-dir=${folder.path}
api=yes
api-key=right
webserver=yes
webserver-address=127.0.0.1
webserver-port=${apiPort}
webserver-allow-from=127.0.0.1
cache-ttl=0
query-cache-ttl=0
negquery-cache-ttl=0
zone-cache-refresh-interval=0
security-poll-suffix=
dnsupdate=yes
allow-dnsupdate-from=127.0.0.0/8
`,
  );
  await writeFile(join(folder.path, "ex.test.zone"), zoneFile);
  const util = async (...args: string[]): Promise<void> => {
    await run(findProgram("pdnsutil") ?? "pdnsutil", [`--config-dir=${folder.path}`, ...args]);
  };
  await util("load-zone", "ex.test", join(folder.path, "ex.test.zone"));
  await util("import-tsig-key", "switch.key", "hmac-sha256", secret);
  await util("set-meta", "ex.test", "TSIG-ALLOW-DNSUPDATE", "switch.key");
  await util("set-meta", "ex.test", "ALLOW-DNSUPDATE-FROM", "127.0.0.0/8");
  const args = [`--config-dir=${folder.path}`, "--daemon=no", "--guardian=no", "--disable-syslog"];
  stack.use(await startPeer("pdns_server", args, answering(port)));
  return { port, apiUrl: `http://127.0.0.1:${apiPort}`, [Symbol.asyncDispose]: () => stack.disposeAsync() };
}

const name = { zone: "ex.test", name: "www.ex.test", ttlSeconds: 1, port: 443 };

function updating(port: number, config: Partial<DnsUpdateConfig> = {}): DnsUpdateSwitch {
  return new DnsUpdateSwitch(
    { ...name, server: { host: "127.0.0.1", port }, key, visibleMs: 5_000, timeoutMs: 2_000, ...config },
    { epochs: memoryEpochRecord() },
  );
}

/** As a user's resolver asks, with another implementation of the protocol than ours. */
async function dig(port: number): Promise<string[]> {
  const ask = async (type: string): Promise<string[]> => {
    const { stdout } = await run("dig", [
      "@127.0.0.1",
      "-p",
      String(port),
      "+short",
      "+norec",
      "www.ex.test",
      type,
    ]);
    return stdout.split("\n").filter((line) => line !== "");
  };
  const found = [...(await ask("A")), ...(await ask("AAAA"))];
  return found.map((host) => addressOf({ host, port: 443 })).sort();
}

const dnsTools = { dig: "bind9-dnsutils" };
const knotOptions = needs({ knotd: "knot", ...dnsTools });
const pdnsOptions = needs({ pdns_server: "pdns-server", pdnsutil: "pdns-server", ...dnsTools });

trafficSwitchConformance(
  "dns-update at Knot",
  async () => {
    const world = await openKnot();
    const [silent = 1] = await freePorts(1);
    return {
      route: updating(world.port),
      backends,
      servedBy: () => dig(world.port),
      unreachable: updating(silent, { timeoutMs: 300 }),
      stranger: updating(world.port, { key: otherKey }),
      [Symbol.asyncDispose]: () => world[Symbol.asyncDispose](),
    };
  },
  knotOptions,
);

trafficSwitchConformance(
  "dns-update at PowerDNS",
  async () => {
    const world = await openPowerdns();
    return {
      route: updating(world.port, { onlyIfUnchanged: true }),
      backends,
      servedBy: () => dig(world.port),
      stranger: updating(world.port, { key: otherKey }),
      [Symbol.asyncDispose]: () => world[Symbol.asyncDispose](),
    };
  },
  pdnsOptions,
);

function overApi(apiUrl: string, port: number, config: Partial<PowerdnsConfig> = {}): PowerdnsSwitch {
  return new PowerdnsSwitch(
    {
      ...name,
      url: apiUrl,
      apiKey: new Secret("right"),
      authoritative: [{ host: "127.0.0.1", port }],
      timeoutMs: 2_000,
      ...config,
    },
    { epochs: memoryEpochRecord() },
  );
}

trafficSwitchConformance(
  "powerdns",
  async () => {
    const world = await openPowerdns();
    const [silent = 1] = await freePorts(1);
    return {
      route: overApi(world.apiUrl, world.port),
      backends,
      servedBy: () => dig(world.port),
      unreachable: overApi(`http://127.0.0.1:${silent}`, world.port),
      stranger: overApi(world.apiUrl, world.port, { apiKey: new Secret("wrong") }),
      [Symbol.asyncDispose]: () => world[Symbol.asyncDispose](),
    };
  },
  pdnsOptions,
);

void describe("dynamic update at Knot", { timeout: 60_000, ...knotOptions }, () => {
  void it("explains a key that may not update, an unknown key, a foreign zone and an alias", async () => {
    await using world = await openKnot();
    const target = { epoch: 1, backends: [backends[0]] };
    const failing = async (config: Partial<DnsUpdateConfig>, code: string, words: RegExp): Promise<void> => {
      await assert.rejects(updating(world.port, config).apply(target, live), (error) => {
        assert.ok(isOperational(error));
        assert.deepEqual([error.code, words.test(error.message)], [code, true], error.message);
        return true;
      });
    };
    await failing(
      { key: { name: "reader.key.", secret: key.secret } },
      "auth.invalid",
      /reader.*access rules/,
    );
    await failing({ key: { name: "nobody.key.", secret: key.secret } }, "auth.invalid", /does not know/);
    await failing({ zone: "other.test", name: "www.other.test" }, "traffic.refused", /authority/);
    await failing({ name: "alias.ex.test" }, "traffic.refused", /CNAME/);
  });

  void it("sends a set of many addresses by TCP, and reads it back", async () => {
    await using world = await openKnot();
    const many = Array.from({ length: 60 }, (_, index) => ({
      id: `m${index}`,
      host: `198.51.100.${index}`,
      port: 443,
    }));
    const route = updating(world.port);
    await route.apply({ epoch: 1, backends: many }, live);
    assert.equal((await route.read(live)).backends.length, 60);
  });

  void it("with onlyIfUnchanged, makes two writers agree", async () => {
    await using world = await openKnot();
    const results = await Promise.allSettled(
      backends.map((one) =>
        updating(world.port, { onlyIfUnchanged: true, visibleMs: 300 }).apply(
          { epoch: 1, backends: [one] },
          live,
        ),
      ),
    );
    const done = results.filter((result) => result.status === "fulfilled").length;
    assert.ok(done >= 1);
    for (const result of results)
      if (result.status === "rejected") assert.ok(isOperational(result.reason), String(result.reason));
    assert.equal((await dig(world.port)).length, 1, "never a mixture");
  });
});
