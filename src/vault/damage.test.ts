import assert from "node:assert/strict";
import { test } from "node:test";
import { isOperational } from "#kernel/errors.ts";
import { BLOCK_BYTES } from "./block-ref.ts";
import type { PointId } from "./point-manifest.ts";
import { type MemoryStorage, memoryStorage } from "./storage/memory-storage.ts";
import { memoryDisk, newVault, readWhole, reopen, text } from "./vault.fixture.ts";

/** Every bit of every byte by `VAULT_DAMAGE_STEP=1`; by default every 37th bit, so that each bit of a byte has its turn. */
const step = Number(process.env["VAULT_DAMAGE_STEP"] ?? 37);

const sumOf = (ranges: readonly { readonly length: number }[]): number =>
  ranges.reduce((sum, one) => sum + one.length, 0);

interface SmallVault {
  readonly storage: MemoryStorage;
  readonly points: { readonly id: PointId; readonly disk: Buffer }[];
}

/** A vault with each kind of object and of blob: two points, the second with a patched block and a new one. */
async function smallVault(): Promise<SmallVault> {
  const storage = memoryStorage();
  const vault = await newVault(storage);
  const first = Buffer.concat([text(1, 600), Buffer.alloc(2 * BLOCK_BYTES)]);
  first.write("end", first.length - 3);
  const a = await vault.writePoint({ volumeId: "v", sizeBytes: first.length, source: memoryDisk(first) });
  const second = Buffer.from(first);
  second.write("changed", 100);
  second.write("more", BLOCK_BYTES + 5);
  const b = await vault.writePoint({
    volumeId: "v",
    sizeBytes: second.length,
    source: memoryDisk(second),
    base: a.id,
    changed: [
      { offset: 100, length: 7 },
      { offset: BLOCK_BYTES, length: 20 },
    ],
  });
  return {
    storage,
    points: [
      { id: a.id, disk: first },
      { id: b.id, disk: second },
    ],
  };
}

/**
 * What damage must never do: open as if nothing were wrong, give wrong bytes, or take away what it did not touch. Every block that reads, reads as it was;
 * every range that does not is in the report, with the object's name.
 */
async function checkDamaged({ storage, points }: SmallVault, name: string, what: string): Promise<void> {
  let vault;
  try {
    vault = await reopen(storage);
  } catch (error) {
    const first = name === "config" || name.startsWith("keys/");
    assert.ok(first, `${what}: only config and keys can keep a vault shut: ${String(error)}`);
    const code = isOperational(error, "vault.damaged") || isOperational(error, "not_found");
    assert.ok(code, `${what}: ${String(error)}`);
    return;
  }
  const report = await vault.verify({ depth: "full" });
  assert.ok(
    report.findings.some((finding) => finding.object === name),
    `${what}: not found: ${JSON.stringify(report)}`,
  );
  for (const { id, disk } of points) {
    if (name === `points/${id}`) continue;
    const lost = report.lost.filter((range) => range.point === id);
    await using point = await vault.openPoint(id, { lease: "none" });
    for (let offset = 0; offset < disk.length; offset += BLOCK_BYTES) {
      const length = Math.min(BLOCK_BYTES, disk.length - offset);
      const gone = lost.some((range) => range.offset <= offset && offset < range.offset + range.length);
      if (gone) {
        await assert.rejects(
          point.read(offset, length),
          (error) => isOperational(error, "vault.damaged"),
          what,
        );
      } else {
        const bytes = await point.read(offset, length);
        assert.ok(bytes.equals(disk.subarray(offset, offset + length)), `${what}: wrong bytes at ${offset}`);
      }
    }
  }
  await vault[Symbol.asyncDispose]();
}

test("the vault that is about to be damaged is whole, and loses nothing", async () => {
  const { storage, points } = await smallVault();
  const vault = await reopen(storage);
  for (const depth of ["quick", "full"] as const) {
    const report = await vault.verify({ depth });
    assert.deepEqual([report.findings, report.lost, report.points], [[], [], 2]);
  }
  for (const { id, disk } of points) {
    await using point = await vault.openPoint(id);
    assert.ok((await readWhole(point)).equals(disk));
  }
});

test("a flipped bit of any object is found and named; what is intact reads", async () => {
  const small = await smallVault();
  for (const [name, object] of small.storage.objects) {
    for (let bit = 0; bit < object.bytes.length * 8; bit += step) {
      const [at, mask] = [bit >> 3, 1 << (bit & 7)];
      const was = object.bytes.readUInt8(at);
      object.bytes[at] = was ^ mask;
      await checkDamaged(small, name, `${name} byte ${at} mask ${mask}`);
      object.bytes[at] = was;
    }
  }
});

test("every object cut short, grown, emptied or gone is found and named", async () => {
  const small = await smallVault();
  const { objects } = small.storage;
  for (const [name, object] of Array.from(objects)) {
    const cuts = [0, 1, 7, 8, 20, object.bytes.length >> 1, object.bytes.length - 9, object.bytes.length - 1];
    for (const length of cuts) {
      objects.set(name, { ...object, bytes: object.bytes.subarray(0, length) });
      await checkDamaged(small, name, `${name} cut to ${length}`);
    }
    objects.set(name, { ...object, bytes: Buffer.concat([object.bytes, Buffer.alloc(1)]) });
    await checkDamaged(small, name, `${name} with a byte more`);
    objects.delete(name);
    // An index that is gone is only missed by those who look for duplicates; a point that is gone is a deleted point.
    if (!name.startsWith("index/") && !name.startsWith("points/"))
      await checkDamaged(small, name, `${name} gone`);
    objects.set(name, object);
  }
});

test("objects that change places are found and named", async () => {
  const small = await smallVault();
  const { objects } = small.storage;
  const names = [...objects.keys()];
  for (const kind of ["packs/", "index/", "points/"]) {
    const [one, two] = names.filter((name) => name.startsWith(kind));
    if (one === undefined || two === undefined) throw new Error(`two of ${kind} are needed`);
    const [a, b] = [objects.get(one), objects.get(two)];
    if (a === undefined || b === undefined) throw new Error("both are there");
    objects.set(one, b);
    await checkDamaged(small, one, `${two} under the name ${one}`);
    objects.set(one, a);
  }
});

test("quick verification finds what is missing or cut; a restore brings all that is intact and names the rest", async () => {
  const { storage, points } = await smallVault();
  const vault = await reopen(storage);
  const [last] = points.slice(-1);
  if (last === undefined) throw new Error("there is a point");
  const packs = [...storage.objects.keys()].filter((name) => name.startsWith("packs/"));
  const found: string[] = [];
  for (const pack of packs) {
    const object = storage.objects.get(pack);
    if (object === undefined) throw new Error("it is there");
    storage.objects.delete(pack);
    const report = await vault.verify({ depth: "quick" });
    if (report.findings.some((finding) => finding.object === pack)) found.push(pack);
    const copy = Buffer.alloc(last.disk.length);
    const target = { write: async (offset: number, bytes: Uint8Array) => copy.set(bytes, offset) };
    const again = await reopen(storage);
    const { missing } = await again.restoreTo(last.id, target, { onDamage: "report" });
    for (const { offset, length } of missing) last.disk.copy(copy, offset, offset, offset + length);
    assert.ok(copy.equals(last.disk), `without ${pack}`);
    const lost: readonly { readonly length: number }[] = report.lost.filter(
      (range) => range.point === last.id,
    );
    assert.equal(sumOf(missing), sumOf(lost));
    storage.objects.set(pack, object);
  }
  assert.deepEqual(found, packs);
});
