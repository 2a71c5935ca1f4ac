/** The desk for other processes of this machine, on a Unix socket beside its NBD server's. */
import { join } from "node:path";
import type { Log } from "#kernel/log.ts";
import type { VaultDesk } from "#recovery/vault-desk.ts";
import { LocalApiClient } from "#wire/local-api/local-api-client.ts";
import { serveLocalApi } from "#wire/local-api/local-api-server.ts";
import { deskMethods } from "./desk-methods.ts";

export function deskSocketIn(folder: string): string {
  return join(folder, "desk.sock");
}

/** Errors: `state.conflict` when another process serves the folder. The desk stays the caller's. */
export function serveDesk(desk: VaultDesk, folder: string, log: Log): Promise<AsyncDisposable> {
  const done = (work: Promise<void>): Promise<null> => work.then(() => null);
  return serveLocalApi({
    socketPath: deskSocketIn(folder),
    methods: deskMethods,
    log,
    handlers: {
      protect: ({ group, ...volume }, signal) => desk.protect(group, volume, signal),
      release: ({ group, volume }, signal) => done(desk.release(group, volume, signal)),
      fence: ({ group, epoch }, signal) => done(desk.fence(group, epoch, signal)),
      markWhole: ({ group, volume, session }, signal) => done(desk.markWhole(group, volume, session, signal)),
      takeImage: ({ group, ...taken }, signal) => desk.takeImage(group, taken, signal),
      completeImage: ({ group, ...taken }, signal) => done(desk.completeImage(group, taken, signal)),
      volumes: async ({ group }, signal) => [...(await desk.volumes(group, signal))],
      status: async ({ group }, signal) => {
        const status = await desk.status(group, signal);
        return status === undefined ? null : { ...status, volumes: [...status.volumes] };
      },
      moment: ({ group, atMs }, signal) => desk.moment(group, atMs, signal),
      serve: ({ group, volume, moment }, signal) => desk.serve(group, volume, moment, signal),
      pin: ({ group, volume, moment, taker }, signal) => desk.pin(group, volume, moment, taker, signal),
      unpin: ({ group, ...pin }, signal) => done(desk.unpin(group, pin, signal)),
      pins: async ({ group }, signal) => [...(await desk.pins(group, signal))],
      keepPoint: ({ group, point }, signal) => done(desk.keepPoint(group, point, signal)),
      keepVerdict: ({ group, point, verdict }, signal) =>
        done(desk.keepVerdict(group, point, verdict, signal)),
      keptPoints: async ({ group }, signal) => [...(await desk.keptPoints(group, signal))],
      keepEvidence: ({ group, point, evidence }, signal) =>
        done(desk.keepEvidence(group, point, evidence, signal)),
      keptEvidence: ({ group, id }, signal) => desk.keptEvidence(group, id, signal),
      keptConfiguration: ({ group, id }, signal) => desk.keptConfiguration(group, id, signal),
    },
  });
}

/** The desk that the vault's process serves from the folder. Errors of each call: also `api.unreachable`. */
export function connectDesk(folder: string): VaultDesk {
  const client = new LocalApiClient({
    place: { socketPath: deskSocketIn(folder) },
    methods: deskMethods,
    unreachable: "api.unreachable",
    peer: `the vault's process ("understudy vault serve", ${folder})`,
  });
  return {
    protect: (group, volume, signal) => client.call("protect", { group, ...volume }, signal),
    release: async (group, volume, signal) => void (await client.call("release", { group, volume }, signal)),
    fence: async (group, epoch, signal) => void (await client.call("fence", { group, epoch }, signal)),
    markWhole: async (group, volume, session, signal) =>
      void (await client.call("markWhole", { group, volume, session }, signal)),
    takeImage: (group, taken, signal) => client.call("takeImage", { group, ...taken }, signal),
    completeImage: async (group, taken, signal) =>
      void (await client.call("completeImage", { group, ...taken }, signal)),
    volumes: (group, signal) => client.call("volumes", { group }, signal),
    status: async (group, signal) => (await client.call("status", { group }, signal)) ?? undefined,
    moment: (group, atMs, signal) => client.call("moment", { group, atMs }, signal),
    serve: (group, volume, moment, signal) => client.call("serve", { group, volume, moment }, signal),
    pin: (group, volume, moment, { site, volumeId }, signal) =>
      client.call("pin", { group, volume, moment, taker: { site, volumeId } }, signal),
    unpin: async (group, { volume, sequence, taker: { site, volumeId } }, signal) =>
      void (await client.call("unpin", { group, volume, sequence, taker: { site, volumeId } }, signal)),
    pins: (group, signal) => client.call("pins", { group }, signal),
    keepPoint: async (group, point, signal) =>
      void (await client.call("keepPoint", { group, point }, signal)),
    keepVerdict: async (group, { id, at }, verdict, signal) =>
      void (await client.call("keepVerdict", { group, point: { id, at }, verdict }, signal)),
    keptPoints: (group, signal) => client.call("keptPoints", { group }, signal),
    keepEvidence: async (group, { id, at }, evidence, signal) =>
      void (await client.call("keepEvidence", { group, point: { id, at }, evidence }, signal)),
    keptEvidence: (group, id, signal) => client.call("keptEvidence", { group, id }, signal),
    keptConfiguration: (group, id, signal) => client.call("keptConfiguration", { group, id }, signal),
    [Symbol.asyncDispose]: () => client[Symbol.asyncDispose](),
  };
}
