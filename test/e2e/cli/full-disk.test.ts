// A disk that is full: changes are refused and say so, nothing is half done, and it works again by itself when space is back.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { closeSync, mkdtempSync, openSync, rmdirSync, rmSync, symlinkSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { RunInstancesCommand, type EC2Client } from "@aws-sdk/client-ec2";
import {
  adminOf,
  clientOf,
  createKey,
  failUp,
  image,
  journalOf,
  makePlace,
  serversOf,
  statusOf,
  up,
  type Place,
} from "./understudy-process.ts";
import { until } from "#testing/until.ts";

/** A small disk of its own for the data folder; null where this user may not make one. */
async function smallDisk(t: TestContext, place: Place, kilobytes: number): Promise<string | null> {
  const folder = mkdtempSync(join(tmpdir(), "understudy-disk-"));
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", `size=${kilobytes}k`, "tmpfs", folder], { stdio: "pipe" });
  } catch (error) {
    if (process.env["UNDERSTUDY_STRICT"] === "1") throw error;
    rmdirSync(folder);
    t.skip(`a small disk cannot be mounted here: ${String((error as { stderr?: Buffer }).stderr)}`);
    return null;
  }
  t.after(() => {
    execFileSync("umount", ["-l", folder]);
    rmdirSync(folder);
  });
  symlinkSync(folder, join(place.folder, "data"));
  return folder;
}

/** Writes until there is no room left, not for a byte. */
function fill(disk: string): void {
  const file = openSync(join(disk, "filler"), "a");
  try {
    for (let size = 65_536; size >= 1; size = Math.floor(size / 4)) {
      for (;;) {
        try {
          if (writeSync(file, Buffer.alloc(size)) < size) break;
        } catch (error) {
          assert.equal((error as NodeJS.ErrnoException).code, "ENOSPC");
          break;
        }
      }
    }
  } finally {
    closeSync(file);
  }
}

function free(disk: string): void {
  rmSync(join(disk, "filler"));
}

function launch(client: EC2Client): Promise<unknown> {
  return client.send(
    new RunInstancesCommand({ ImageId: image, InstanceType: "t3.micro", MinCount: 1, MaxCount: 1 }),
  );
}

interface Failure {
  readonly status: number | undefined;
  readonly message: string;
}

async function outcomeOf(work: Promise<unknown>): Promise<Failure | null> {
  try {
    await work;
    return null;
  } catch (error) {
    const { message, $metadata } = error as Error & { $metadata?: { httpStatusCode?: number } };
    return { status: $metadata?.httpStatusCode, message };
  }
}

/** Every command whose success was told, and every server that there is, are the same. */
async function assertWhole(place: Place): Promise<void> {
  await until("every command to be settled", async () => {
    const { journal, behind } = await statusOf(place);
    return journal.open === 0 && behind.state === 0 ? true : undefined;
  });
  const applied = (await journalOf(place)).filter(({ outcome }) => outcome?.result === "applied");
  const made = applied.flatMap(({ outcome }) =>
    (outcome?.changes ?? [])
      .filter(({ type, kind }) => type === "create" && kind === "server")
      .map(({ id }) => id),
  );
  const there = (await serversOf(place.east)).map(({ id }) => id);
  assert.deepEqual(new Set(made), new Set(there));
  assert.equal((await statusOf(place)).servers.active, there.length);
}

test("a full disk", { timeout: 90_000 }, async (t) => {
  const place = await makePlace(t);
  const disk = await smallDisk(t, place, 4096);
  if (disk === null) return;
  fill(disk);

  const start = await failUp(place);
  assert.equal(start.code, 7, start.stderr);
  assert.match(start.stderr, /full|no space/iu);
  assert.match(start.stderr, /data/u);
  free(disk);

  const keys = await createKey(place.folder);
  const engine = await up(t, place);
  const client = clientOf(t, engine.ready["gateway"] ?? "", keys);
  await launch(client);
  await assertWhole(place);

  await t.test("before a change: refused, and the cloud has not heard of it", async () => {
    // What the log's last page still holds, and what the engine itself gives back, may be enough for a few more.
    let inARow = 0;
    for (let attempt = 0; attempt < 50 && inARow < 3; attempt += 1) {
      fill(disk);
      inARow = (await outcomeOf(launch(client))) === null ? 0 : inARow + 1;
    }
    assert.equal(inARow, 3, "fifty changes were taken on a full disk");
    fill(disk);
    const before = await serversOf(place.east);
    const refused = await outcomeOf(launch(client));
    assert.ok(refused, "success was told of what could not be recorded");
    assert.ok((refused.status ?? 0) >= 500, `${refused.message} ${engine.stderr()}`);
    assert.match(refused.message, /space|full|disk/iu);
    assert.equal((await serversOf(place.east)).length, before.length, "a refused change reached the cloud");
    free(disk);
    await until("changes to be taken again", async () =>
      (await outcomeOf(launch(client))) === null ? true : undefined,
    );
    await assertWhole(place);
  });

  await t.test(
    "between intent and outcome: no success is told, and the outcome is kept when there is space",
    async () => {
      const before = await serversOf(place.east);
      await adminOf(place.east, "POST", "faults", {
        operation: "RunInstances",
        effect: "slow",
        delayMs: 2_000,
        count: 1,
      });
      const launching = outcomeOf(launch(client));
      await until("the intent", async () => ((await statusOf(place)).journal.open === 1 ? true : undefined));
      fill(disk);
      const failure = await launching;
      assert.equal((await serversOf(place.east)).length, before.length + 1, "the cloud did it");
      assert.ok(failure, "success was told of what could not be recorded");
      assert.match(failure.message, /space|full|disk|record/iu);
      free(disk);
      await assertWhole(place);
      assert.equal((await serversOf(place.east)).length, before.length + 1);
    },
  );

  assert.equal((await engine.stop()).code, 0, engine.stderr());
});
