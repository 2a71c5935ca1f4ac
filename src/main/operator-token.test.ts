import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync, chmodSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { isOperational } from "#kernel/errors.ts";
import { systemRandom } from "#kernel/random.ts";
import { openOperatorToken } from "#main/operator-token.ts";

function dataFolder(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), "understudy-token-"));
  t.after(() => rmSync(folder, { recursive: true }));
  return join(folder, "data");
}

test("a token is made once, for its user alone, and found again", async (t) => {
  const data = dataFolder(t);
  const token = await openOperatorToken(data, "api-token", systemRandom);
  assert.match(token.reveal(), /^[0-9a-f]{64}$/u);
  assert.equal(statSync(data).mode & 0o777, 0o700);
  assert.equal(statSync(join(data, "api-token")).mode & 0o777, 0o600);
  assert.deepEqual(readdirSync(data), ["api-token"]);
  const again = await openOperatorToken(data, "api-token", systemRandom);
  assert.equal(again.reveal(), token.reveal());
});

test("a file that others could read is closed to them", async (t) => {
  const data = dataFolder(t);
  await openOperatorToken(data, "api-token", systemRandom);
  chmodSync(join(data, "api-token"), 0o644);
  await openOperatorToken(data, "api-token", systemRandom);
  assert.equal(statSync(join(data, "api-token")).mode & 0o777, 0o600);
});

test("an empty file, as a full disk leaves one, is as good as none", async (t) => {
  const data = dataFolder(t);
  await openOperatorToken(data, "api-token", systemRandom);
  writeFileSync(join(data, "api-token"), "");
  const token = await openOperatorToken(data, "api-token", systemRandom);
  assert.equal(readFileSync(join(data, "api-token"), "utf8"), `${token.reveal()}\n`);
});

test("a data folder that cannot be is told by its name", async (t) => {
  const data = dataFolder(t);
  writeFileSync(data, "a file");
  await assert.rejects(
    openOperatorToken(data, "api-token", systemRandom),
    (error) => isOperational(error, "store.failing") && error.message.includes(data),
  );
});
