/** A server's user data runs, and is reached at its floating IP while it has one. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { type CloudUnderTest, firstImage, makeWorld, openCloudUnderTest } from "./cloud-under-test.ts";
import { until } from "#testing/until.ts";

let cloud: CloudUnderTest;

before(async () => {
  cloud = await openCloudUnderTest({ addressBase: "127.66.0.0/16", compute: "process" });
});

after(() => cloud.close());

const program = `#!/usr/bin/env node
require("node:http")
  .createServer((_, response) => response.end(process.env.SERVER_ID + " " + process.env.TAGS))
  .listen(18080, process.env.SERVER_ADDRESS, () => console.log("listening"));
`;

async function get(url: string): Promise<string> {
  const answer = await fetch(url, { signal: AbortSignal.timeout(5000), headers: { connection: "close" } });
  return answer.text();
}

test(
  "a floating IP leads to the server, and no longer when it is taken away",
  { timeout: 60_000 },
  async () => {
    const world = await makeWorld(cloud);
    await cloud.make("/networking/v2.0/security-group-rules", {
      security_group_rule: {
        security_group_id: world.group,
        direction: "ingress",
        protocol: "tcp",
        port_range_min: 18_080,
        port_range_max: 18_080,
      },
    });
    const { id } = await cloud.make("/compute/v2.1/servers", {
      server: {
        name: "web",
        flavorRef: "1",
        imageRef: await firstImage(cloud),
        networks: [{ uuid: world.network }],
        security_groups: [{ name: "web" }],
        user_data: Buffer.from(program).toString("base64"),
        metadata: { role: "web" },
      },
    });
    const console = `/compute/v2.1/servers/${id}/action`;
    await until("the address to lead nowhere", async () => {
      const answer = await cloud.call("POST", console, { "os-getConsoleOutput": {} });
      return answer.text.includes("listening") ? true : undefined;
    });
    const ports = await cloud.call("GET", `/networking/v2.0/ports?device_id=${id}`);
    const [port] = ports.body["ports"] as unknown as { id: string; fixed_ips: { ip_address: string }[] }[];
    assert.match(port?.fixed_ips[0]?.ip_address ?? "", /^10\.9\.0\./);
    const address = await cloud.make("/networking/v2.0/floatingips", {
      floatingip: { floating_network_id: world.publicNetwork, port_id: port?.id },
    });
    const url = `http://${String(address["floating_ip_address"])}:18080/`;
    const text = await until("the server behind its address", () => get(url).catch(() => undefined));
    assert.equal(text, `${id} {"role":"web"}`);
    const freed = await cloud.call("PUT", `/networking/v2.0/floatingips/${address.id}`, {
      floatingip: { port_id: null },
    });
    assert.equal(freed.status, 200);
    await assert.rejects(get(url));
  },
);
