/** The file systems are made by mke2fs, and what is read of them is compared with what debugfs says. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import {
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  truncateSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { systemClock } from "#kernel/clock.ts";
import { silentLog } from "#kernel/log.ts";
import type { BlockReader } from "#model/block-device.ts";
import { memoryStorage } from "#vault/storage/memory-storage.ts";
import { newVault } from "#vault/vault.fixture.ts";
import { openBootReads } from "./boot-reads.ts";
import { CachedReads } from "./file-system/cached-reads.ts";
import { findPartitions } from "./file-system/partition-table.ts";
import { ExtFileSystem, type FoundFile } from "./file-system/read-ext.ts";
import { PriorityReader } from "./priority-reader.ts";
import { rankFiles } from "./rank-files.ts";
import { PointRanking } from "./rank-points.ts";
import { REGION_BYTES } from "./read-trace.ts";

const { signal } = new AbortController();
const path = `${process.env["PATH"] ?? ""}:/usr/sbin:/sbin`;
const tool = (name: string, args: readonly string[]): string =>
  execFileSync(name, args, { encoding: "utf8", env: { PATH: path }, stdio: ["ignore", "pipe", "pipe"] });

const missing = ["mke2fs", "debugfs"].filter((name) => {
  try {
    tool("which", [name]);
    return false;
  } catch {
    return true;
  }
});
const skip = missing.length > 0 ? `missing: ${missing.join(", ")} (e2fsprogs)` : false;
if (skip !== false && process.env["UNDERSTUDY_STRICT"] === "1") throw new Error(skip);

function disk(bytes: Buffer): BlockReader {
  return {
    sizeBytes: bytes.length,
    read: async (offset, length) => Buffer.from(bytes.subarray(offset, offset + length)),
    extents: async (offset, length) => [{ offset, length, kind: "data" }],
    async [Symbol.asyncDispose]() {},
  };
}

interface Made {
  readonly image: string;
  readonly bytes: Buffer;
  readonly contents: ReadonlyMap<string, Buffer>;
}

/** Small and large files, a file in pieces, and directories large enough to be hashed. */
function make(t: TestContext, options: readonly string[], megabytes = 48): Made {
  const folder = mkdtempSync(join(tmpdir(), "understudy-ext-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const root = join(folder, "root");
  const contents = new Map<string, Buffer>();
  const put = (name: string, bytes: Buffer, mode = 0o644): void => {
    mkdirSync(join(root, name, ".."), { recursive: true });
    writeFileSync(join(root, name), bytes, { mode });
    contents.set(name, bytes);
  };
  put("/etc/hosts", randomBytes(300));
  put("/bin/server", randomBytes(200_000), 0o755);
  put("/lib/deep/er/libx.so.1.2", randomBytes(70_000));
  put("/srv/db/big", randomBytes(6_000_000));
  put("/empty", Buffer.alloc(0));
  for (let n = 0; n < 700; n += 1) put(`/many/a-rather-long-name-of-a-file-${n}`, Buffer.from(`${n}`));
  const sparse = join(root, "srv/db/pieces");
  const file = openSync(sparse, "w");
  for (let n = 0; n < 40; n += 1) writeSync(file, randomBytes(4096), 0, 4096, n * 40_960);
  closeSync(file);
  contents.set("/srv/db/pieces", readFileSync(sparse));
  utimesSync(join(root, "/srv/db/big"), 1_000_000_000, 1_000_000_000);
  const image = join(folder, "image");
  tool("mke2fs", ["-q", "-F", ...options, "-d", root, image, `${megabytes}M`]);
  return { image, bytes: readFileSync(image), contents };
}

async function filesOf(bytes: Buffer, offset = 0): Promise<Map<string, FoundFile>> {
  const partition = { offset, length: bytes.length - offset };
  const system = await ExtFileSystem.open(new CachedReads(disk(bytes)), partition, signal);
  assert.ok(system !== undefined, "it is understood");
  const found = new Map<string, FoundFile>();
  for await (const file of system.files(signal)) found.set(file.path, file);
  return found;
}

/** Blocks of a file's content, as debugfs has them. */
function blocksOf(image: string, name: string): ReadonlySet<number> {
  const said = tool("debugfs", ["-R", `blocks ${name}`, image]);
  return new Set(said.trim().split(/\s+/u).filter(Boolean).map(Number));
}

for (const [name, options, blockBytes] of [
  ["ext4", ["-t", "ext4", "-b", "4096"], 4096],
  ["ext4 with wide descriptors and 1 KiB blocks", ["-t", "ext4", "-O", "64bit", "-b", "1024"], 1024],
  ["ext3, mapped by blocks", ["-t", "ext3", "-b", "1024"], 1024],
  ["ext2", ["-t", "ext2", "-b", "4096"], 4096],
  ["ext4 with data in inodes", ["-t", "ext4", "-O", "inline_data", "-I", "256", "-b", "4096"], 4096],
] as const) {
  void test(`${name}: every file is found, with its attributes and its blocks`, { skip }, async (t) => {
    const { image, bytes, contents } = make(t, options);
    const found = await filesOf(bytes);
    for (const [path, content] of contents) {
      const file = found.get(path);
      assert.ok(file !== undefined, path);
      assert.equal(file.kind, "file");
      assert.equal(file.sizeBytes, content.length, path);
      assert.equal(file.isExecutable, path === "/bin/server", path);
    }
    assert.equal(found.get("/srv/db/big")?.modifiedMs, 1_000_000_000_000);
    assert.equal(found.get("/many")?.kind, "directory");
    for (const path of [
      "/etc/hosts",
      "/bin/server",
      "/srv/db/big",
      "/srv/db/pieces",
      "/many/a-rather-long-name-of-a-file-555",
    ]) {
      const wanted = blocksOf(image, path);
      const here = new Set<number>();
      // The first range is the inode.
      for (const { offset, length } of found.get(path)?.ranges.slice(1) ?? [])
        for (let at = offset; at < offset + length; at += blockBytes) here.add(at / blockBytes);
      assert.deepEqual(
        [...wanted].filter((block) => !here.has(block)),
        [],
        `${path}: blocks that are missing`,
      );
      assert.ok(here.size <= wanted.size + 40, `${path}: ${here.size} for ${wanted.size}`);
    }
  });
}

/** A partition table as sfdisk would write it, with the file system in its second partition. */
function partitioned(bytes: Buffer, kind: "mbr" | "gpt"): Buffer {
  const start = 4096;
  const sectors = bytes.length / 512;
  const whole = Buffer.concat([Buffer.alloc(start * 512), bytes, Buffer.alloc(64 * 512)]);
  whole.writeUInt16LE(0xaa55, 510);
  const entry = (at: number, type: number, first: number, count: number): void => {
    whole.writeUInt8(type, at + 4);
    whole.writeUInt32LE(first, at + 8);
    whole.writeUInt32LE(count, at + 12);
  };
  if (kind === "mbr") {
    entry(446, 0x82, 2048, 1024);
    entry(462, 0x83, start, sectors);
    return whole;
  }
  entry(446, 0xee, 1, 0xffffffff);
  whole.write("EFI PART", 512, "latin1");
  whole.writeBigUInt64LE(2n, 512 + 72);
  whole.writeUInt32LE(128, 512 + 80);
  whole.writeUInt32LE(128, 512 + 84);
  for (const [slot, first, last] of [
    [0, 2048, 3071],
    [1, start, start + sectors - 1],
  ] as const) {
    const at = 1024 + slot * 128;
    whole.fill(0x77, at, at + 32);
    whole.writeBigUInt64LE(BigInt(first), at + 32);
    whole.writeBigUInt64LE(BigInt(last), at + 40);
  }
  return whole;
}

for (const kind of ["mbr", "gpt"] as const) {
  void test(
    `a file system in a partition (${kind}) is found, and its regions are the disk's`,
    { skip },
    async (t) => {
      const { bytes, contents } = make(t, ["-t", "ext4"]);
      const whole = partitioned(bytes, kind);
      const ranked = await rankFiles(disk(whole), [{ path: "/bin/*", weight: 1 }], Date.now(), signal);
      assert.equal(ranked.fileSystems, 1);
      assert.equal(ranked.matched, 1);
      const server = contents.get("/bin/server") as Buffer;
      const at = whole.indexOf(server.subarray(0, 4096));
      assert.ok(ranked.regions.includes(Math.floor(at / REGION_BYTES)));
      assert.ok(ranked.regions.length < 12, "not the whole disk");
    },
  );
}

void test(
  "what the rules want of a point is kept, and fetched after what a start read",
  { skip },
  async (t) => {
    const { bytes } = make(t, ["-t", "ext4"]);
    await using vault = await newVault(memoryStorage());
    const fileReads = openBootReads(vault, "shop", "files");
    const bootReads = openBootReads(vault, "shop", "boot");
    const rules = [{ path: "/bin/*", weight: 1 }];
    await using ranking = new PointRanking({
      rules,
      fileReads,
      log: silentLog,
      open: async () => disk(bytes),
    });
    ranking.want(["vol-1"], 7, Date.now());
    await ranking.settled();
    const ranked = await rankFiles(disk(bytes), rules, Date.now(), signal);
    assert.deepEqual(await fileReads.load("vol-1"), ranked.regions);
    assert.ok(ranked.regions.length > 0);

    const [known = 0] = ranked.regions;
    const other = bytes.length / REGION_BYTES - 1;
    await bootReads.save("vol-1", [other, known]);
    const order: number[] = [];
    const counted = {
      ...disk(bytes),
      read: async (offset: number, length: number) => {
        order.push(offset / REGION_BYTES);
        return Buffer.from(bytes.subarray(offset, offset + length));
      },
    };
    const options = {
      reader: counted,
      volume: "vol-1",
      bootReads,
      fileReads,
      clock: systemClock,
      log: silentLog,
    };
    await using reader = new PriorityReader(options);
    reader.expectStart();
    while (order.length < ranked.regions.length + 1) await new Promise((resolve) => setImmediate(resolve));
    assert.deepEqual(order, [other, known, ...ranked.regions.slice(1)]);
  },
);

void test("a disk without a file system that is understood has no regions", async () => {
  const ranked = await rankFiles(disk(randomBytes(1_000_000)), [{ weight: 1 }], 0, signal);
  assert.deepEqual([ranked.fileSystems, ranked.regions], [0, []]);
});

void test("a link of extended partitions that leads in a ring ends", async () => {
  const bytes = Buffer.alloc(1024 * 1024);
  for (const at of [0, 512]) {
    bytes.writeUInt16LE(0xaa55, at + 510);
    bytes.writeUInt8(0x05, at + 446 + 4);
    bytes.writeUInt32LE(at === 0 ? 1 : 0, at + 446 + 8);
    bytes.writeUInt32LE(2000, at + 446 + 12);
  }
  const found = await findPartitions(new CachedReads(disk(bytes)), signal);
  assert.deepEqual(found, [{ offset: 0, length: bytes.length }]);
});

void test("damage anywhere costs bounded work and never a throw", { skip }, async (t) => {
  const { image } = make(t, ["-t", "ext4", "-b", "1024", "-N", "1024"], 16);
  truncateSync(image, 16 * 1024 * 1024);
  const sound = readFileSync(image);
  const limits = { files: 3000, depth: 20, runs: 64, directoryBytes: 65_536, readBytes: 8 * 1024 * 1024 };
  const rounds = Number(process.env["FUZZ_ROUNDS"] ?? 150);
  let state = 7;
  const draw = (below: number): number => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
  for (let round = 0; round < rounds; round += 1) {
    const bytes = Buffer.from(sound);
    // Where the superblock, the descriptors, inodes and directories are, mostly.
    for (let hit = 0; hit < 40; hit += 1) {
      const at = draw(hit % 2 === 0 ? 400_000 : bytes.length);
      bytes.writeUInt8(draw(256), at);
    }
    for (let hit = 0; hit < 4; hit += 1)
      bytes.writeUInt32LE(draw(2) === 0 ? 0xffffffff : draw(2 ** 31), draw(300_000));
    const ranked = await rankFiles(disk(bytes), [{ weight: 1 }], 0, signal, limits);
    assert.ok(ranked.files <= 2 * limits.files);
    assert.ok(ranked.readBytes <= limits.readBytes + 64 * 1024 * 1024, String(ranked.readBytes));
    for (const region of ranked.regions) assert.ok(region * REGION_BYTES < bytes.length);
  }
});
