/**
 * Drives servers through their transitional states: one worker per server that is in transition, whose goal is always read
 * anew from the records, so that a stop during a start is seen when the start ends. Works after changes are durable; after a
 * restart it starts again what was running, as a cloud does whose hosts rebooted.
 */
import { publicMessage } from "#kernel/errors.ts";
import type { Log } from "#kernel/log.ts";
import type { Cloud } from "./cloud.ts";
import type { Compute, ServerLaunch } from "./compute.ts";
import type { ServerRecord } from "./records.ts";
import { findServerType, finishTermination, setServerState } from "./servers.ts";

export interface LifecycleOptions {
  /** How long a start and a stop take at least, in milliseconds. */
  readonly bootMs: number;
  readonly stopMs: number;
  /** How long terminated servers stay visible, in milliseconds. */
  readonly terminatedRetentionMs: number;
}

export const defaultLifecycle: LifecycleOptions = {
  bootMs: 50,
  stopMs: 20,
  terminatedRetentionMs: 3_600_000,
};

export interface Lifecycle {
  readonly compute: Compute;
  /** Resolves when no server is in transition. */
  settled(): Promise<void>;
  /** Stops every machine, changing no record: before a reset, and at the end. */
  halt(): Promise<void>;
  /** Ends; machines that outlive this process are left as they are. */
  release(): Promise<void>;
  /** Takes up the records as they are, after `halt`. */
  resume(): void;
}

export function launchOf(cloud: Cloud, server: ServerRecord): ServerLaunch {
  const { port, address, group, keyPair } = cloud.data.tables;
  const type = findServerType(cloud, server.type);
  const ports = server.portIds.flatMap((id) => port.get(id) ?? []);
  const primary = ports[0];
  const elastic = primary === undefined ? undefined : address.by("port", primary.id)[0];
  const groupIds = new Set(ports.flatMap((each) => each.groupIds));
  const key = server.keyName === null ? undefined : keyPair.by("name", server.keyName)[0];
  return {
    id: server.id,
    name: server.name || (Object.hasOwn(server.tags, "Name") ? (server.tags["Name"] ?? "") : "") || server.id,
    address: server.hostAddress,
    privateIp: primary?.privateIp ?? null,
    publicIp: elastic?.ip ?? (server.publicAddress ? server.hostAddress : null),
    imageId: server.imageId,
    type: server.type,
    vcpus: type.vcpus,
    memoryMiB: type.memoryMiB,
    boot: server.boot,
    zone: server.zone,
    region: cloud.catalog.region,
    macs: ports.map((each) => each.mac),
    groupNames: Array.from(groupIds, (id) => group.get(id)?.name ?? id),
    keyName: server.keyName,
    publicKey: key?.publicKey ?? null,
    userData: server.userData,
    tags: server.tags,
  };
}

export function startLifecycle(
  cloud: Cloud,
  compute: Compute,
  options: LifecycleOptions,
  log: Log,
): Lifecycle {
  return new ServerLifecycle(cloud, compute, options, log);
}

class ServerLifecycle implements Lifecycle {
  readonly compute: Compute;
  readonly #cloud: Cloud;
  readonly #options: LifecycleOptions;
  readonly #log: Log;
  readonly #workers = new Map<string, Promise<void>>();
  /** The boot that each started machine is of. */
  readonly #boots = new Map<string, number>();
  #stopping = new AbortController();

  constructor(cloud: Cloud, compute: Compute, options: LifecycleOptions, log: Log) {
    this.#cloud = cloud;
    this.compute = compute;
    this.#options = options;
    this.#log = log;
    cloud.data.onDurable((changes) => {
      for (const { table, id } of changes) if (table === "server") this.#touch(id);
    });
    this.resume();
  }

