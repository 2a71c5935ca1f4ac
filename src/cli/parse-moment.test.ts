import assert from "node:assert/strict";
import { test } from "node:test";
import { parseMoment } from "#cli/parse-moment.ts";
import { isOperational } from "#kernel/errors.ts";

const now = Date.parse("2026-03-01T12:00:00Z");

test("a time, with its zone, or how long ago", () => {
  assert.equal(parseMoment("2026-03-01T11:59:00Z", now), now - 60_000);
  assert.equal(parseMoment("2026-03-01T12:30:00+01:00", now), now - 1_800_000);
  assert.equal(parseMoment("20s ago", now), now - 20_000);
  assert.equal(parseMoment("1.5h ago", now), now - 5_400_000);
});

test("what is neither, or in the future, is refused", () => {
  for (const text of [
    "",
    "yesterday",
    "20s",
    "2026",
    "20 s before",
    "2026-99-01T00:00:00Z",
    "2026-03-01T12:00:01Z",
  ]) {
    assert.throws(
      () => parseMoment(text, now),
      (error) => isOperational(error, "input.invalid"),
      text,
    );
  }
});
