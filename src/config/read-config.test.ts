import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { checkConfig, readConfig } from "#config/read-config.ts";
import { resolveSecret } from "#config/resolve-secret.ts";
import { isOperational } from "#kernel/errors.ts";

const folder = mkdtempSync(join(tmpdir(), "understudy-config-"));
after(() => rmSync(folder, { recursive: true }));

const good = `version: 1
sites:
  a:
    driver: ec2
    region: us-east-1
    credentials:
      accessKeyId: {env: A}
      secretAccessKey: {env: B}
  b:
    driver: openstack
    authUrl: http://127.0.0.1:5000/v3
    region: RegionOne
    project: p
    credentials: {username: u, password: {file: pw}}
environments:
  shop:
    active: a
    standby: b
    probes:
      - {name: web, check: {http: "http://127.0.0.1/"}}
    failover: {}
`;

function problemsOf(text: string): { line: number; path: string; message: string }[] {
  const check = checkConfig(text);
  assert.equal(check.ok, false, "expected problems");
  return check.ok ? [] : [...check.problems];
}

test("a small configuration gets its defaults", () => {
  const check = checkConfig(good);
  assert.ok(check.ok);
  const shop = check.config.environments["shop"];
  assert.deepEqual(shop?.reserve.servers, { ratio: 0.2, minimumPerGroup: 1, groupBy: "tier" });
  assert.equal(shop?.probes[0]?.every, 1000);
  assert.deepEqual(check.config.listen.gateway, { host: "127.0.0.1", port: 7480 });
});

test("an unknown key is named with its line", () => {
  const problems = problemsOf(good.replace("    standby: b", "    standby: b\n    replicas: 3"));
  assert.deepEqual(problems, [{ line: 19, path: "environments.shop", message: 'unknown key "replicas"' }]);
});

test("a bad value inside a union is described by the branch that was meant", () => {
  const [problem] = problemsOf(good.replace("{file: pw}", "hunter2"));
  assert.equal(problem?.line, 14);
  assert.match(problem?.path ?? "", /password/u);
});

test("references between parts are checked", () => {
  const noSite = problemsOf(good.replace("standby: b", "standby: c"));
  assert.deepEqual(noSite, [
    { line: 18, path: "environments.shop.standby", message: 'there is no site "c"; the sites are: a, b' },
  ]);
  const same = problemsOf(good.replace("standby: b", "standby: a"));
  assert.match(same[0]?.message ?? "", /another site/u);
  const many = problemsOf(
    good.replace(
      "failover: {}",
      "failover: {triggers: [{codes: [cloud.api_unreachable], witnesses: 2, for: 3s}]}",
    ),
  );
  assert.match(many[0]?.message ?? "", /only 1 are named/u);
});

test("a trigger that one witness can pull alone is a warning", () => {
  const check = checkConfig(
    good.replace(
      "failover: {}",
      "failover: {triggers: [{codes: [cloud.api_unreachable], witnesses: 1, for: 3s}]}",
    ),
  );
  assert.ok(check.ok);
  assert.match(check.warnings[0]?.message ?? "", /one witness alone/u);
});

test("text that is no YAML, and duplicate keys, are errors with a line", () => {
  assert.equal(problemsOf("version: 1\nsites: [")[0]?.line, 2);
  assert.match(problemsOf(`${good}version: 1\n`)[0]?.message ?? "", /unique/iu);
});

test("a missing file says how to make one", () => {
  assert.throws(
    () => readConfig(join(folder, "none.yaml")),
    (error) => isOperational(error, "config.missing") && /understudy init/u.test(error.message),
  );
});

test("secrets come from a file or the environment and print as stars", () => {
  writeFileSync(join(folder, "pw"), "s3cret\n");
  const secret = resolveSecret({ file: "pw" }, folder);
  assert.equal(secret.reveal(), "s3cret");
  assert.equal(JSON.stringify({ secret }), '{"secret":"***"}');
  assert.equal(resolveSecret({ env: "X" }, folder, { X: "y" }).reveal(), "y");
  assert.throws(() => resolveSecret({ env: "X" }, folder, {}), /X is not set/u);
});

