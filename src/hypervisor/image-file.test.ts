import assert from "node:assert/strict";
import {
  existsSync,
  mkdtempSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { ensureDisks } from "./create-disk.ts";
import { VolumeFiles } from "./guests/volume-files.ts";
import { isThere, publishImage } from "./image-file.ts";
import type { DiskSpec } from "./machine-spec.ts";
import type { MachineView } from "./machine-view.ts";

function folderOf(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), "understudy-image-"));
  t.after(() => rmSync(folder, { recursive: true }));
  return folder;
}

const never = new AbortController().signal;
const blank: DiskSpec = {
  id: "data",
  content: { kind: "blank", sizeBytes: 1024 * 1024 },
  readOnly: false,
  bytesPerSecond: 0,
  operationsPerSecond: 0,
};

test("an image gets its name, and none that is there is replaced unless that is meant", async (t) => {
  const folder = folderOf(t);
  const [making, path] = [join(folder, "disk.new"), join(folder, "disk")];
  writeFileSync(making, "first");
  await publishImage(making, path, "absent");
  assert.equal(readFileSync(path, "utf8"), "first");
  assert.equal(existsSync(making), false);
  writeFileSync(making, "second");
  await assert.rejects(publishImage(making, path, "absent"), { code: "state.conflict" });
  assert.equal(readFileSync(path, "utf8"), "first");
  await publishImage(making, path, "any");
  assert.equal(readFileSync(path, "utf8"), "second");
});

test("a store that hiccups has not lost its images: nothing is made in their place", async (t) => {
  const folder = folderOf(t);
  // Stands for EIO and ESTALE, which can't be brought about here: an error that is not ENOENT.
  const machineDisk = join(folder, "disk-data.qcow2");
  const volume = join(folder, "vol-1.qcow2");
  for (const path of [machineDisk, volume]) symlinkSync(path, path);
  await assert.rejects(isThere(machineDisk), { code: "store.failing" });
  const machine = {
    id: "web",
    folder,
    record: {},
    deps: { checkpoint: () => {} },
    update: () => Promise.resolve(),
  } as unknown as MachineView;
  await assert.rejects(ensureDisks(machine, [blank]), { code: "store.failing" });
  const files = new VolumeFiles(folder);
  await assert.rejects(files.ensure({ id: "vol-1", sizeGiB: 1 }, false, never), { code: "store.failing" });
  for (const path of [machineDisk, volume]) assert.equal(readlinkSync(path), path);
});

test("an image that was made and is missing is an error, not a reason for an empty one", async (t) => {
  const folder = folderOf(t);
  const machine = {
    id: "web",
    folder,
    record: { made: ["data"] },
    deps: { checkpoint: () => {} },
  } as unknown as MachineView;
  await assert.rejects(ensureDisks(machine, [blank]), { code: "store.failing", message: /missing/ });
  const files = new VolumeFiles(folder);
  await assert.rejects(files.ensure({ id: "vol-1", sizeGiB: 1 }, true, never), {
    code: "store.failing",
    message: /vol-1.*missing/,
  });
  assert.equal(existsSync(join(folder, "disk-data.qcow2")), false);
  assert.equal(existsSync(join(folder, "vol-1.qcow2")), false);
});