  async settled(): Promise<void> {
    await this.#cloud.data.durable();
    while (this.#workers.size > 0) {
      await Promise.all(this.#workers.values());
      await this.#cloud.data.durable();
    }
  }

  async release(): Promise<void> {
    this.#stopping.abort();
    await Promise.all(this.#workers.values());
  }

  async halt(): Promise<void> {
    await this.release();
    await Promise.all(Array.from(this.#boots.keys(), (id) => this.compute.stop(id)));
    this.#boots.clear();
  }

  resume(): void {
    this.#stopping = new AbortController();
    for (const server of this.#cloud.data.tables.server.values()) this.#touch(server.id);
  }

  #touch(id: string): void {
    if (this.#stopping.signal.aborted || this.#workers.has(id)) return;
    const server = this.#cloud.data.tables.server.get(id);
    if (server !== undefined && !this.#due(server)) {
      if (server.state === "running") this.compute.refresh(launchOf(this.#cloud, server));
      return;
    }
    if (server === undefined && !this.#boots.has(id)) return;
    this.#workers.set(
      id,
      this.#work(id).then(
        () => {
          this.#workers.delete(id);
          // What changed while the last step ended has its own turn.
          const now = this.#cloud.data.tables.server.get(id);
          if (now !== undefined && this.#due(now)) this.#touch(id);
        },
        (error: unknown) => {
          // The disk refused the new state: it stays due, and the next write that succeeds brings the server here again.
          this.#workers.delete(id);
          this.#log.error(
            { server: id, error: publicMessage(error) },
            "a server's state could not be stored",
          );
        },
      ),
    );
  }

  /** Whether something is to be done for it now. */
  #due(server: ServerRecord): boolean {
    switch (server.state) {
      case "pending":
      case "stopping":
      case "shutting-down":
        return true;
      case "running":
        return this.#boots.get(server.id) !== server.boot;
      case "stopped":
      case "terminated":
      case "failed":
        return this.#boots.has(server.id);
    }
  }

  async #work(id: string): Promise<void> {
    const signal = this.#stopping.signal;
    for (;;) {
      const server = this.#cloud.data.tables.server.get(id);
      if (signal.aborted || (server !== undefined && !this.#due(server))) return;
      try {
        if (server === undefined) await this.#power(id, null);
        else await this.#step(server, signal);
      } catch (error) {
        if (signal.aborted) return;
        this.#log.error({ server: id, error: publicMessage(error) }, "a server's transition failed");
        this.#update(id, (now) =>
          setServerState(this.#cloud, now, "failed", {
            code: "Server.InternalError",
            message: publicMessage(error),
          }),
        );
      }
      await this.#cloud.data.durable();
      if (server === undefined) return;
    }
  }

  async #step(server: ServerRecord, signal: AbortSignal): Promise<void> {
    const cloud = this.#cloud;
    switch (server.state) {
      case "pending":
        await cloud.clock.sleep(this.#options.bootMs, signal);
        await this.#power(server.id, server);
        this.#update(server.id, (now) => now.state === "pending" && setServerState(cloud, now, "running"));
        return;
      case "running":
        await this.#power(server.id, server);
        return;
      case "stopping":
        await cloud.clock.sleep(this.#options.stopMs, signal);
        await this.#power(server.id, null);
        this.#update(
          server.id,
          (now) => now.state === "stopping" && setServerState(cloud, now, "stopped", now.stateReason),
        );
        return;
      case "shutting-down":
        await cloud.clock.sleep(this.#options.stopMs, signal);
        await this.#power(server.id, null);
        await this.compute.forget(server.id);
        this.#update(server.id, (now) => finishTermination(cloud, now));
        this.#prune();
        return;
      case "stopped":
      case "terminated":
      case "failed":
        await this.#power(server.id, null);
    }
  }

  /** Brings its machine to the wanted boot, or to none. */
  async #power(id: string, wanted: ServerRecord | null): Promise<void> {
    if (wanted !== null && this.#boots.get(id) === wanted.boot) return;
    // Also one that this process did not start: it may have outlived the last one.
    if (wanted === null || this.#boots.has(id)) await this.compute.stop(id);
    this.#boots.delete(id);
    if (wanted === null) return;
    await this.compute.start(launchOf(this.#cloud, wanted));
    this.#boots.set(id, wanted.boot);
  }

  #update(id: string, change: (now: ServerRecord) => unknown): void {
    this.#cloud.data.transact(() => {
      const now = this.#cloud.data.tables.server.get(id);
      if (now !== undefined) change(now);
    });
  }

  /** Terminated servers are in order of creation, not of termination: each is looked at, but only when one more ends. */
  #prune(): void {
    const before = this.#cloud.clock.now() - this.#options.terminatedRetentionMs;
    const gone = this.#cloud.data.tables.server
      .by("state", "terminated")
      .filter((each) => each.stateSince < before);
    if (gone.length === 0) return;
    this.#cloud.data.transact(() => {
      for (const server of gone) this.#cloud.data.tables.server.delete(server.id);
    });
  }
}
