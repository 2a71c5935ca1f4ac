import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { boundEvidence, type Evidence } from "#model/evidence.ts";

const long = fc
  .tuple(fc.string(), fc.integer({ min: 0, max: 60_000 }))
  .map(([text, times]) => text.repeat(times % 3000));
const server = fc.record({
  id: fc.string({ maxLength: 20 }),
  name: fc.string({ maxLength: 20 }),
  copyId: fc.string({ maxLength: 20 }),
  verdicts: fc.array(
    fc.record({ check: fc.string({ maxLength: 60 }), problem: fc.option(long), output: long }),
    { maxLength: 4 },
  ),
  console: fc.option(long),
  screenshot: fc.option(long),
});

test("evidence has bounds, keeps the end of what was printed, and never half a picture", () => {
  fc.assert(
    fc.property(fc.array(server, { maxLength: 40 }), long, (servers, summary) => {
      const evidence: Evidence = { at: 1, good: true, summary, servers };
      const bounded = boundEvidence(evidence);
      assert.ok(
        JSON.stringify(bounded.servers.map(({ console: text, screenshot }) => [text, screenshot])).length <
          1_300_000,
      );
      let kept = 0;
      for (const [index, one] of bounded.servers.entries()) {
        const was = servers[index];
        assert.equal(one.verdicts.length, was?.verdicts.length, "no verdict is left out");
        for (const [at, verdict] of one.verdicts.entries()) {
          assert.equal(verdict.problem === null, was?.verdicts[at]?.problem === null);
          assert.ok(was?.verdicts[at]?.output.endsWith(verdict.output));
          kept += verdict.output.length;
        }
        if (one.console !== null) assert.ok(was?.console?.endsWith(one.console));
        if (one.screenshot !== null) assert.equal(one.screenshot, was?.screenshot);
        kept += (one.console?.length ?? 0) + (one.screenshot?.length ?? 0);
      }
      assert.ok(kept <= 600_000);
    }),
  );
});
