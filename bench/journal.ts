// Durable appends against what SQLite itself can do with the same rows in the same file system, and the reduction of a
// long journal read from the table.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { systemClock } from "#kernel/clock.ts";
import { commandId, environmentId, resourceId } from "#kernel/ids.ts";
import type { Change } from "#model/change.ts";
import type { Journal } from "#journal/contract.ts";
import { openJournal } from "#journal/open-journal.ts";
import { reduceJournal } from "#journal/reduce-journal.ts";
import type { Store } from "#store/contract.ts";
import { openSqliteStore } from "#store/open-sqlite-store.ts";

export const summary = "durable appends vs SQLite's batch limit; reducing 10 million entries";

const shop = environmentId("shop");
const callers = 64;
const commands = 64_000;
const rounds = 3;
const entries = Number(process.env["BENCH_JOURNAL_ENTRIES"] ?? 10_000_000);

/** Each greater than the one before, as the gateway's are. */
const nameOf = (n: number): string => `command-${n.toString().padStart(9, "0")}`;
const input = { ImageId: "ami-0abcdef12", InstanceType: "t3.micro", MinCount: 1, MaxCount: 1 };
const launch = (n: number): Change => ({
  type: "create",
  kind: "server",
  id: resourceId(`i-${n}`),
  spec: {
    imageId: "ami-0abcdef12",
    type: "t3.micro",
    groupIds: [resourceId("sg-1")],
    publicAddress: false,
    power: "running",
    blockDevices: [],
  },
  tags: { Name: "web" },
});

async function withJournal<T>(
  directory: string,
  work: (journal: Journal, store: Store) => Promise<T>,
): Promise<T> {
  // As the engine opens it.
  const store = await openSqliteStore({ path: join(directory, "store.db"), serving: true });
  const row = { id: shop, active_site: "a", standby_site: "b", phase: "p", epoch: 1, updated_at: 0 };
  await store.commit([{ query: store.db.insertInto("environment").values(row).compile() }]);
  try {
    return await work(await openJournal(store, { clock: systemClock }), store);
  } finally {
    await store.close();
  }
}

/** Intents and outcomes of `commands` commands; each is one durable append. Returns appends a second. */
async function ourAppends(journal: Journal): Promise<number> {
  let next = 0;
  const caller = async (): Promise<void> => {
    while (next < commands) {
      const n = (next += 1);
      const id = commandId(nameOf(n));
      const intent = { id, environment: shop, service: "ec2", operation: "RunInstances", input } as const;
      const recorded = await journal.recordIntent({
        ...intent,
        token: `token-${n}`,
        principal: "AKIA",
        epoch: 1,
        at: n,
      });
      const outcome = { result: "applied", status: 200, errorCode: null, gaps: [], resolvedLater: false };
      await journal.recordOutcome(shop, id, { ...outcome, changes: [launch(n)], at: n } as never, recorded);
    }
  };
  const start = performance.now();
  await Promise.all(Array.from({ length: callers }, caller));
  // What is durable and not in the tables yet counts when it is there.
  await journal.head(shop);
  return (2 * commands) / ((performance.now() - start) / 1_000);
}

/** The same inserts and updates by plain `node:sqlite`, 64 to a transaction, into a copy of the schema. */
function limitAppends(path: string): number {
  const database = new DatabaseSync(path);
  // The same durability and the same room for the log as the store has.
  database.exec("pragma synchronous = full; pragma wal_autocheckpoint = 16000");
  const insert = database.prepare(
    `insert into command (environment, seq, id, service, operation, input, token, principal, epoch, intent_at)
     values (?, ?, ?, 'ec2', 'RunInstances', ?, ?, 'AKIA', 1, ?)`,
  );
  const update = database.prepare(
    `update command set position = ?, result = 'applied', status = 200, changes = ?, gaps = '[]', resolved_later = 0,
     outcome_at = ? where environment = ? and id = ? and position is null`,
  );
  const inputText = JSON.stringify(input);
  const start = performance.now();
  for (let from = 1; from <= commands; from += callers) {
    const numbers = Array.from({ length: callers }, (_, index) => from + index);
    database.exec("begin immediate");
    for (const n of numbers) insert.run(shop, n, nameOf(n), inputText, `token-${n}`, n);
    database.exec("commit; begin immediate");
    for (const n of numbers) update.run(n, JSON.stringify([launch(n)]), n, shop, nameOf(n));
    database.exec("commit");
  }
  const perSecond = (2 * commands) / ((performance.now() - start) / 1_000);
  database.close();
  return perSecond;
}

