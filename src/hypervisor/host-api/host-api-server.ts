/** Serves a `DiskHost` to other processes of its machine. */
import type { DiskHost } from "#cloud/disk-host.ts";
import type { Log } from "#kernel/log.ts";
import type { LocalHandlers } from "#wire/local-api/local-api.ts";
import { serveLocalApi } from "#wire/local-api/local-api-server.ts";
import { hostMethods } from "./host-methods.ts";

/** Open calls are aborted when it is disposed of; the host itself is not. Errors: those of `serveLocalApi`. */
export function startHostApi(host: DiskHost, socketPath: string, log: Log): Promise<AsyncDisposable> {
  return serveLocalApi({ socketPath, methods: hostMethods, log, handlers: diskHandlers(host) });
}

export function diskHandlers(host: DiskHost): LocalHandlers<typeof hostMethods> {
  const done = (work: Promise<void>): Promise<null> => work.then(() => null);
  return {
    startCapture: (request, signal) => host.startCapture(request, signal),
    stopCapture: ({ volumeId }, signal) => done(host.stopCapture(volumeId, signal)),
    captures: async (_, signal) => [...(await host.captures(signal))],
    seed: ({ volumeId, uri, bytesPerSecond, replace }, signal) => {
      const speed = bytesPerSecond === undefined ? {} : { bytesPerSecond };
      return host.seed({ volumeId, uri, ...speed, ...(replace === undefined ? {} : { replace }) }, signal);
    },
    seeds: async (_, signal) => [...(await host.seeds(signal))],
    exportVolume: ({ volumeId }, signal) => host.exportVolume(volumeId, signal),
    endExport: ({ volumeId }, signal) => done(host.endExport(volumeId, signal)),
    agentAnswers: ({ serverId }, signal) => host.agentAnswers(serverId, signal),
    freeze: ({ serverId, limitMs }, signal) => host.freeze(serverId, limitMs, signal),
    thaw: ({ serverId }, signal) => host.thaw(serverId, signal),
    exec: ({ serverId, ...program }, signal) => host.exec(serverId, program, signal),
    console: ({ serverId }, signal) => host.console(serverId, signal),
    screenshot: async ({ serverId }, signal) =>
      (await host.screenshot(serverId, signal))?.toString("base64") ?? null,
  };
}
