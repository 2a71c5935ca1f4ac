// The host that the takeover's tests play with keeps the contract of the real one.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { diskHostConformance } from "#cloud/disk-host.conformance.ts";
import { systemClock } from "#kernel/clock.ts";
import { silentLog } from "#kernel/log.ts";
import { singleExport } from "#nbd/export-provider.ts";
import { MemoryDevice } from "#nbd/memory-device.ts";
import { startNbdServer } from "#nbd/nbd-server.ts";
import { formatNbdUri } from "#wire/nbd/nbd-uri.ts";
import { connect, HostUnderTest, sizeBytes } from "./disks-under-test.ts";

diskHostConformance("host under test", async () => {
  const folder = mkdtempSync(join(tmpdir(), "us-host-"));
  const host = new HostUnderTest(folder, "east");
  const servers = new AsyncDisposableStack();
  let made = 0;
  return {
    host,
    open: connect,
    volume: () => Promise.resolve(`vol-${(made += 1)}`),
    serve: async (content) => {
      const path = join(folder, `source-${(made += 1)}.sock`);
      const device = new MemoryDevice({ sizeBytes });
      await device.write(0, content);
      servers.use(
        await startNbdServer({
          listen: { kind: "unix", path },
          provider: singleExport("", device),
          clock: systemClock,
          log: silentLog,
        }),
      );
      return formatNbdUri({ address: { kind: "unix", path }, exportName: "", tls: false });
    },
    [Symbol.asyncDispose]: async () => {
      await host[Symbol.asyncDispose]();
      await servers.disposeAsync();
      rmSync(folder, { recursive: true });
    },
  };
});
