/** A host agent for a control plane on another machine: its API over HTTPS, and volumes that are written from outside by NBD over TLS. */
import type { RemoteAgent } from "#config/host-config.ts";
import type { HostSite } from "#hypervisor/site/host-site.ts";
import { siteHandlers, siteMethodsWithDisks } from "#hypervisor/site/serve-site.ts";
import type { Clock } from "#kernel/clock.ts";
import type { Log } from "#kernel/log.ts";
import type { Random } from "#kernel/random.ts";
import { nbdTlsOf, readCertificates } from "#main/host-place.ts";
import type { ExportProvider } from "#nbd/export-provider.ts";
import { openNbdClient } from "#nbd/nbd-client.ts";
import { startNbdServer } from "#nbd/nbd-server.ts";
import { serveRemoteApi } from "#wire/local-api/local-api-server.ts";
import { formatNbdUri, parseNbdUri } from "#wire/nbd/nbd-uri.ts";

export interface RemoteAgentPorts {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

/** Errors: `config.*` for certificates, `port.*`. The site stays the caller's. */
export async function serveRemotely(
  site: HostSite,
  remote: RemoteAgent,
  ports: RemoteAgentPorts,
): Promise<AsyncDisposable & { readonly url: string }> {
  const { listen, disks: disksAt, certificates, callers } = remote;
  // QEMU reads these itself, later.
  readCertificates(certificates, "client");
  await using opened = new AsyncDisposableStack();
  const disks = opened.use(
    await startNbdServer({
      listen: { kind: "tcp", ...disksAt },
      provider: exportsOf(site, ports),
      tls: nbdTlsOf(remote),
      clock: ports.clock,
      log: ports.log,
      maxConnections: 256,
    }),
  );
  const handlers = siteHandlers(site);
  const api = opened.use(
    await serveRemoteApi({
      listen,
      certificates: readCertificates(certificates, "server"),
      callers,
      methods: siteMethodsWithDisks,
      log: ports.log,
      handlers: {
        ...handlers,
        exportVolume: async (input, signal) => {
          await handlers.exportVolume(input, signal);
          const { address } = disks;
          const place = address.kind === "tcp" ? address : { ...disksAt, kind: "tcp" as const };
          return { uri: formatNbdUri({ address: place, exportName: input.volumeId, tls: true }) };
        },
      },
    }),
  );
  const parts = opened.move();
  return {
    url: `https://${listen.host.includes(":") ? `[${listen.host}]` : listen.host}:${api.port}`,
    [Symbol.asyncDispose]: () => parts.disposeAsync(),
  };
}

/** Those volumes alone that the host was asked to export, and has not been asked to end since: also by an agent before this one. */
function exportsOf(site: HostSite, ports: RemoteAgentPorts): ExportProvider {
  return {
    listExports: async () => [],
    openExport: async (name, { signal }) => {
      if (!site.disks.isExported(name)) return undefined;
      const { uri } = await site.disks.exportVolume(name, signal);
      const { address, exportName } = parseNbdUri(uri);
      // A connection that is lost is told of: who wrote knows better than we do what to write again.
      const device = await openNbdClient({ ...ports, address, exportName, reconnectMs: 0 }, signal);
      return {
        writable: true,
        device,
        multiConn: device.multiConn,
        [Symbol.asyncDispose]: () => device[Symbol.asyncDispose](),
      };
    },
  };
}
