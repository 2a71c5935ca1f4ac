import assert from "node:assert/strict";
import { test } from "node:test";
import { Secret } from "#kernel/secret.ts";
import { BLOCK_BYTES } from "./block-ref.ts";
import { openS3Storage } from "./storage/s3-storage.ts";
import { startSmallS3 } from "./storage/small-s3.fixture.ts";
import { memoryDisk, newVault, readWhole, reopen, text } from "./vault.fixture.ts";

test("a whole vault over an S3 store of which every fourth request fails, in all ways, loses nothing", async () => {
  const faults = ["cut", "cut after", 500, 503, "html"] as const;
  const server = await startSmallS3((_, number) =>
    number % 4 === 0 ? (faults[(number / 4) % faults.length] ?? "none") : "none",
  );
  try {
    const storage = openS3Storage({
      bucket: "bucket",
      prefix: "vault/",
      region: "us-east-1",
      endpoint: server.endpoint,
      credentials: { accessKeyId: "key", secretAccessKey: new Secret("secret") },
      conditionalPut: true,
      clock: { now: () => Date.now(), monotonicMs: () => performance.now(), sleep: async () => {} },
    });
    const vault = await newVault(storage);
    const disk = text(1, 3 * BLOCK_BYTES);
    const base = await vault.writePoint({ volumeId: "v", sizeBytes: disk.length, source: memoryDisk(disk) });
    const now = Buffer.from(disk);
    now.write("changed", 5_000);
    const changed = [{ offset: 5_000, length: 7 }];
    const request = { volumeId: "v", sizeBytes: now.length, source: memoryDisk(now), base: base.id, changed };
    const next = await vault.writePoint(request);
    const fresh = await reopen(storage);
    for (const [id, wanted] of [
      [base.id, disk],
      [next.id, now],
    ] as const) {
      await using point = await fresh.openPoint(id);
      assert.ok((await readWhole(point)).equals(wanted));
    }
    assert.deepEqual((await fresh.verify({ depth: "full" })).findings, []);
    await fresh.collectGarbage();
    assert.deepEqual((await fresh.listPoints("v")).length, 2);
    await storage.close();
  } finally {
    await server.close();
  }
});
