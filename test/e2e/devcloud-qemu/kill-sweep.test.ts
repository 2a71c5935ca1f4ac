/**
 * A volume wanders between two guests while devcloud is killed at moments of the seed's choice. Afterwards the records hold: the
 * guests are the same processes, exactly one has the volume, and every line that was acknowledged is on it.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { AttachVolumeCommand, DetachVolumeCommand } from "@aws-sdk/client-ec2";
import { createSeededRandom } from "#testing/seeded-random.ts";
import { clientOf, makeVolume, openGroup, run, running, serialOf } from "./ec2-calls.ts";
import { get, skip, Stage, statusOf } from "./stage.ts";

const rounds = Number(process.env["UNDERSTUDY_KILL_ROUNDS"] ?? 3);
const seed = Number(process.env["UNDERSTUDY_SEED"] ?? 1);

/** Appends the line of the query to the volume, durably, and answers all its lines (for `look`: only answers); 404 while the volume is not here. */
function appends(serial: string): string {
  return `#!/bin/sh
mkdir -p /www/cgi-bin
cat >/www/cgi-bin/append <<'END'
#!/bin/sh
# One at a time, and again without harm: a caller that does not wait asks anew.
while ! mkdir /tmp/lock 2>/dev/null; do sleep 0.1; done
text= device=$(disk-of ${serial})
if [ -n "$device" ]; then
  mkdir -p /mnt
  mount -t ext4 $device /mnt 2>/dev/null || { mke2fs $device >/dev/null && mount -t ext4 $device /mnt; }
  [ $QUERY_STRING = look ] || grep -qx $QUERY_STRING /mnt/lines || echo $QUERY_STRING >>/mnt/lines
  text=$(cat /mnt/lines)
  umount /mnt
fi
rmdir /tmp/lock
[ -n "$text" ] || printf 'Status: 404 Not Found\\r\\n'
printf 'Content-Type: text/plain\\r\\n\\r\\n'
echo "$text"
END
chmod 755 /www/cgi-bin/append
httpd -h /www
`;
}

test(
  "a volume that wanders under kills is at one place, with all its lines",
  { skip, timeout: 300_000 + rounds * 30_000 },
  async (t) => {
    t.diagnostic(`UNDERSTUDY_SEED=${seed} UNDERSTUDY_KILL_ROUNDS=${rounds}`);
    const random = createSeededRandom(seed);
    await using stage = new Stage("ec2", "127.86.0.0/16", 2 * 168);
    let client = clientOf(await stage.start());
    const group = await openGroup(client, [80]);
    const VolumeId = await makeVolume(client);
    const servers = [];
    for (let each = 0; each < 2; each++) servers.push(await run(client, group, appends(serialOf(VolumeId))));
    const addresses: string[] = [];
    for (const id of servers) addresses.push(await running(client, id, t.signal));
    const pids = servers.map((id) => stage.guestPid(id));
    const lines: string[] = [];
    for (let round = 0; round < rounds; round++) {
      const here = round % 2;
      const attached = client.send(
        new AttachVolumeCommand({ VolumeId, InstanceId: servers[here], Device: "/dev/sdf" }),
      );
      await attached;
      await sleep(random.fraction() * 120);
      await stage.end("SIGKILL");
      client.destroy();
      client = clientOf(await stage.again());
      lines.push(`round-${round}`);
      const answer = await get(`http://${addresses[here]}/cgi-bin/append?round-${round}`, t.signal);
      assert.deepEqual(answer.split("\n"), lines);
      const elsewhere: string = `http://${addresses[1 - here]}/cgi-bin/append?look`;
      assert.equal(await statusOf(elsewhere, t.signal), 404, "the other guest does not have it");
      assert.deepEqual(
        servers.map((id) => stage.guestPid(id)),
        pids,
        "no guest was booted again",
      );
      await client.send(new DetachVolumeCommand({ VolumeId }));
      await sleep(random.fraction() * 120);
      await stage.end("SIGKILL");
      client.destroy();
      client = clientOf(await stage.start());
      // The guest is told, and lets go of it when it comes to that.
      const left = `http://${addresses[here]}/cgi-bin/append?look`;
      while ((await statusOf(left, t.signal)) !== 404) assert.ok(!t.signal.aborted, "it is detached");
      assert.equal(await statusOf(elsewhere, t.signal), 404, "nobody has it");
    }
  },
);
