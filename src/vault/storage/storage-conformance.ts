import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { assertSameBytes } from "#kernel/same-bytes.fixture.ts";
import { type ErrorCode, isOperational } from "#kernel/errors.ts";
import type { BlobStorage } from "./blob-storage.ts";

/** The contract of `BlobStorage` as tests: every implementation and every wrapper runs them, each on an empty store. */
export function storageConformance(
  name: string,
  open: () => Promise<{ readonly storage: BlobStorage; readonly dispose: () => Promise<void> }>,
  /** A store without conditional puts cannot promise that of two puts of a name at the same moment one fails. */
  { exclusive = true }: { readonly exclusive?: boolean } = {},
): void {
  const it = (what: string, work: (storage: BlobStorage) => Promise<void>): void => {
    test(`${name}: ${what}`, async () => {
      const { storage, dispose } = await open();
      try {
        await work(storage);
      } finally {
        await storage.close();
        await dispose();
      }
    });
  };
  const fails = (work: Promise<unknown>, code: ErrorCode): Promise<void> =>
    assert.rejects(work, (error) => isOperational(error, code));
  const names = async (storage: BlobStorage, prefix: string): Promise<string[]> =>
    (await Array.fromAsync(storage.list(prefix))).map((facts) => facts.name);

  it("gives back what was put, whole and in ranges", async (storage) => {
    const bytes = randomBytes(100_000);
    assert.equal(await storage.put("a/b", [bytes.subarray(0, 1), bytes.subarray(1)]), "stored");
    assertSameBytes(await storage.get("a/b"), bytes);
    assertSameBytes(await storage.get("a/b", { offset: 99_999, length: 1 }), bytes.subarray(99_999));
    assertSameBytes(await storage.get("a/b", { offset: 7, length: 5_000 }), bytes.subarray(7, 5_007));
    assert.equal(await storage.size("a/b"), 100_000);
  });

  it("holds an empty object", async (storage) => {
    await storage.put("empty", []);
    assert.equal((await storage.get("empty")).length, 0);
    assert.deepEqual(await names(storage, ""), ["empty"]);
  });

  it("refuses a range outside the object", async (storage) => {
    await storage.put("short", [Buffer.alloc(10)]);
    await fails(storage.get("short", { offset: 0, length: 11 }), "disk.range");
    await fails(storage.get("short", { offset: 10, length: 1 }), "disk.range");
  });

  it("says not_found for what was never put", async (storage) => {
    await storage.put("a/b", [Buffer.from("x")]);
    await fails(storage.get("a"), "not_found");
    await fails(storage.get("a/c"), "not_found");
    await fails(storage.get("a/c", { offset: 0, length: 1 }), "not_found");
    await fails(storage.size("a/c"), "not_found");
  });

  it("never rewrites: the same bytes are present, others a conflict", async (storage) => {
    await storage.put("once", [Buffer.from("first")]);
    assert.equal(await storage.put("once", [Buffer.from("fir"), Buffer.from("st")]), "present");
    await fails(storage.put("once", [Buffer.from("other")]), "state.conflict");
    await fails(storage.put("once", [Buffer.from("firstlonger")]), "state.conflict");
    assert.equal((await storage.get("once")).toString(), "first");
  });

  if (exclusive)
    it("lets exactly one of many puts of one name win", async (storage) => {
      const puts = await Promise.allSettled(
        Array.from({ length: 8 }, (_, n) => storage.put("race", [Buffer.from(`writer ${n}`)])),
      );
      const winners = puts.flatMap((put, n) => (put.status === "fulfilled" ? [n] : []));
      assert.equal(winners.length, 1);
      assert.equal((await storage.get("race")).toString(), `writer ${winners[0]}`);
    });

  it("lists by any prefix, sorted in byte order over folders", async (storage) => {
    const all = ["a-b", "a/b", "a/c/d", "a0", "ab", "b/a", "b/aa"];
    for (const one of all.toReversed()) await storage.put(one, [Buffer.from(one)]);
    assert.deepEqual(await names(storage, ""), all);
    assert.deepEqual(await names(storage, "a/"), ["a/b", "a/c/d"]);
    assert.deepEqual(await names(storage, "a"), ["a-b", "a/b", "a/c/d", "a0", "ab"]);
    assert.deepEqual(await names(storage, "b/a"), ["b/a", "b/aa"]);
    assert.deepEqual(await names(storage, "c"), []);
    assert.deepEqual(await names(storage, "a/b/c"), []);
    const [facts] = await Array.fromAsync(storage.list("a/c"));
    assert.equal(facts?.sizeBytes, 5);
    assert.ok(Math.abs((facts?.storedAtMs ?? 0) - Date.now()) < 600_000);
  });

  it("lists more than one page", async (storage) => {
    const all = Array.from({ length: 1_205 }, (_, n) => `many/${String(n).padStart(5, "0")}`);
    for (let from = 0; from < all.length; from += 64) {
      await Promise.all(all.slice(from, from + 64).map((one) => storage.put(one, [Buffer.from("x")])));
    }
    assert.deepEqual(await names(storage, "many/"), all);
  });

  it("deletes, and a second time without complaint; the name is then free", async (storage) => {
    await storage.put("gone", [Buffer.from("x")]);
    await storage.get("gone");
    await storage.delete("gone");
    await storage.delete("gone");
    await fails(storage.get("gone"), "not_found");
    assert.deepEqual(await names(storage, ""), []);
    assert.equal(await storage.put("gone", [Buffer.from("y")]), "stored");
    assert.equal((await storage.get("gone")).toString(), "y");
  });

  it("refuses names that could lead elsewhere", async (storage) => {
    for (const bad of [
      "",
      "/a",
      "a/",
      "a//b",
      "..",
      "a/../b",
      ".hidden",
      "a/.b",
      "a b",
      "a\\b",
      "ä",
      "x".repeat(401),
    ]) {
      await fails(storage.put(bad, [Buffer.from("x")]), "input.invalid");
      await fails(storage.get(bad), "input.invalid");
    }
    assert.deepEqual(await names(storage, ""), []);
  });

  it("does nothing once it was aborted", async (storage) => {
    const signal = AbortSignal.abort();
    await assert.rejects(storage.put("late", [Buffer.from("x")], signal));
    await assert.rejects(storage.get("late", undefined, signal));
    assert.deepEqual(await names(storage, ""), []);
  });
}
