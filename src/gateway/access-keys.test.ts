import assert from "node:assert/strict";
import { chmod, mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { inspect } from "node:util";
import type { Clock } from "#kernel/clock.ts";
import { isOperational } from "#kernel/errors.ts";
import { environmentId } from "#kernel/ids.ts";
import { systemRandom } from "#kernel/random.ts";
import { openAccessKeys } from "./access-keys.ts";

const shop = environmentId("shop");

function handClock(): Clock & { advance(ms: number): void } {
  let at = 1_000_000;
  return {
    now: () => at,
    monotonicMs: () => at,
    sleep: () => Promise.resolve(),
    advance: (ms) => {
      at += ms;
    },
  };
}

async function folder(t: TestContext): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), "understudy-keys-"));
  t.after(() => rm(path, { recursive: true }));
  return path;
}

test("a created key is found, listed without its secret, kept over a restart, in a file for one user only", async (t) => {
  const path = join(await folder(t), "access-keys.json");
  const ports = { clock: handClock(), random: systemRandom };
  const keys = await openAccessKeys(path, ports);
  const key = await keys.create({ environment: shop, rights: "change", label: "terraform" });
  assert.match(key.id, /^UKIA[A-Z2-7]{16}$/);
  assert.equal(key.secret.reveal().length, 40);
  assert.equal((await stat(path)).mode & 0o777, 0o600);
  const listed = await keys.list();
  assert.equal(listed.length, 1);
  assert.ok(!inspect(listed, { depth: 9 }).includes(key.secret.reveal()));
  const reopened = await openAccessKeys(path, ports);
  const found = reopened.find(key.id);
  assert.equal(found?.secret.reveal(), key.secret.reveal());
  assert.equal(found.rights, "change");
  assert.equal(reopened.find("UKIAAAAAAAAAAAAAAAAA"), undefined);
});

test("a key that another process disables is refused within a second", async (t) => {
  const path = join(await folder(t), "access-keys.json");
  const clock = handClock();
  const mine = await openAccessKeys(path, { clock, random: systemRandom });
  const key = await mine.create({ environment: shop, rights: "read-only", label: "" });
  assert.ok(mine.find(key.id));
  const other = await openAccessKeys(path, { clock, random: systemRandom });
  await other.disable(key.id);
  clock.advance(1_001);
  await mine.refresh();
  assert.equal(mine.find(key.id), undefined);
  await assert.rejects(other.disable("UKIAAAAAAAAAAAAAAAAA"), (error) => isOperational(error, "not_found"));
});

test("changes made at once are all kept", async (t) => {
  const path = join(await folder(t), "access-keys.json");
  const keys = await openAccessKeys(path, { clock: handClock(), random: systemRandom });
  await Promise.all(
    Array.from({ length: 10 }, (_, index) =>
      keys.create({ environment: shop, rights: "change", label: String(index) }),
    ),
  );
  assert.equal((await keys.list()).length, 10);
});

test("a file that others can read is refused, with what to do", async (t) => {
  const path = join(await folder(t), "access-keys.json");
  await writeFile(path, '{"version":1,"keys":[]}', { mode: 0o600 });
  await chmod(path, 0o644);
  await assert.rejects(
    openAccessKeys(path, { clock: handClock(), random: systemRandom }),
    (error) => isOperational(error, "config.invalid") && error.message.includes(`chmod 600 ${path}`),
  );
});

test("a broken file is named, and its content is not quoted", async (t) => {
  const path = join(await folder(t), "access-keys.json");
  for (const text of [
    '{"version":1,"keys":[{"secret":"verysecretverysecretverysecretvery"',
    '{"version":1,"keys":[{"id":"UKIAAAAAAAAAAAAAAAAA","secret":"verysecretverysecretverysecretvery"}]}',
  ]) {
    await writeFile(path, text, { mode: 0o600 });
    await assert.rejects(
      openAccessKeys(path, { clock: handClock(), random: systemRandom }),
      (error) => isOperational(error, "config.invalid") && !inspect(error).includes("verysecret"),
    );
    assert.equal(await readFile(path, "utf8"), text);
  }
});
