/** Whatever is changed in a log's files is noticed and named, and nothing that was acknowledged is left out in silence. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { systemClock } from "#kernel/clock.ts";
import { isOperational, type OperationalError } from "#kernel/errors.ts";
import { noPoints } from "./point-store.ts";
import { segmentName } from "./segment-folder.ts";
import { SimulatedDisk } from "./simulated-folder.fixture.ts";
import { openWriteLog } from "./open-write-log.ts";
import type { WriteLog } from "./write-log.ts";

const logKey = randomBytes(32);
const open = (disk: SimulatedDisk, key = logKey, group = "g"): Promise<WriteLog> =>
  openWriteLog({ folder: disk.folder(), group, logKey: key, clock: systemClock, points: noPoints });

/** Two segments that ended in order, with every kind of record. */
async function smallLog(): Promise<{ disk: SimulatedDisk; last: number }> {
  const disk = new SimulatedDisk();
  const log = await open(disk);
  await log.addVolume("a", 1_000_000);
  await log.markContinuous("a", 0);
  await log.write("a", 10, Buffer.from("first"));
  await log.endSegment();
  await log.zero("a", 0, 100);
  await log.flush();
  await log.write("a", 50, Buffer.from("second"));
  await log.trim("a", 700, 5);
  const last = log.lastTaken.sequence;
  await log.close();
  return { disk, last };
}

/** What opening and verifying say: the message of what was found, or that all is well. */
async function examine(disk: SimulatedDisk, last: number): Promise<string> {
  try {
    const log = await open(disk);
    const { sequence } = log.lastRecord;
    await log.verify();
    const torn = log.tornTail;
    await log.close();
    // Only a mark or seal, which no record stands behind, may go as a torn tail.
    if (torn !== undefined && sequence === last) return `torn: ${torn.why}`;
    return sequence === last ? "all is well" : `ends at ${sequence}`;
  } catch (error) {
    if (isOperational(error, "vault.damaged") || isOperational(error, "vault.key")) return error.message;
    throw error;
  }
}

const copyOf = (disk: SimulatedDisk): SimulatedDisk => {
  const copy = new SimulatedDisk();
  for (const [name, content] of disk.files()) copy.overwrite(name, Buffer.from(content));
  return copy;
};

/** 1: every byte. */
const stride = Number(process.env["WRITE_LOG_FLIP_STRIDE"] ?? 5);

test("every flipped bit is detected, and its file named", async () => {
  const { disk, last } = await smallLog();
  assert.equal(await examine(disk, last), "all is well");
  let [flips, named] = [0, 0];
  for (const [name, content] of disk.files())
    for (let at = 0; at < content.length; at += stride) {
      const copy = copyOf(disk);
      const damaged = Buffer.from(content);
      damaged[at] = (damaged[at] ?? 0) ^ (1 << (Math.floor(at / stride) % 8));
      copy.overwrite(name, damaged);
      const verdict = await examine(copy, last);
      flips += 1;
      if (verdict.includes(name)) named += 1;
      const found =
        verdict.startsWith("torn: ") ||
        verdict.includes("damaged at byte") ||
        verdict.includes("key does not");
      assert.ok(found, `byte ${at} of ${name}: ${verdict}`);
    }
  // All but the last segment's seal, where nothing is lost, and its successor-less header are named as damage.
  assert.ok(named > flips * 0.8, `${named} of ${flips} named`);
});

test("every truncation loses nothing in silence, except at the border of the newest frames", async () => {
  const { disk, last } = await smallLog();
  const second = segmentName(2);
  for (const [name, content] of disk.files())
    for (let size = 0; size < content.length; size += name === second ? 7 : 97) {
      const copy = copyOf(disk);
      copy.overwrite(name, Buffer.from(content.subarray(0, size)));
      const verdict = await examine(copy, last);
      if (name !== second) assert.match(verdict, /damaged at byte/, `${name} cut to ${size}: ${verdict}`);
      else assert.notEqual(verdict, "all is well", `${name} cut to ${size}`);
    }
});

test("a missing segment in the middle is named", async () => {
  const { disk } = await smallLog();
  const log = await open(disk);
  await (
    await log.write("a", 0, Buffer.from("third"))
  ).durable;
  await log.close();
  disk.delete(segmentName(2));
  await assert.rejects(open(disk), (error: OperationalError) => {
    assert.equal(error.code, "vault.damaged");
    assert.match(error.message, /0000000002\.seg.*missing/);
    return true;
  });
});

test("another key, and another group's log, are refused by name", async () => {
  const { disk } = await smallLog();
  await assert.rejects(open(disk, randomBytes(32)), { code: "vault.key" });
  await assert.rejects(open(disk, logKey, "h"), { code: "vault.key" });
});

test("segments that were swapped are not taken for one another", async () => {
  const { disk } = await smallLog();
  const [first, second] = [segmentName(1), segmentName(2)].map((name) =>
    Buffer.from(disk.files().get(name) ?? ""),
  );
  disk.overwrite(segmentName(1), second ?? Buffer.alloc(0));
  disk.overwrite(segmentName(2), first ?? Buffer.alloc(0));
  await assert.rejects(open(disk), { code: "vault.damaged" });
});

test("damage behind which acknowledged frames stand is no torn tail, even in the last segment", async () => {
  const disk = new SimulatedDisk();
  const log = await open(disk);
  await log.addVolume("a", 1_000_000);
  for (let count = 0; count < 3; count += 1) await (await log.write("a", 0, randomBytes(600))).durable;
  // The process dies here: no seal, no mark.
  const name = segmentName(1);
  const content = Buffer.from(disk.files().get(name) ?? "");
  const flip = (at: number): SimulatedDisk => {
    const copy = copyOf(disk);
    const damaged = Buffer.from(content);
    damaged[at] = (damaged[at] ?? 0) ^ 1;
    copy.overwrite(name, damaged);
    return copy;
  };
  // Frames: opening, event, and three of 1024 bytes; the last of them is not proven by anything behind it.
  const frames = Math.floor(content.length / 512) * 512;
  await assert.rejects(open(flip(frames - 2048 + 200)), { code: "vault.damaged" });
  const cut = await open(flip(frames - 1024 + 200));
  assert.equal(cut.tornTail?.position, frames - 1024);
  assert.equal(cut.lastRecord.sequence, 3);
});

test("once the log has been idle for a moment, its last frames are proven too", async (t) => {
  const disk = new SimulatedDisk();
  const log = await open(disk);
  t.after(() => log.close());
  await log.addVolume("a", 1_000_000);
  await (
    await log.write("a", 0, randomBytes(600))
  ).durable;
  const name = segmentName(1);
  const sizeOf = (): number => disk.files().get(name)?.length ?? 0;
  const written = sizeOf();
  while (sizeOf() === written) await new Promise((resolve) => void setImmediate(resolve));
  const copy = copyOf(disk);
  const damaged = Buffer.from(disk.files().get(name) ?? "");
  damaged[written - 500] = (damaged[written - 500] ?? 0) ^ 1;
  copy.overwrite(name, damaged);
  await assert.rejects(open(copy), { code: "vault.damaged" });
  assert.equal((await open(disk)).lastRecord.sequence, 2);
});
