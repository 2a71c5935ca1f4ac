import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { systemClock } from "#kernel/clock.ts";
import { isOperational, OperationalError } from "#kernel/errors.ts";
import { memoryDisk } from "#recovery/disk-peers.fixture.ts";
import { writeDiskFile } from "#recovery/write-disk-file.ts";

const { signal } = new AbortController();
const content = Buffer.alloc(20 * 1024 * 1024, 7);

function inFolder(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), "understudy-disk-file-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** Fails, or waits for `held`, from the piece at 10 MiB on. */
function failing(fail: (offset: number) => Promise<void>) {
  const disk = memoryDisk(content);
  const read = disk.read.bind(disk);
  disk.read = async (offset, length, by) => {
    if (offset >= 10 * 1024 * 1024) await fail(offset);
    return read(offset, length, by);
  };
  return disk;
}

test("a disk's file is there under its name when it is whole", async (t) => {
  const folder = inFolder(t);
  const path = join(folder, "disk.img");
  const seen: string[][] = [];
  const disk = failing(async () => void seen.push(readdirSync(folder)));
  await writeDiskFile(disk, path, { signal });
  assert.ok(seen.length > 0 && seen.every((names) => names.join() === "disk.img.part"), "not before");
  assert.ok(readFileSync(path).equals(content));
  assert.deepEqual(readdirSync(folder), ["disk.img"]);
});

test("a source that fails leaves nothing behind, and nobody who still writes", async (t) => {
  const folder = inFolder(t);
  let reading = 0;
  const disk = failing(async (offset) => {
    if (offset === 12 * 1024 * 1024) throw new OperationalError("nbd.unreachable", "the vault went away");
    reading += 1;
    // Long after the failure: it is waited for all the same.
    await systemClock.sleep(200);
    reading -= 1;
  });
  const writing = writeDiskFile(disk, join(folder, "disk.img"), { signal });
  await assert.rejects(writing, (error) => isOperational(error, "nbd.unreachable"));
  assert.equal(reading, 0);
  assert.deepEqual(readdirSync(folder), []);
});

test("an abort leaves nothing behind", async (t) => {
  const folder = inFolder(t);
  const stop = new AbortController();
  const disk = failing(async () => stop.abort(new Error("Ctrl-C")));
  await assert.rejects(writeDiskFile(disk, join(folder, "disk.img"), { signal: stop.signal }), /Ctrl-C/u);
  assert.deepEqual(readdirSync(folder), []);
});

test("no file is written over", async (t) => {
  const folder = inFolder(t);
  const path = join(folder, "disk.img");
  writeFileSync(path, "mine");
  const conflict = (error: unknown): boolean => isOperational(error, "state.conflict");
  await assert.rejects(writeDiskFile(memoryDisk(content), path, { signal }), conflict);
  assert.equal(readFileSync(path, "utf8"), "mine");
  rmSync(path);
  writeFileSync(`${path}.part`, "another's");
  await assert.rejects(writeDiskFile(memoryDisk(content), path, { signal }), conflict);
  assert.equal(readFileSync(`${path}.part`, "utf8"), "another's");
});
