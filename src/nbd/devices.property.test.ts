import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { assertSameBytes } from "#kernel/same-bytes.fixture.ts";
import fc from "fast-check";
import type { BlockDevice } from "#model/block-device.ts";
import { openFileDevice } from "./file-device.ts";
import { MemoryDevice } from "./memory-device.ts";
import { type OverlayDevice, openOverlayDevice } from "./overlay-device.ts";

const folder = mkdtempSync(join(tmpdir(), "understudy-nbd-"));
after(() => rmSync(folder, { recursive: true, force: true }));
let names = 0;
const fresh = (): string => join(folder, String((names += 1)));

/** Not a whole number of blocks, nor of pages: the end of a disk is where mistakes are. */
const sizeBytes = 150_000;
const offset = fc.nat(sizeBytes);
const range = fc.tuple(offset, offset).map(([a, b]) => ({ offset: Math.min(a, b), length: Math.abs(a - b) }));
const shortRange = fc
  .tuple(offset, fc.nat(9_000))
  .map(([from, length]) => ({ offset: from, length: Math.min(length, sizeBytes - from) }));
const anyRange = fc.oneof(shortRange, range);
const kind = fc.constantFrom("write", "zero", "read", "extents", "flush", "copyUp", "trim", "reopen");
const step = fc.record({ kind, range: anyRange, byte: fc.integer({ min: 1, max: 255 }), flag: fc.boolean() });
type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

interface Subject {
  readonly device: BlockDevice;
  /** What the device must read as. */
  readonly shadow: Buffer;
  reopen?(): Promise<BlockDevice>;
}

async function run(subject: Subject, steps: readonly Step[]): Promise<void> {
  let { device } = subject;
  const { shadow } = subject;
  for (const { kind, range, byte, flag } of steps) {
    const { offset, length } = range;
    switch (kind) {
      case "write":
        await device.write(offset, Buffer.alloc(length, byte), { fua: flag });
        shadow.fill(byte, offset, offset + length);
        break;
      case "zero":
        await device.zero(offset, length, { keepSpace: flag });
        shadow.fill(0, offset, offset + length);
        break;
      case "trim": {
        await device.trim(offset, length);
        // Anything may be read there; what is outside must be as it was.
        (await device.read(offset, length)).copy(shadow, offset);
        break;
      }
      case "extents":
        checkExtents(await device.extents(offset, length), range, shadow);
        break;
      case "flush":
        await device.flush();
        break;
      case "copyUp":
        if ("copyUp" in device) await (device as OverlayDevice).copyUp(offset, length);
        break;
      case "reopen":
        if (subject.reopen === undefined) break;
        await device[Symbol.asyncDispose]();
        device = await subject.reopen();
        break;
      case "read":
        assertSameBytes(await device.read(offset, length), shadow.subarray(offset, offset + length));
    }
  }
  assertSameBytes(await device.read(0, sizeBytes), shadow);
  await device[Symbol.asyncDispose]();
}

function checkExtents(
  extents: Awaited<ReturnType<BlockDevice["extents"]>>,
  { offset, length }: { offset: number; length: number },
  shadow: Buffer,
): void {
  let at = offset;
  for (const [index, extent] of extents.entries()) {
    assert.equal(extent.offset, at);
    assert.ok(extent.length > 0);
    assert.notEqual(extent.kind, extents[index - 1]?.kind);
    at += extent.length;
    const content = shadow.subarray(extent.offset, at);
    if (extent.kind !== "data") assert.ok(content.every((byte) => byte === 0));
  }
  assert.equal(at, offset + length);
}

const steps = fc.array(step, { maxLength: 25 });
const runs = { numRuns: Number(process.env["PROPERTY_RUNS"] ?? 60) };

test("a disk in memory does what a plain buffer does", () =>
  fc.assert(
    fc.asyncProperty(steps, (steps) =>
      run({ device: new MemoryDevice({ sizeBytes }), shadow: Buffer.alloc(sizeBytes) }, steps),
    ),
    runs,
  ));

