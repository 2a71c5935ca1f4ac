/** A stateless tier: the first server boots, those that come after it go on from its memory. */
import assert from "node:assert/strict";
import { readdirSync, truncateSync } from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { type EC2Client, RunInstancesCommand, TerminateInstancesCommand } from "@aws-sdk/client-ec2";
import { clientOf, consoleOf, openGroup, running } from "./ec2-calls.ts";
import { get, skip, Stage, until } from "./stage.ts";

const script = `#!/bin/sh
mkdir -p /www
echo kept > /www/index.html
httpd -h /www
mkdir -p /www/cgi-bin
cat > /www/cgi-bin/who <<'END'
#!/bin/sh
printf 'Content-Type: text/plain\\r\\n\\r\\n'
echo "$(hostname) $(date +%s)"
END
chmod +x /www/cgi-bin/who
echo "tier: serving"
`;

interface Started {
  readonly id: string;
  readonly address: string;
  /** From the call that it runs in to its first answer. */
  readonly tookMs: number;
}

async function startOne(
  client: EC2Client,
  group: string,
  name: string,
  { signal }: TestContext,
): Promise<Started> {
  const began = performance.now();
  const { Instances } = await client.send(
    new RunInstancesCommand({
      ImageId: "ami-0a1b2c3d4e5f60001",
      InstanceType: "t3.nano",
      MinCount: 1,
      MaxCount: 1,
      SecurityGroupIds: [group],
      UserData: Buffer.from(script).toString("base64"),
      Placement: { AvailabilityZone: "us-east-1a" },
      TagSpecifications: [
        {
          ResourceType: "instance",
          Tags: [
            { Key: "Name", Value: name },
            { Key: "understudy:memory-state", Value: "tier: serving" },
          ],
        },
      ],
    }),
  );
  const id = Instances?.[0]?.InstanceId ?? "";
  const address = await running(client, id, signal);
  assert.equal(await get(`http://${address}/`, signal), "kept");
  return { id, address, tookMs: performance.now() - began };
}

test(
  "servers of a stateless tier go on from the memory of the first one, each with its own name and the right time",
  { skip, timeout: 180_000 },
  async (t) => {
    await using stage = new Stage("ec2", "127.93.0.0/16", 4 * 168);
    const client = clientOf(await stage.start());
    const group = await openGroup(client, [80]);
    const first = await startOne(client, group, "web-1", t);
    assert.doesNotMatch(await consoleOf(client, first.id), /memory state/);
    const states = join(stage.data, "states");
    const [kind = ""] = await until(() => {
      const kept = readdirSync(states).filter((name) => !name.endsWith(".new"));
      return Promise.resolve(kept.length === 1 && kept);
    }, t.signal);

    const others = [await startOne(client, group, "web-2", t), await startOne(client, group, "web-3", t)];
    for (const { id } of others) assert.match(await consoleOf(client, id), /goes on from a memory state/);
    const fastest = Math.min(...others.map(({ tookMs }) => tookMs));
    t.diagnostic(
      `first answers: ${Math.round(first.tookMs)} ms by a boot, ${others.map(({ tookMs }) => Math.round(tookMs)).join(", ")} ms from the state`,
    );
    assert.ok(fastest < first.tookMs * 0.7, `${fastest} ms against ${first.tookMs} ms`);
    for (const [number, { id, address }] of others.entries()) {
      assert.doesNotMatch(await consoleOf(client, id), /guest: ready/, "it was not booted");
      await until(async () => {
        const said = await get(`http://${address}/cgi-bin/who`, t.signal);
        const [name, seconds] = said.trim().split(" ");
        return name === `web-${number + 2}` && Math.abs(Number(seconds) - Date.now() / 1000) < 5;
      }, t.signal);
    }

    // One that is damaged is thrown away, and the server boots.
    truncateSync(join(states, kind, "memory.state"), 1_000_000);
    await client.send(new TerminateInstancesCommand({ InstanceIds: others.map(({ id }) => id) }));
    const last = await startOne(client, group, "web-4", t);
    assert.match(await consoleOf(client, last.id), /guest: ready/, "it was booted");
    client.destroy();
  },
);
