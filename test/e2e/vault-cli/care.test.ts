/** verify, repair and gc as a person runs them: what is damaged is named, what a disk still has is stored again. */
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import { test, type TestContext } from "node:test";
import {
  captureDisk,
  filesBelow,
  flipBit,
  makeStage,
  onlyStoreAndKey,
  shipped,
  type Stage,
  volume,
} from "./vault-stage.ts";

const sizeBytes = 4 * 1024 * 1024;

interface Verified {
  readonly whole: boolean;
  readonly findings: readonly { readonly object: string }[];
  readonly lost: readonly { readonly point: string; readonly offset: number; readonly length: number }[];
  readonly logs: readonly { readonly group: string; readonly segments: number }[];
}

/** A vault with a folded point of a disk full of bytes that do not compress, and its write log. */
async function filled(t: TestContext): Promise<{ readonly stage: Stage; readonly content: Buffer }> {
  const stage = makeStage(t, { foldEvery: "1s" });
  assert.equal((await stage.vault("init")).code, 0);
  const content = Buffer.alloc(sizeBytes);
  for (let at = 0; at < sizeBytes; at += 4) content.writeUInt32LE(Math.imul(at + 1, 2_654_435_761) >>> 0, at);
  await using served = await stage.serve();
  await using host = await captureDisk(served.desk, sizeBytes);
  await host.write(0, content);
  await shipped(served.desk);
  const { signal } = new AbortController();
  for (;;) {
    const status = await served.desk.status("shop", signal);
    if (status !== undefined && status.last !== null && status.foldedSequence >= status.last.sequence) break;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return { stage, content };
}

test("a whole vault verifies; with one bit of a pack flipped, its points and ranges are named, and a disk mends it", async (t) => {
  const { stage, content } = await filled(t);
  const bare = onlyStoreAndKey(stage);
  const whole = await stage.vault("verify", "--json", ...bare);
  assert.equal(whole.code, 0, whole.stderr);
  const seen = JSON.parse(whole.stdout.toString()) as Verified;
  assert.deepEqual([seen.whole, seen.findings, seen.lost], [true, [], []]);
  assert.equal(seen.logs[0]?.group, "shop");
  assert.ok((seen.logs[0]?.segments ?? 0) > 0);

  const pack = filesBelow(join(stage.store, "packs")).at(-1) ?? "";
  flipBit(pack, 200_000);
  assert.equal((await stage.vault("verify", "--quick", ...bare)).code, 0, "structure is as it was");
  const damaged = await stage.vault("verify", "--json", ...bare);
  assert.equal(damaged.code, 9, damaged.stderr);
  const report = JSON.parse(damaged.stdout.toString()) as Verified;
  assert.equal(report.whole, false);
  assert.ok(report.findings.some(({ object }) => object === relative(stage.store, pack)));
  assert.ok(report.lost.length > 0);
  assert.ok(report.lost.every(({ point }) => point.startsWith(`${volume}/`)));

  writeFileSync(join(stage.folder, "wrong.raw"), Buffer.alloc(sizeBytes, 1));
  const vain = await stage.vault("repair", volume, "--from", "./wrong.raw", ...bare);
  assert.equal(vain.code, 9, vain.stderr);
  writeFileSync(join(stage.folder, "disk.raw"), content);
  const mended = await stage.vault("repair", volume, "--from", "./disk.raw", "--json", ...bare);
  assert.equal(mended.code, 0, mended.stderr + mended.stdout.toString());
  const cat = await stage.vault("cat", report.lost[0]?.point ?? "", ...bare);
  assert.ok(cat.stdout.equals(content));
  assert.equal((await stage.vault("repair", "--from", "./disk.raw", ...bare)).code, 2);
  assert.equal((await stage.vault("repair", volume, "--from", "./none.raw", ...bare)).code, 4);
});

test("a damaged segment of the shipped log is named, and what it costs", async (t) => {
  const { stage } = await filled(t);
  const bare = onlyStoreAndKey(stage);
  const segment = filesBelow(join(stage.store, "log")).at(-1) ?? "";
  flipBit(segment, 100_000);
  const damaged = await stage.vault("verify", ...bare);
  assert.equal(damaged.code, 9, damaged.stderr);
  assert.ok(damaged.stdout.toString().includes(relative(stage.store, segment)), damaged.stdout.toString());
});

test("what no point needs is collected in two runs", async (t) => {
  const { stage } = await filled(t);
  const bare = onlyStoreAndKey(stage);
  const first = await stage.vault("gc", "--json", ...bare);
  assert.equal(first.code, 0, first.stderr);
  const { deletedPacks, waiting } = JSON.parse(first.stdout.toString()) as {
    deletedPacks: number;
    waiting: readonly string[];
  };
  assert.deepEqual([deletedPacks, waiting], [0, []]);
  assert.equal((await stage.vault("verify", ...bare)).code, 0);
});
