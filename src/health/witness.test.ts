import assert from "node:assert/strict";
import { once } from "node:events";
import { type AddressInfo, createServer } from "node:net";
import { test } from "node:test";
import { systemClock } from "#kernel/clock.ts";
import { silentLog } from "#kernel/log.ts";
import type { Notice } from "#model/notice.ts";
import { runWitness } from "#health/witness.ts";

test("tells every code of its probe at each look, and goes on when a report is not taken", async () => {
  const server = createServer((socket) => socket.end());
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const stop = new AbortController();
  const taken: (readonly Notice[])[] = [];
  let reports = 0;
  const warned: string[] = [];
  const log = {
    ...silentLog,
    warn: (_: object, message: string) => warned.push(message),
    info: (_: object, message: string) => warned.push(message),
  };
  const over = runWitness(
    {
      environment: "shop",
      name: "north",
      probes: [{ name: "port", everyMs: 5, timeoutMs: 500, check: { type: "tcp", host: "127.0.0.1", port } }],
      report: (notices) => {
        reports += 1;
        if (reports === 2 || reports === 3) return Promise.reject(new Error("the API is away"));
        taken.push(notices);
        // What it looks at goes away after the first good look that was taken again.
        if (taken.length === 2) server.close();
        if (notices.some(({ raised }) => raised)) stop.abort(new Error("seen enough"));
        return Promise.resolve();
      },
      clock: systemClock,
      log,
    },
    stop.signal,
  );
  await over;
  assert.deepEqual(
    taken[0]?.map(({ environment, witness, probe, code, raised }) => [
      environment,
      witness,
      probe,
      code,
      raised,
    ]),
    [
      ["shop", "north", "port", "application.unresponsive", false],
      ["shop", "north", "port", "application.failing", false],
    ],
  );
  const last = taken.at(-1);
  assert.deepEqual(
    last?.map(({ code, raised }) => [code, raised]),
    [
      ["application.unresponsive", true],
      ["application.failing", false],
    ],
  );
  assert.match(last?.[0]?.detail ?? "", /ECONNREFUSED/);
  assert.deepEqual(
    warned,
    ["a report was not taken", "reports are taken again"],
    "told once, not at each look",
  );
});
