import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { decideFailover, sourceIsBack, type Trigger } from "#health/decide-failover.ts";
import type { Observation } from "#health/notice-board.ts";
import type { NoticeCode } from "#model/notice.ts";

const now = 10_000_000;
const staleAfterMs = 3000;
const codes: readonly NoticeCode[] = [
  "cloud.api_unreachable",
  "cloud.api_failing",
  "application.unresponsive",
  "application.failing",
];

const witnessName = fc.constantFrom("north", "south", "engine");
const observation: fc.Arbitrary<Observation> = fc
  .record({
    witness: witnessName,
    probe: fc.constantFrom("cloud@east", "shop"),
    code: fc.constantFrom(...codes),
    raised: fc.boolean(),
    lastedMs: fc.integer({ min: 0, max: 20_000 }),
    silentMs: fc.integer({ min: 0, max: 6000 }),
  })
  .map(({ lastedMs, silentMs, ...rest }) => ({
    ...rest,
    detail: "",
    since: now - silentMs - lastedMs,
    confirmedAt: now - silentMs,
  }));
const trigger: fc.Arbitrary<Trigger> = fc.record({
  codes: fc.uniqueArray(fc.constantFrom(...codes), { minLength: 1, maxLength: 2 }),
  witnesses: fc.integer({ min: 1, max: 3 }),
  forMs: fc.integer({ min: 0, max: 10_000 }),
});
const observations = fc.array(observation, { maxLength: 20 });
const triggers = fc.array(trigger, { maxLength: 3 });

test("one witness alone, whatever it says, never starts what takes two", () => {
  fc.assert(
    fc.property(observations, triggers, witnessName, (seen, asked, liar) => {
      const mine = seen.map((one) => ({ ...one, witness: liar, raised: true }));
      const ofTwo = asked.map((one) => ({ ...one, witnesses: Math.max(2, one.witnesses) }));
      assert.equal(decideFailover(mine, ofTwo, now, staleAfterMs).failover, false);
    }),
  );
});

test("what is stale, over, or too young to count is as if it had not been said", () => {
  fc.assert(
    fc.property(observations, triggers, (seen, asked) => {
      for (const one of asked) {
        const counting = seen.filter(
          ({ raised, since, confirmedAt }) =>
            raised && now - confirmedAt <= staleAfterMs && now - since >= one.forMs,
        );
        assert.deepEqual(
          decideFailover(seen, [one], now, staleAfterMs),
          decideFailover(counting, [one], now, staleAfterMs),
        );
      }
    }),
  );
});

test("a failover has as many agreeing witnesses as its trigger asks for, each with every code", () => {
  fc.assert(
    fc.property(observations, triggers, (seen, asked) => {
      const decision = decideFailover(seen, asked, now, staleAfterMs);
      if (!decision.failover) return;
      assert.equal(new Set(decision.agreeing).size, decision.agreeing.length);
      assert.ok(decision.agreeing.length >= decision.trigger.witnesses);
      for (const witness of decision.agreeing) {
        for (const code of decision.trigger.codes) {
          assert.ok(seen.some((one) => one.witness === witness && one.code === code && one.raised));
        }
      }
    }),
  );
});

test("more voices that agree never prevent a failover", () => {
  fc.assert(
    fc.property(observations, triggers, observations, (seen, asked, more) => {
      const raised = more.map((one) => ({ ...one, raised: true }));
      if (!decideFailover(seen, asked, now, staleAfterMs).failover) return;
      assert.equal(decideFailover([...seen, ...raised], asked, now, staleAfterMs).failover, true);
    }),
  );
});

test("without a trigger nothing starts", () => {
  fc.assert(
    fc.property(observations, (seen) => {
      assert.equal(decideFailover(seen, [], now, staleAfterMs).failover, false);
    }),
  );
});

test("the source is not back while anybody fresh says otherwise, nor on one voice where two are asked; who saw anything end just now has no voice", () => {
  fc.assert(
    fc.property(observations, fc.integer({ min: 0, max: 10_000 }), (seen, stableForMs) => {
      const back = sourceIsBack(seen, 2, stableForMs, now, staleAfterMs);
      const about = seen.filter(
        (one) => one.code.startsWith("cloud.api") && now - one.confirmedAt <= staleAfterMs,
      );
      const isSettled = (witness: string): boolean =>
        about.every((one) => one.witness !== witness || now - one.since >= stableForMs);
      const vouching = new Set(about.map(({ witness }) => witness).filter(isSettled));
      const expected = !about.some(({ raised }) => raised) && vouching.size >= 2;
      assert.equal(back, expected);
    }),
  );
});
