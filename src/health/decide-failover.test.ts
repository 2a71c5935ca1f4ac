import assert from "node:assert/strict";
import { test } from "node:test";
import type { NoticeCode } from "#model/notice.ts";
import { decideFailover, sourceIsBack, type Trigger } from "./decide-failover.ts";
import type { Observation } from "./notice-board.ts";

const now = 100_000;
const staleAfterMs = 6_000;

function seen(witness: string, what: Partial<Observation> = {}): Observation {
  return {
    witness,
    probe: "cloud@east",
    code: "cloud.api_unreachable",
    raised: true,
    detail: "",
    since: now - 10_000,
    confirmedAt: now - 500,
    ...what,
  };
}

function trigger(codes: readonly NoticeCode[], witnesses: number): Trigger {
  return { codes, witnesses, forMs: 5_000 };
}

const unreachable = trigger(["cloud.api_unreachable"], 2);

function decides(
  observations: readonly Observation[],
  triggers: readonly Trigger[] = [unreachable],
): boolean {
  return decideFailover(observations, triggers, now, staleAfterMs).failover;
}

test("so many different witnesses must agree: one that says it twice is one", () => {
  assert.equal(decides([seen("north"), seen("south")]), true);
  assert.equal(decides([seen("north")]), false);
  assert.equal(decides([seen("north"), seen("north", { probe: "second" })]), false);
  assert.equal(decides([seen("north"), seen("south", { raised: false })]), false);
});

test("each of them must have seen it for so long, to the millisecond", () => {
  assert.equal(decides([seen("north"), seen("south", { since: now - 5_000 })]), true);
  assert.equal(decides([seen("north"), seen("south", { since: now - 4_999 })]), false);
});

test("a witness that fell silent says nothing any more", () => {
  assert.equal(decides([seen("north"), seen("south", { confirmedAt: now - staleAfterMs })]), true);
  assert.equal(decides([seen("north"), seen("south", { confirmedAt: now - staleAfterMs - 1 })]), false);
});

test("a trigger of several codes needs all of them from the same witness", () => {
  const both = trigger(["cloud.api_unreachable", "application.unresponsive"], 1);
  const application = { code: "application.unresponsive", probe: "shop" } as const;
  assert.equal(decides([seen("north"), seen("south", application)], [both]), false);
  assert.equal(decides([seen("north"), seen("north", application)], [both]), true);
});

test("without triggers only a person begins a failover; any one of several suffices", () => {
  assert.equal(decides([seen("north"), seen("south")], []), false);
  const other = trigger(["machine.failed"], 1);
  const decision = decideFailover([seen("north"), seen("south")], [other, unreachable], now, staleAfterMs);
  assert.ok(decision.failover);
  assert.deepEqual(decision.agreeing, ["north", "south"]);
  assert.equal(decision.trigger, unreachable);
});

test("the source is back when enough witnesses have seen it answer for long enough and none says otherwise", () => {
  const back = (observations: readonly Observation[]): boolean =>
    sourceIsBack(observations, 2, 8_000, now, staleAfterMs);
  const clear = { raised: false } as const;
  assert.equal(back([seen("north", clear), seen("south", clear)]), true);
  assert.equal(back([seen("north", clear)]), false);
  assert.equal(back([seen("north", clear), seen("south", { ...clear, since: now - 7_999 })]), false);
  assert.equal(back([seen("north", clear), seen("south", clear), seen("west")]), false);
  assert.equal(back([seen("north", clear), seen("south", clear), seen("west", { confirmedAt: 0 })]), true);
  assert.equal(back([seen("north", { ...clear, confirmedAt: 0 }), seen("south", clear)]), false);
  const failing = seen("west", { code: "cloud.api_failing" });
  assert.equal(back([seen("north", clear), seen("south", clear), failing]), false);
});

test("a witness that has seen the silence end only now does not vouch with the errors that it never saw", () => {
  const justBack = seen("north", { raised: false, since: now - 1_000 });
  const neverFailing = seen("north", { raised: false, code: "cloud.api_failing", since: now - 60_000 });
  assert.equal(sourceIsBack([justBack, neverFailing], 1, 8_000, now, staleAfterMs), false);
  assert.equal(
    sourceIsBack([{ ...justBack, since: now - 8_000 }, neverFailing], 1, 8_000, now, staleAfterMs),
    true,
  );
});
