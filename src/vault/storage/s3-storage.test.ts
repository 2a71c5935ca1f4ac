import { CreateBucketCommand, S3Client } from "@aws-sdk/client-s3";
import assert from "node:assert/strict";
import { test } from "node:test";
import { isOperational } from "#kernel/errors.ts";
import { Secret } from "#kernel/secret.ts";
import type { BlobStorage } from "./blob-storage.ts";
import { openS3Storage } from "./s3-storage.ts";
import { startSmallS3 } from "./small-s3.fixture.ts";
import { storageConformance } from "./storage-conformance.ts";

const quick = {
  clock: { now: () => Date.now(), monotonicMs: () => performance.now(), sleep: async () => {} },
};
const open = (
  endpoint: string,
  more: { conditionalPut?: boolean; requestTimeoutMs?: number } = {},
): BlobStorage =>
  openS3Storage({
    bucket: "bucket",
    prefix: "some/where/",
    region: "us-east-1",
    endpoint,
    credentials: { accessKeyId: "test:tester", secretAccessKey: new Secret("testing") },
    conditionalPut: true,
    ...quick,
    ...more,
  });

storageConformance("s3, a small server with conditional puts", async () => {
  const server = await startSmallS3();
  return { storage: open(server.endpoint), dispose: server.close };
});

for (const fault of ["cut", "cut after", 500, 503, "html"] as const) {
  test(`s3: every third request ends in "${fault}", and all goes well all the same`, async () => {
    const server = await startSmallS3((_, number) => (number % 3 === 1 ? fault : "none"));
    try {
      const storage = open(server.endpoint);
      for (const name of ["a", "b", "c"])
        assert.equal(await storage.put(name, [Buffer.from(name)]), "stored");
      assert.equal((await storage.get("b")).toString(), "b");
      assert.deepEqual(
        (await Array.fromAsync(storage.list(""))).map(({ name }) => name),
        ["a", "b", "c"],
      );
      await storage.delete("b");
      assert.equal(server.objects.size, 2);
      await storage.close();
    } finally {
      await server.close();
    }
  });
}

test("s3: a store that stays away is vault.unreachable, with an honest outcome, after a few attempts", async () => {
  const server = await startSmallS3(() => "cut after");
  try {
    const storage = open(server.endpoint);
    await assert.rejects(
      storage.put("a", [Buffer.from("x")]),
      (error) => isOperational(error, "vault.unreachable") && error.outcome === "unknown",
    );
    assert.equal(server.requests() >= 5, true);
    assert.equal(server.objects.size, 1, "it arrived, and the caller was not told that it had not");
    await storage.close();
  } finally {
    await server.close();
  }
});

test("s3: a store that never answers is given up on in time", async () => {
  const server = await startSmallS3(() => "silent");
  try {
    const storage = open(server.endpoint, { requestTimeoutMs: 20 });
    await assert.rejects(storage.get("a"), (error) => isOperational(error, "vault.unreachable"));
    await storage.close();
  } finally {
    await server.close();
  }
});

/** A real server of another make, e.g. OpenStack Swift with s3api: `VAULT_S3_ENDPOINT=http://127.0.0.1:18480` (key `test:tester`, secret `testing`). */
const real = process.env["VAULT_S3_ENDPOINT"];
if (real === undefined) {
  test("s3, a real server", { skip: "VAULT_S3_ENDPOINT is not set" }, () => {});
} else {
  let number = 0;
  storageConformance(
    "s3, a real server without conditional puts",
    async () => {
      number += 1;
      const client = new S3Client({
        endpoint: real,
        region: "us-east-1",
        forcePathStyle: true,
        credentials: { accessKeyId: "test:tester", secretAccessKey: "testing" },
        requestChecksumCalculation: "WHEN_REQUIRED",
      });
      const bucket = `vault-${process.pid}-${number}`;
      await client.send(new CreateBucketCommand({ Bucket: bucket }));
      client.destroy();
      const storage = openS3Storage({
        bucket,
        prefix: "p/",
        region: "us-east-1",
        endpoint: real,
        credentials: { accessKeyId: "test:tester", secretAccessKey: new Secret("testing") },
        conditionalPut: false,
      });
      return { storage, dispose: async () => {} };
    },
    { exclusive: false },
  );
}
