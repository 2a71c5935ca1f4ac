import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { maxPartBytes } from "#wire/agent/pass-part.ts";
import { Spool } from "./spool.ts";

function folderOf(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), "understudy-spool-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

const { signal } = new AbortController();

test("parts are there in order after a restart; one that was half written is not", async (t) => {
  const folder = folderOf(t);
  {
    const spool = await Spool.open(folder, 2 ** 30);
    for (const number of [9, 10, 11]) await spool.add(number, Buffer.alloc(number));
    writeFileSync(join(folder, "000000000000012.part.new"), "half");
  }
  const spool = await Spool.open(folder, 2 ** 30);
  assert.deepEqual([spool.numbers, spool.bytes, spool.oldest], [[9, 10, 11], 30, 9]);
  await spool.drop(10);
  assert.deepEqual([spool.numbers, (await spool.read(11)).length], [[11], 11]);
  assert.deepEqual((await Spool.open(folder, 2 ** 30)).numbers, [11]);
});

test("there is room only for the largest part there can be, and who waits for it is told", async (t) => {
  const spool = await Spool.open(folderOf(t), maxPartBytes + 100);
  assert.ok(spool.hasRoom);
  await spool.add(1, Buffer.alloc(101));
  assert.ok(!spool.hasRoom);
  const order: string[] = [];
  const waiting = spool.room(signal).then(() => void order.push("room"));
  order.push("dropped");
  await spool.drop(1);
  await waiting;
  assert.deepEqual(order, ["dropped", "room"]);
});

test("who waits may leave", async (t) => {
  const spool = await Spool.open(folderOf(t), 2 ** 30);
  const leave = new AbortController();
  const waiting = spool.filled(leave.signal);
  leave.abort(new Error("left"));
  await assert.rejects(waiting, /left/u);
});

test("who waits for it to be empty goes on when nothing can be sent", async (t) => {
  const spool = await Spool.open(folderOf(t), 2 ** 30);
  await spool.drained(() => false, signal);
  await spool.add(1, Buffer.alloc(1));
  await spool.add(2, Buffer.alloc(1));
  let away = false;
  let over = false;
  const waiting = spool.drained(() => away, signal).then(() => (over = true));
  await spool.drop(1);
  assert.ok(!over);
  away = true;
  spool.look();
  await waiting;
  away = false;
  const empty = spool.drained(() => away, signal);
  await spool.drop(2);
  await empty;
});
