import assert from "node:assert/strict";
import { test } from "node:test";
import { isOperational } from "#kernel/errors.ts";
import { siteId } from "#kernel/ids.ts";
import { checkStanding } from "#main/check-standing.ts";

const east = siteId("east");
const west = siteId("west");
const asMade = { activeSite: east, standbySite: west, epoch: 1 };
const swapped = { activeSite: west, standbySite: east, epoch: 4 };
const file = { active: "east", standby: "west" };

test("a record as the file has it", () => {
  assert.deepEqual(checkStanding("shop", file, asMade), { agrees: true });
  assert.deepEqual(checkStanding("shop", file, { ...asMade, epoch: 7 }), { agrees: true });
});

test("roles that a takeover exchanged: the record decides, and says so", () => {
  const standing = checkStanding("shop", file, swapped);
  assert.equal(standing.agrees, false);
  assert.match(standing.agrees ? "" : standing.note, /active site "west".*the record decides/u);
  assert.deepEqual(checkStanding("shop", { active: "west", standby: "east" }, swapped), { agrees: true });
});

test("roles that nothing but the file exchanged are an error that names the command", () => {
  assert.throws(
    () => checkStanding("shop", { active: "west", standby: "east" }, asMade),
    (error) => isOperational(error, "config.invalid") && /understudy swap shop/u.test(error.message),
  );
});

test("another site in either role is an error, whatever has happened since", () => {
  for (const named of [
    { active: "east", standby: "north" },
    { active: "north", standby: "west" },
    { active: "west", standby: "north" },
  ]) {
    for (const record of [asMade, swapped]) {
      assert.throws(
        () => checkStanding("shop", named, record),
        (error) => isOperational(error, "config.invalid") && /"north".*name them again/u.test(error.message),
      );
    }
  }
});
