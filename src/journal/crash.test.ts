import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { systemClock } from "#kernel/clock.ts";
import { environmentId } from "#kernel/ids.ts";
import type { JournalEntry } from "#model/command.ts";
import { openSqliteStore } from "#store/open-sqlite-store.ts";
import { openJournal } from "./open-journal.ts";

const rounds = 50;
const shop = environmentId("shop");
const child = join(import.meta.dirname, "crash-child.ts");

interface Acknowledged {
  readonly intents: Map<string, number>;
  readonly outcomes: Map<string, number>;
}

/** Lets the child append until it has acknowledged `enough` records, then kills it in the middle of whatever it does. */
async function killedRound(path: string, round: number, enough: number, into: Acknowledged): Promise<void> {
  const appender = spawn(process.execPath, [child, path, `r${round.toString().padStart(3, "0")}`], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  const complaints: Buffer[] = [];
  appender.stderr.on("data", (chunk: Buffer) => complaints.push(chunk));
  const ended = once(appender, "close");
  let text = "";
  let lines = 0;
  appender.stdout.setEncoding("utf8");
  appender.stdout.on("data", (chunk: string) => {
    text += chunk;
    lines += chunk.split("\n").length - 1;
    if (lines >= enough) appender.kill("SIGKILL");
  });
  await ended;
  assert.equal(Buffer.concat(complaints).toString(), "");
  assert.ok(lines >= enough, `round ${round} acknowledged ${lines}`);
  for (const line of text.slice(0, text.lastIndexOf("\n")).split("\n")) {
    const [what, id, number] = line.split(" ");
    assert.ok(id !== undefined && number !== undefined, line);
    (what === "intent" ? into.intents : into.outcomes).set(id, Number(number));
  }
}

function assertNothingLost(entries: readonly JournalEntry[], acknowledged: Acknowledged): void {
  const byId = new Map(entries.map((entry) => [entry.intent.id as string, entry]));
  for (const [id, seq] of acknowledged.intents) assert.equal(byId.get(id)?.seq, seq, `intent ${id}`);
  for (const [id, position] of acknowledged.outcomes) {
    assert.equal(byId.get(id)?.position, position, `outcome ${id}`);
  }
  for (const { intent, outcome, position } of entries) {
    assert.deepEqual(intent.input, { id: intent.id, padding: "x".repeat(300) }, "no record is torn");
    assert.equal(outcome === null, position === null);
    if (outcome !== null) assert.equal(outcome.changes[0]?.id, `i-${intent.id}`);
  }
}

const dense = (numbers: number[]): void =>
  assert.deepEqual(
    numbers,
    numbers.map((_, index) => index + 1),
    "numbers go on by one",
  );

test("killed at random, 50 times over one journal: no acknowledged record is lost, none is torn", async (t) => {
  const directory = mkdtempSync(join(tmpdir(), "understudy-crash-"));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  const path = join(directory, "store.db");
  const store = await openSqliteStore({ path });
  const row = { id: shop, active_site: "a", standby_site: "b", phase: "p", epoch: 1, updated_at: 0 };
  await store.commit([{ query: store.db.insertInto("environment").values(row).compile() }]);
  await store.close();

  const acknowledged: Acknowledged = { intents: new Map(), outcomes: new Map() };
  for (let round = 0; round < rounds; round += 1) {
    await killedRound(path, round, 1 + ((round * 37) % 400), acknowledged);
  }

  const redo = readFileSync(`${path}-redo`);
  assert.equal(redo.toString("latin1", 0, 8), "USREDO1\n", "records went into the redo log first");
  const reopened = await openSqliteStore({ path });
  t.after(() => reopened.close());
  const journal = await openJournal(reopened, { clock: systemClock });
  const entries = await journal.tail(shop, 1_000_000);
  assertNothingLost(entries, acknowledged);
  dense(entries.map((entry) => entry.seq));
  dense(entries.flatMap((entry) => entry.position ?? []).sort((a, b) => a - b));
  assert.equal((await journal.open(shop)).length, entries.filter((entry) => entry.position === null).length);
});
