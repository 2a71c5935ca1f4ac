import assert from "node:assert/strict";
import { test } from "node:test";
import { isOpen, type SendWindow, waitForWindowMs } from "./send-window.ts";

const at = (time: string): number => Date.parse(`2026-03-01T${time}Z`);
const utc = (fromMinute: number, toMinute: number): SendWindow => ({
  zone: "utc",
  ranges: [{ fromMinute, toMinute }],
});

test("a range holds its first minute and not its last; one may go over midnight", () => {
  const day = utc(9 * 60, 17 * 60 + 30);
  assert.deepEqual(
    ["08:59:59", "09:00:00", "17:29:59.999", "17:30:00"].map((time) => isOpen(day, at(time))),
    [false, true, true, false],
  );
  const night = utc(22 * 60, 6 * 60);
  assert.deepEqual(
    ["21:59", "22:00", "00:00", "05:59", "06:00", "12:00"].map((time) => isOpen(night, at(`${time}:00`))),
    [false, true, true, true, false, false],
  );
});

test("no range is always; one without length is the whole day; several add up", () => {
  assert.ok(isOpen({ zone: "utc", ranges: [] }, at("12:00:00")));
  assert.ok(isOpen(utc(60, 60), at("12:00:00")));
  const two: SendWindow = { zone: "utc", ranges: [...utc(60, 120).ranges, ...utc(600, 660).ranges] };
  assert.deepEqual(
    ["01:30", "05:00", "10:30"].map((time) => isOpen(two, at(`${time}:00`))),
    [true, false, true],
  );
});

test("it is looked at again with each minute, so that it is never late", () => {
  const day = utc(9 * 60, 17 * 60);
  assert.equal(waitForWindowMs(day, at("10:00:00")), 0);
  assert.equal(waitForWindowMs(day, at("08:59:30")), 30_000);
  assert.equal(waitForWindowMs(day, at("03:00:00")), 60_000);
});

test("the local zone is the machine's", () => {
  const here = new Date(at("12:00:00"));
  const minute = here.getHours() * 60 + here.getMinutes();
  const window: SendWindow = { zone: "local", ranges: [{ fromMinute: minute, toMinute: minute + 1 }] };
  assert.ok(isOpen(window, here.getTime()));
  assert.ok(!isOpen(window, here.getTime() + 60_000));
});
