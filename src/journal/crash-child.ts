// The process that `crash.test.ts` kills: appends from 64 callers without end and prints each acknowledgement.
import { writeSync } from "node:fs";
import { systemClock } from "#kernel/clock.ts";
import { commandId, environmentId, resourceId } from "#kernel/ids.ts";
import { openSqliteStore } from "#store/open-sqlite-store.ts";
import { openJournal } from "./open-journal.ts";

const [path = "", round = ""] = process.argv.slice(2);
const environment = environmentId("shop");
// As the engine opens it.
const store = await openSqliteStore({ path, serving: true });
const journal = await openJournal(store, { clock: systemClock });

/** Out of this process before the call returns. Threads make the pipe one that does not block: it may be full for a moment. */
function say(line: string): void {
  for (let rest = Buffer.from(`${line}\n`); rest.length > 0;) {
    try {
      rest = rest.subarray(writeSync(1, rest));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EAGAIN") throw error;
    }
  }
}

let made = 0;

async function caller(): Promise<never> {
  for (let n = 0; ; n += 1) {
    // As the gateway's, each is greater than the one before.
    const id = commandId(`${round}-${(made += 1).toString().padStart(9, "0")}`);
    const recorded = await journal.recordIntent({
      id,
      environment,
      service: "ec2",
      operation: "RunInstances",
      input: { id, padding: "x".repeat(300) },
      token: null,
      principal: "ops",
      epoch: 1,
      at: n,
    });
    say(`intent ${id} ${recorded.seq}`);
    const outcome = {
      result: "applied",
      status: 200,
      errorCode: null,
      changes: [{ type: "delete", kind: "server", id: resourceId(`i-${id}`) }],
      gaps: [],
      resolvedLater: false,
      at: n,
    } as const;
    const { position } = await journal.recordOutcome(environment, id, outcome, recorded);
    say(`outcome ${id} ${position}`);
  }
}

await Promise.all(Array.from({ length: 64 }, caller));
