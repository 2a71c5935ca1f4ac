/** A host agent's disks over its Unix socket, as a `DiskHost`: what the agent refuses is thrown here as it was thrown there. */
import type { DiskHost } from "#cloud/disk-host.ts";
import { type ApiPlace, LocalApiClient, nameOfPlace } from "#wire/local-api/local-api-client.ts";
import { hostMethods } from "./host-methods.ts";

/** An agent that was restarted is found again. Errors, beside the agent's own: `machine.failing` when no agent answers. */
export function openHostClient(place: ApiPlace): DiskHost {
  const client = new LocalApiClient({
    place,
    methods: hostMethods,
    peer: `the host agent at ${nameOfPlace(place)}`,
    unreachable: "machine.failing",
  });
  return {
    startCapture: (request, signal) => client.call("startCapture", request, signal),
    stopCapture: async (volumeId, signal) => void (await client.call("stopCapture", { volumeId }, signal)),
    captures: (signal) => client.call("captures", {}, signal),
    seed: (request, signal) => client.call("seed", request, signal),
    seeds: (signal) => client.call("seeds", {}, signal),
    exportVolume: (volumeId, signal) => client.call("exportVolume", { volumeId }, signal),
    endExport: async (volumeId, signal) => void (await client.call("endExport", { volumeId }, signal)),
    agentAnswers: (serverId, signal) => client.call("agentAnswers", { serverId }, signal),
    freeze: (serverId, limitMs, signal) => client.call("freeze", { serverId, limitMs }, signal),
    thaw: (serverId, signal) => client.call("thaw", { serverId }, signal),
    exec: (serverId, { path, args, limitMs }, signal) =>
      client.call("exec", { serverId, path, args: [...args], limitMs }, signal),
    console: (serverId, signal) => client.call("console", { serverId }, signal),
    screenshot: async (serverId, signal) => {
      const png = await client.call("screenshot", { serverId }, signal);
      return png === null ? null : Buffer.from(png, "base64");
    },
    [Symbol.asyncDispose]: () => client[Symbol.asyncDispose](),
  };
}
