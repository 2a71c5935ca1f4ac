// The server that is measured, in a process of its own: `serve-file.ts SOCKET FILE`. Says `ready` and serves until it is killed.
import { systemClock } from "#kernel/clock.ts";
import { silentLog } from "#kernel/log.ts";
import { singleExport } from "#nbd/export-provider.ts";
import { openFileDevice } from "#nbd/file-device.ts";
import { startNbdServer } from "#nbd/nbd-server.ts";

const [socket, file] = process.argv.slice(2);
if (socket === undefined || file === undefined) throw new Error("usage: serve-file.ts SOCKET FILE");
const device = await openFileDevice({ path: file, writable: true });
await startNbdServer({
  listen: { kind: "unix", path: socket },
  provider: singleExport("", device),
  clock: systemClock,
  log: silentLog,
});
process.stdout.write("ready\n");
