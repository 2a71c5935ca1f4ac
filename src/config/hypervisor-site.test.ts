import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { checkConfig, readConfig } from "./read-config.ts";

const site = `version: 1
sites:
  metal:
    driver: hypervisor
    host: {socket: ./host.sock}
    addresses: [127.60.0.0/24, 192.0.2.7]
    limits: {memory: 8GiB, cpus: 8}
    types:
      small: {cpus: 1, memory: 512MiB}
    images:
      debian-12: {disk: ./debian-12.qcow2}
      tiny: {kernel: /boot/vmlinuz, initrd: ./initrd, ready: up}
      guest: {guest: small}
`;
const config = (text = site): string => `${text}environments: {}\n`;

function problemsOf(from: string | RegExp, to: string): readonly string[] {
  const check = checkConfig(config(site.replace(from, to)));
  assert.equal(check.ok, false, `accepted: ${to}`);
  return check.ok ? [] : check.problems.map(({ line, path, message }) => `${line} ${path}: ${message}`);
}

void test("a host of one's own: sizes in bytes, paths from the configuration's folder", (t) => {
  const folder = mkdtempSync(join(tmpdir(), "hypervisor-site-"));
  t.after(() => rmSync(folder, { recursive: true }));
  const path = join(folder, "understudy.yaml");
  writeFileSync(path, config());
  const { metal } = readConfig(path).config.sites;
  assert.ok(metal?.driver === "hypervisor");
  assert.equal("socket" in metal.host && metal.host.socket, join(folder, "host.sock"));
  assert.equal(metal.data, join(folder, "understudy-host"));
  assert.equal(metal.outbound, false);
  assert.deepEqual(metal.types["small"], { cpus: 1, memory: 512 * 1024 ** 2 });
  assert.deepEqual(metal.images["debian-12"], { disk: join(folder, "debian-12.qcow2"), format: "qcow2" });
  assert.deepEqual(metal.images["tiny"], {
    kernel: "/boot/vmlinuz",
    initrd: join(folder, "initrd"),
    append: "",
    format: "qcow2",
    ready: "up",
  });
});

void test("what is wrong with one is told with its line", () => {
  const one = (from: string | RegExp, to: string): string => problemsOf(from, to).join("\n");
  assert.match(one("    host: {socket: ./host.sock}\n", ""), /^3 sites\.metal\.host: /u);
  assert.match(one("127.60.0.0/24", "127.60.0.1/24"), /^6 sites\.metal\.addresses\.0: the prefix has bits/u);
  assert.match(one("192.0.2.7", "192.0.2.700"), /an address looks like/u);
  assert.match(one("192.0.2.7", "10.0.0.0/2"), /an address looks like/u);
  assert.match(one("memory: 512MiB", "memory: 512"), /sites\.metal\.types\.small\.memory/u);
  assert.match(one("memory: 512MiB", "memory: 64MiB"), /80MiB/u);
  assert.match(one("cpus: 1,", "cpus: 0,"), /sites\.metal\.types\.small\.cpus/u);
  assert.match(one(/types:\n.*\n/u, "types: {}\n"), /name at least one type/u);
  assert.match(one("limits: {memory: 8GiB", "limits: {ram: 8GiB"), /unknown key "ram"/u);
  assert.match(
    one("{disk: ./debian-12.qcow2}", "{disc: ./debian-12.qcow2}"),
    /sites\.metal\.images\.debian-12/u,
  );
});

void test("while it serves, tools have nothing to point at: that is said", () => {
  const text = `${site}  cloud:
    driver: ec2
    region: us-east-1
    credentials: {accessKeyId: {env: A}, secretAccessKey: {env: B}}
environments:
  shop:
    active: metal
    standby: cloud
    probes: [{name: cloud, check: {cloudApi: active}}]
    failover: {triggers: []}
`;
  const check = checkConfig(text);
  assert.ok(check.ok);
  assert.match(check.warnings.map(({ message }) => message).join("\n"), /"metal" has no API/u);
});

void test("a host on another machine, from both sides: paths from the configuration's folder", (t) => {
  const folder = mkdtempSync(join(tmpdir(), "hypervisor-site-"));
  t.after(() => rmSync(folder, { recursive: true }));
  const path = join(folder, "understudy.yaml");
  const hostOf = (host: string): unknown => {
    writeFileSync(path, config(site.replace("{socket: ./host.sock}", host)));
    return readConfig(path).config.sites["metal"]?.host;
  };
  const doors = 'listen: "0.0.0.0:7484", disks: "0.0.0.0:10809", certificates: ./tls, callers: [control]';
  assert.deepEqual(hostOf(`{socket: ./host.sock, remote: {${doors}}}`), {
    socket: join(folder, "host.sock"),
    remote: {
      listen: { host: "0.0.0.0", port: 7484 },
      disks: { host: "0.0.0.0", port: 10_809 },
      certificates: join(folder, "tls"),
      callers: ["control"],
    },
  });
  const url = "https://metal.example.net:7484";
  assert.deepEqual(hostOf(`{url: "${url}", certificates: ./tls}`), {
    url,
    certificates: join(folder, "tls"),
  });
});

void test("what is wrong with a host on another machine is told", () => {
  const one = (host: string): string => problemsOf("{socket: ./host.sock}", host).join("\n");
  const tls = "certificates: ./tls";
  assert.match(
    one(`{url: "http://metal:7484", ${tls}}`),
    /5 sites\.metal\.host\.url: an agent's url looks like/u,
  );
  assert.match(one(`{url: "https://metal", ${tls}}`), /sites\.metal\.host\.url/u);
  assert.match(one(`{url: "https://metal:7484/path", ${tls}}`), /sites\.metal\.host\.url/u);
  assert.match(one('{url: "https://metal:7484"}'), /sites\.metal\.host\.certificates/u);
  assert.doesNotMatch(one('{url: "https://metal:7484", certificate: ./tls}'), /socket/u);
  assert.match(one('{url: "https://metal:7484", certificate: ./tls}'), /unknown key "certificate"/u);
  const remote = 'listen: "0.0.0.0:7484", disks: "0.0.0.0:10809"';
  assert.match(one(`{socket: ./a, remote: {${remote}, ${tls}}}`), /remote\.callers/u);
  assert.match(one(`{socket: ./a, remote: {${remote}, ${tls}, callers: []}}`), /remote\.callers/u);
});
