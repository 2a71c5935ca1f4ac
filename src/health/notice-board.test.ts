import assert from "node:assert/strict";
import { test } from "node:test";
import type { Notice } from "#model/notice.ts";
import { openSqliteStore } from "#store/open-sqlite-store.ts";
import { createNoticeBoard } from "#health/notice-board.ts";

const staleAfterMs = 3000;

async function openBoard() {
  const store = await openSqliteStore({ path: ":memory:" });
  let now = 1_000_000;
  const reports: string[] = [];
  const board = createNoticeBoard({
    store,
    clock: { now: () => now, monotonicMs: () => now, sleep: () => Promise.resolve() },
    witnesses: new Map([["shop", new Set(["north", "south"])]]),
    staleAfterMs: new Map([["shop", staleAfterMs]]),
    onReport: (environment) => reports.push(environment),
  });
  const notice = (over: Partial<Notice> = {}): Notice => ({
    environment: "shop",
    witness: "north",
    probe: "cloud@east",
    code: "cloud.api_unreachable",
    raised: true,
    detail: "connect ECONNREFUSED",
    at: 0,
    ...over,
  });
  const at = (ms: number): void => {
    now = 1_000_000 + ms;
  };
  const rows = () => store.db.selectFrom("notice").selectAll().execute();
  return { store, board, notice, at, reports, rows };
}

test("ages are by the receiver's clock: a witness with a wrong one changes nothing", async () => {
  const { store, board, notice, at } = await openBoard();
  for (const [ms, claimed] of [
    [0, -9_999_999],
    [1000, 99_999_999_999],
    [2000, 0],
  ] as const) {
    at(ms);
    await board.post([notice({ at: claimed })]);
  }
  const [seen] = board.observations("shop");
  assert.equal(seen?.since, 1_000_000);
  assert.equal(seen?.confirmedAt, 1_002_000);
  await store.close();
});

test("a state that was not confirmed for too long begins anew", async () => {
  const { store, board, notice, at } = await openBoard();
  await board.post([notice()]);
  at(staleAfterMs);
  await board.post([notice()]);
  assert.equal(board.observations("shop")[0]?.since, 1_000_000, "a pause within bounds is no break");
  at(2 * staleAfterMs + 1);
  await board.post([notice()]);
  assert.equal(board.observations("shop")[0]?.since, 1_000_000 + 2 * staleAfterMs + 1);
  await store.close();
});

test("transitions are durable, repetitions are not written", async () => {
  const { store, board, notice, at, reports, rows } = await openBoard();
  await board.post([notice({ raised: false })]);
  assert.deepEqual(await rows(), [], "that all is well from the start is no transition");
  await board.post([notice()]);
  at(1000);
  await board.post([notice({ detail: "another one" })]);
  const [row] = await rows();
  assert.deepEqual([row?.raised, row?.at, row?.detail], [1, 1_000_000, "connect ECONNREFUSED"]);
  at(2000);
  await board.post([notice({ raised: false, detail: "" })]);
  assert.deepEqual(
    (await rows()).map(({ raised, since }) => [raised, since]),
    [[0, 1_002_000]],
  );
  assert.equal(reports.length, 4, "every report is told of, since time alone may complete a trigger");
  await store.close();
});

test("a witness that the environment does not name is refused", async () => {
  const { store, board, notice, reports } = await openBoard();
  await assert.rejects(board.post([notice({ witness: "stranger" })]), { code: "auth.forbidden" });
  await assert.rejects(board.post([notice({ environment: "other" })]), { code: "auth.forbidden" });
  assert.deepEqual(board.observations("shop"), []);
  assert.deepEqual(reports, []);
  await store.close();
});

test("a witness that names ever new things is refused, the others are heard", async () => {
  const { store, board, notice } = await openBoard();
  for (let count = 0; count < 1000; count += 1)
    await board.post([notice({ probe: `p${count}`, raised: false })]);
  await assert.rejects(board.post([notice({ probe: "one more" })]), { code: "input.invalid" });
  await board.post([notice({ probe: "p1" }), notice({ witness: "south" })]);
  assert.equal(board.observations("shop").length, 1001);
  await store.close();
});

test("what is cleared is forgotten, on disk too", async () => {
  const { store, board, notice, rows } = await openBoard();
  await board.post([notice()]);
  await board.clear("shop");
  assert.deepEqual(board.observations("shop"), []);
  assert.deepEqual(await rows(), []);
  await store.close();
});
