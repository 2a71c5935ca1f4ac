import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { describeEvidence, saveScreenshot } from "#cli/show-evidence.ts";
import type { Evidence, ServerEvidence } from "#model/evidence.ts";

const folder = mkdtempSync(join(tmpdir(), "evidence-"));
after(() => rmSync(folder, { recursive: true }));

const server = (name: string, rest: Partial<ServerEvidence> = {}): ServerEvidence => ({
  id: `i-${name}`,
  name,
  copyId: `copy-${name}`,
  verdicts: [{ check: "answers", problem: null, output: "" }],
  console: null,
  screenshot: Buffer.from(`picture of ${name}`).toString("base64"),
  ...rest,
});
const evidence = (...servers: readonly ServerEvidence[]): Evidence => ({
  at: 0,
  good: true,
  summary: "all of it",
  servers,
});

test("what failed is told, and a guest's own control characters are not passed on", () => {
  const bad = server("db", {
    verdicts: [{ check: "judge", problem: "it ended with 1", output: "" }],
    console: "first\r\n\u001b[31mred\u0007\r\n\r\nlast\r\n",
    screenshot: null,
  });
  const said = describeEvidence({ ...evidence(bad), good: false }).join("\n");
  assert.match(said, /NOT good: all of it/u);
  assert.match(said, /db +judge: fails: it ended with 1/u);
  assert.match(said, /\| first\n.*\| \[31mred\n.*\| last$/u);
  assert.doesNotMatch(said, /screenshot/u);
  assert.deepEqual(describeEvidence(null), []);
});

test("the screenshot of the one server that has one, or of the one that is named; never over a file that is there", async () => {
  const file = join(folder, "one.png");
  await saveScreenshot(evidence(server("db"), server("web", { screenshot: null })), undefined, file);
  assert.equal(readFileSync(file, "utf8"), "picture of db");
  await assert.rejects(saveScreenshot(evidence(server("db")), undefined, file), { code: "state.conflict" });
  const both = evidence(server("db"), server("web"));
  const other = join(folder, "other.png");
  await assert.rejects(saveScreenshot(both, undefined, other), {
    code: "input.invalid",
    message: /web \(i-web\)/u,
  });
  await saveScreenshot(both, "i-web", other);
  assert.equal(readFileSync(other, "utf8"), "picture of web");
  for (const [seen, name] of [
    [both, "cache"],
    [evidence(), undefined],
    [null, undefined],
  ] as const) {
    await assert.rejects(saveScreenshot(seen, name, join(folder, "none.png")), { code: "not_found" });
  }
});
