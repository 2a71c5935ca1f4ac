// A thread that serves an export whose opening is a bug; it says at which port of the loopback address.
import { parentPort } from "node:worker_threads";
import { systemClock } from "#kernel/clock.ts";
import { InvariantViolation } from "#kernel/invariant.ts";
import { silentLog } from "#kernel/log.ts";
import { startNbdServer } from "./nbd-server.ts";

const { address } = await startNbdServer({
  listen: { kind: "tcp", host: "127.0.0.1", port: 0 },
  unauthenticated: "write-on-loopback",
  provider: {
    listExports: () => Promise.resolve([]),
    openExport: () => Promise.reject(new InvariantViolation("a bug in opening an export")),
  },
  clock: systemClock,
  log: silentLog,
});
// oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread, not a window
parentPort?.postMessage(address);
