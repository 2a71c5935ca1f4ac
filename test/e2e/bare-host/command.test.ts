// `understudy host up` and what it refuses to begin with: each time an exit code and what to do.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { startActor } from "../../../demo/processes.ts";
import { skip } from "../devcloud-qemu/stage.ts";
import { HostUnderTest, siteName } from "./host-under-test.ts";

const understudy = new URL("../../../bin/understudy", import.meta.url).pathname;

function run(
  folder: string,
  args: readonly string[],
): { readonly code: number | null; readonly said: string } {
  const { status, stdout, stderr } = spawnSync(understudy, args, {
    cwd: folder,
    encoding: "utf8",
    timeout: 30_000,
  });
  return { code: status, said: `${stdout}${stderr}` };
}

test("the agent begins only with a host that is whole", { skip, timeout: 120_000 }, async () => {
  await using host = await HostUnderTest.open({ addresses: "127.67.0.0/28" });
  const cloud = `  cloud:
    driver: ec2
    region: us-east-1
    credentials: {accessKeyId: {env: A}, secretAccessKey: {env: B}}
`;
  const configure = (site: string): void =>
    writeFileSync(
      join(host.folder, "understudy.yaml"),
      `version: 1\nsites:\n${cloud}${site}environments: {}\n`,
    );
  const site = host.siteYaml().replaceAll(/ +(rooted|booting): .*\n/gu, "");
  const refused = (name: string, code: number, said: RegExp): void => {
    const seen = run(host.folder, ["host", "up", "--site", name]);
    assert.match(seen.said, said);
    assert.equal(seen.code, code, seen.said);
  };
  configure(site);
  refused("nowhere", 4, /there is no site "nowhere"; the sites are: cloud, metal/u);
  refused("cloud", 2, /site "cloud" is a cloud \(ec2\)/u);
  rmSync(host.imageDisk);
  configure(host.siteYaml());
  refused(siteName, 2, /sites\.metal\.images\.(?:rooted|booting): .*root\.raw cannot be read/u);
  configure(site.replace("127.67.0.0/28", "192.0.2.0/28"));
  refused(siteName, 2, /this host has no address 192\.0\.2\.1: add it to an interface/u);
  configure(site.replace(/socket: .*\}/u, `socket: ${host.folder}/none/host.sock}`));
  refused(siteName, 2, /none\/host\.sock: its folder must be there and writable/u);

  const elsewhere = `{url: "https://metal.example.net:7484", certificates: ${host.folder}/none}`;
  configure(site.replace(/host: \{.*\}/u, `host: ${elsewhere}`));
  refused(siteName, 2, /site "metal" is served by https:\/\/metal\.example\.net:7484: the host's own file/u);
  const doors = `listen: "127.0.0.1:1", disks: "127.0.0.1:2", certificates: ${host.folder}/none, callers: [control]`;
  configure(site.replace(/\.sock\}/u, `.sock, remote: {${doors}}}`));
  refused(siteName, 2, /cannot read .*none\/client-cert\.pem/u);

  configure(site);
  const nobody = run(host.folder, ["cloud", "verify", siteName]);
  assert.equal(nobody.code, 6, nobody.said);
  assert.match(nobody.said, /nothing answers on .*host\.sock|host agent at .*host\.sock does not answer/u);
  const agent = await startActor("host", ["host", "up", "--site", siteName, "--json"], host.folder);
  try {
    assert.deepEqual(agent.ready, { ready: true, site: siteName, socket: host.socket, url: null });
    refused(siteName, 3, /another host agent uses/u);
  } finally {
    await agent.stop();
  }
});