/** Rolling deployments over 2,000 places: launch, tag, resize, terminate, over and over; cut off in the midst of one. */
function change(entry: number): Change {
  const n = entry + 3_000;
  const place = n % 2_000;
  const generation = Math.floor(n / 8_000);
  const id = resourceId(`i-${place}-${generation}`);
  switch (Math.floor(n / 2_000) % 4) {
    case 0:
      return { ...launch(n), id };
    case 1:
      return { type: "tag", kind: "server", id, set: { tier: `t${n % 7}` }, remove: [] };
    case 2:
      return { type: "update", kind: "server", id, set: { type: `t3.${n % 5}` } };
    default:
      return { type: "delete", kind: "server", id };
  }
}

/** Straight into the table without durability: filling it is not what is measured. */
function fill(path: string): void {
  const database = new DatabaseSync(path);
  database.exec("pragma synchronous = off");
  const insert = database.prepare(
    `insert into command (environment, seq, id, service, operation, input, principal, epoch, intent_at, position, result,
     status, changes, gaps, resolved_later, outcome_at)
     values (?, ?, ?, 'ec2', 'RunInstances', '{}', 'AKIA', 1, 0, ?, 'applied', 200, ?, '[]', 0, 0)`,
  );
  for (let from = 0; from < entries; from += 100_000) {
    database.exec("begin immediate");
    for (let n = from; n < Math.min(from + 100_000, entries); n += 1) {
      insert.run(shop, n + 1, `c${n}`, n + 1, JSON.stringify([change(n)]));
    }
    database.exec("commit");
  }
  database.close();
}

async function lookUpMs(journal: Journal, after: number): Promise<number> {
  const start = performance.now();
  for (let n = 0; n < 200; n += 1) await journal.read(shop, after + n, 1);
  return (performance.now() - start) / 200;
}

async function measured<T>(label: string, work: (directory: string) => Promise<T>): Promise<T> {
  const directory = mkdtempSync(join(tmpdir(), `understudy-bench-${label}-`));
  try {
    return await work(directory);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

const median = (values: number[]): number => values.sort((a, b) => a - b)[values.length >> 1] ?? 0;

async function appends(): Promise<{ ours: number; limit: number }> {
  const ours: number[] = [];
  const limits: number[] = [];
  for (let round = 0; round < rounds; round += 1) {
    ours.push(await measured("appends", (at) => withJournal(at, ourAppends)));
    limits.push(
      await measured("limit", async (at) => {
        await withJournal(at, () => Promise.resolve());
        return limitAppends(join(at, "store.db"));
      }),
    );
  }
  return { ours: median(ours), limit: median(limits) };
}

export async function run(): Promise<Record<string, number | string>> {
  const { ours, limit } = await appends();
  console.log(
    `durable appends from ${callers} callers: ${Math.round(ours)}/s; SQLite's limit: ${Math.round(limit)}/s`,
  );
  const reduced = await measured("reduce", async (at) => {
    await withJournal(at, () => Promise.resolve());
    fill(join(at, "store.db"));
    const store = await openSqliteStore({ path: join(at, "store.db"), readOnly: true });
    const journal = await openJournal(store, { clock: systemClock });
    const start = performance.now();
    const { signal } = new AbortController();
    const reduction = await reduceJournal(journal, { environment: shop, after: 0, signal });
    const seconds = (performance.now() - start) / 1_000;
    const first = await lookUpMs(journal, 0);
    const last = await lookUpMs(journal, entries - 300);
    await store.close();
    return { reduction, seconds, first, last };
  });
  const { changesRead, changes } = reduced.reduction;
  console.log(`${changesRead} entries read from the table and reduced to ${changes.length} changes`);
  return {
    appendsVsLimit: Number((ours / limit).toFixed(2)),
    appendsPerSecond: Math.round(ours),
    limitPerSecond: Math.round(limit),
    entries,
    reduceSeconds: Number(reduced.seconds.toFixed(1)),
    rssMiB: Math.round(process.resourceUsage().maxRSS / 1_024),
    lookUpFirstMs: Number(reduced.first.toFixed(3)),
    lookUpLastMs: Number(reduced.last.toFixed(3)),
  };
}