test("a file does what a plain buffer does", () =>
  fc.assert(
    fc.asyncProperty(steps, async (steps) => {
      const path = fresh();
      const device = await openFileDevice({ path, writable: true, createBytes: sizeBytes });
      const reopen = () => openFileDevice({ path, writable: true });
      await run({ device, shadow: Buffer.alloc(sizeBytes), reopen }, steps);
      rmSync(path);
    }),
    runs,
  ));

async function patternBase(): Promise<MemoryDevice> {
  const base = new MemoryDevice({ sizeBytes });
  const pattern = Buffer.from(Array.from({ length: 70_000 }, (_, index) => (index * 7) % 256));
  await base.write(1_000, pattern);
  await base.write(140_000, pattern.subarray(0, 10_000));
  return base;
}

test("an overlay does what a plain buffer does, and its base stays as it was", () =>
  fc.assert(
    fc.asyncProperty(steps, fc.constantFrom(512, 4096, 65_536), async (steps, blockBytes) => {
      const path = fresh();
      const base = await patternBase();
      const before = await base.read(0, sizeBytes);
      const reopen = () => openOverlayDevice({ folder: path, base, baseId: "b", blockBytes });
      await run({ device: await reopen(), shadow: Buffer.from(before), reopen }, steps);
      assertSameBytes(await base.read(0, sizeBytes), before);
      rmSync(path, { recursive: true });
    }),
    runs,
  ));

test("writes at once to parts of the same blocks of an overlay all count", () =>
  fc.assert(
    fc.asyncProperty(fc.shuffledSubarray(Array.from({ length: 200 }, (_, index) => index)), async (order) => {
      const path = fresh();
      const base = await patternBase();
      const shadow = await base.read(0, sizeBytes);
      const device = await openOverlayDevice({ folder: path, base, baseId: "b" });
      await Promise.all([
        device.copyUp(0, sizeBytes),
        ...order.map((index) => {
          shadow.fill(index, index * 700, index * 700 + 700);
          return device.write(index * 700, Buffer.alloc(700, index));
        }),
        device.flush(),
      ]);
      assertSameBytes(await device.read(0, sizeBytes), shadow);
      assert.equal(device.changedBlocks, device.blocks);
      await device[Symbol.asyncDispose]();
      rmSync(path, { recursive: true });
    }),
    { numRuns: 20 },
  ));

test("an overlay refuses another base, a shortened file and states that are none", async () => {
  const path = fresh();
  const base = await patternBase();
  const options = { folder: path, base, baseId: "point-1" };
  await using device = await openOverlayDevice(options);
  await device.write(5, Buffer.from("x"), { fua: true });
  await assert.rejects(openOverlayDevice({ ...options, baseId: "point-2" }), { code: "state.conflict" });
  const state = await openFileDevice({ path: join(path, "state"), writable: true });
  await state.write(4096, Buffer.from([0xff]));
  await assert.rejects(openOverlayDevice(options), { code: "vault.damaged" });
  await state.write(0, Buffer.from("understudy"));
  await assert.rejects(openOverlayDevice(options), { code: "vault.damaged" });
  await state[Symbol.asyncDispose]();
});

test("what an overlay changed is told apart from its base", async () => {
  const base = await patternBase();
  await using device = await openOverlayDevice({ folder: fresh(), base, baseId: "b" });
  await device.write(8_192, Buffer.alloc(4_096, 1));
  await device.zero(12_288, 4_096);
  assert.deepEqual(await device.changedExtents(0, 30_000), [
    { offset: 0, length: 8_192, dirty: false },
    { offset: 8_192, length: 8_192, dirty: true },
    { offset: 16_384, length: 13_616, dirty: false },
  ]);
  assert.equal(device.changedBlocks, 2);
});

test("a range beyond the end is refused", async () => {
  const device = new MemoryDevice({ sizeBytes });
  await assert.rejects(device.read(sizeBytes - 1, 2), { code: "disk.range" });
  await assert.rejects(device.write(-1, Buffer.alloc(2)), { code: "disk.range" });
  const small = new MemoryDevice({ sizeBytes, maxHeldBytes: 65_536 });
  await small.write(0, Buffer.alloc(10, 1));
  await assert.rejects(small.write(70_000, Buffer.alloc(10, 1)), { code: "store.full" });
});
