// The process that `crash.test.ts` kills: appends from 64 callers without end and prints each acknowledgement.
import { writeSync } from "node:fs";
import { systemClock } from "#kernel/clock.ts";
import { commandId, environmentId, resourceId } from "#kernel/ids.ts";
import { openSqliteStore } from "#store/open-sqlite-store.ts";
import { openJournal } from "./open-journal.ts";

const [path = "", round = ""] = process.argv.slice(2);
const environment = environmentId("shop");
const store = await openSqliteStore({ path });
const journal = await openJournal(store, { clock: systemClock });

async function caller(name: string): Promise<never> {
  for (let n = 0; ; n += 1) {
    const id = commandId(`${round}-${name}-${n}`);
    const { seq } = await journal.recordIntent({
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
    writeSync(1, `intent ${id} ${seq}\n`);
    const { position } = await journal.recordOutcome(environment, id, {
      result: "applied",
      status: 200,
      errorCode: null,
      changes: [{ type: "delete", kind: "server", id: resourceId(`i-${id}`) }],
      gaps: [],
      resolvedLater: false,
      at: n,
    });
    writeSync(1, `outcome ${id} ${position}\n`);
  }
}

await Promise.all(Array.from({ length: 64 }, (_, index) => caller(`c${index}`)));