test("protected disks need a vault, and a host at both sites", () => {
  const protect = `${good}    protect: {volumes: {role: db}}\n`;
  const [problem] = problemsOf(protect);
  assert.match(problem?.message ?? "", /add `vault`/u);
  const vault = "vault: {store: {folder: ./store}, passphrase: {file: phrase}, windowSize: 512MiB}\n";
  const check = checkConfig(protect.replace("sites:", `${vault}sites:`));
  assert.ok(check.ok);
  assert.equal(check.config.vault?.windowSize, 512 * 1024 * 1024);
  assert.deepEqual(
    check.warnings.map(({ message }) => message),
    [
      'site "a" (active) has no `host`: the disks there are not captured',
      'site "b" (standby) has no `host`: no disk can be given its content there',
    ],
  );
});

test("where a host is another machine, the vault says where it is reached", () => {
  const protect = `${good}    protect: {volumes: {role: db}}\n`
    .replace("sites:", "vault: {store: {folder: ./store}, passphrase: {file: phrase}}\nsites:")
    .replace(
      "driver: ec2",
      'driver: ec2\n    host: {url: "https://east.example.net:7484", certificates: ./tls}',
    );
  const [problem] = problemsOf(protect);
  assert.match(problem?.message ?? "", /site "a" is on another machine: say under `hosts`/u);
  const withHosts = (more: string): string => {
    const hosts = `hosts: {listen: "0.0.0.0:10809", ${more}certificates: ./tls, callers: [east]}`;
    return protect.replace("{file: phrase}}", `{file: phrase}, ${hosts}}`);
  };
  assert.match(problemsOf(withHosts(""))[0]?.message ?? "", /hosts cannot call 0\.0\.0\.0: add `address`/u);
  assert.ok(checkConfig(withHosts('address: "vault.example.net:10809", ')).ok);
});

test("where a cloud's snapshots are asked for, its site needs no host while it serves", () => {
  const vault = "vault: {store: {folder: ./store}, passphrase: {file: phrase}}\n";
  const asked = (every: string) =>
    `${good}    protect: {volumes: {role: db}, snapshots: {every: ${every}}}\n`.replace(
      "sites:",
      `${vault}sites:`,
    );
  const check = checkConfig(asked("5m"));
  assert.ok(check.ok);
  assert.equal(check.config.environments["shop"]?.protect?.snapshots?.every, 300_000);
  assert.deepEqual(
    check.warnings.map(({ message }) => message),
    ['site "b" (standby) has no `host`: no disk can be given its content there'],
  );
  assert.match(problemsOf(asked("10ms"))[0]?.message ?? "", /at least 1s apart/u);
});

test("rules over files say something of a file, and their paths begin at the root", () => {
  const ruled = (rule: string): string =>
    good.replace(
      "sites:",
      `vault: {store: {folder: ./store}, passphrase: {file: phrase}, priorities: [${rule}]}\nsites:`,
    );
  const check = checkConfig(ruled('{path: "/srv/**", smallerThan: 1MiB, modifiedWithin: 7d, weight: 3}'));
  assert.ok(check.ok);
  const [rule] = check.config.vault?.priorities ?? [];
  assert.deepEqual(rule, { path: "/srv/**", smallerThan: 1_048_576, modifiedWithin: 604_800_000, weight: 3 });
  assert.match(problemsOf(ruled("{weight: 3}"))[0]?.message ?? "", /a rule says something of a file/u);
  assert.match(problemsOf(ruled('{path: "srv/**"}'))[0]?.message ?? "", /a path begins with/u);
});

test("folders and sockets are found from the file's own folder", () => {
  const path = join(folder, "paths.yaml");
  const vault = "vault: {store: {folder: ./store}, passphrase: {file: phrase}}\n";
  writeFileSync(
    path,
    good
      .replace("sites:", `${vault}sites:`)
      .replace("driver: ec2", "driver: ec2\n    host: {socket: ./east/host.sock}"),
  );
  const { config } = readConfig(path);
  assert.deepEqual(config.sites["a"]?.host, { socket: join(folder, "east/host.sock") });
  assert.deepEqual(config.vault?.store, { folder: join(folder, "store") });
  assert.equal(config.vault?.data, join(folder, "understudy-vault"));
});
