/** What the configuration says of disks, made into what moves and protects them. */
import type { DiskHost } from "#cloud/disk-host.ts";
import type { SnapshotSource } from "#cloud/snapshot-source.ts";
import type { Config } from "#config/config-schema.ts";
import type { Clock } from "#kernel/clock.ts";
import { OperationalError } from "#kernel/errors.ts";
import { environmentId } from "#kernel/ids.ts";
import { invariant } from "#kernel/invariant.ts";
import type { Log } from "#kernel/log.ts";
import type { Random } from "#kernel/random.ts";
import type { BlockDevice } from "#model/block-device.ts";
import type { Evidence } from "#model/evidence.ts";
import { hostClientOf } from "#main/host-place.ts";
import { loadClientTls } from "#nbd/load-client-tls.ts";
import { openNbdClient } from "#nbd/nbd-client.ts";
import { createDiskMover } from "#recovery/create-disk-mover.ts";
import { deskWithin, hostWithin } from "#recovery/answer-within.ts";
import { connectDesk } from "#recovery/desk/serve-desk.ts";
import type { DiskContext, DiskMover } from "#recovery/disk-mover.ts";
import { PinFollower } from "#recovery/follow-pins.ts";
import { endProtection } from "#recovery/end-protection.ts";
import { DiskProtection, type ProtectedDisk } from "#recovery/protect-disks.ts";
import { type RecoveryPoint, RecoveryPoints } from "#recovery/recovery-points.ts";
import { SnapshotProtection } from "#recovery/snapshots/protect-by-snapshots.ts";
import type { VaultDesk } from "#recovery/vault-desk.ts";
import type { Store } from "#store/contract.ts";
import type { PointsView } from "#takeover/control.ts";
import type { DiskViews } from "#takeover/open-control-plane.ts";
import { parseNbdUri } from "#wire/nbd/nbd-uri.ts";

export interface DiskPorts {
  readonly store: Store;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** Undefined: the site's cloud gives out no content of volumes. */
  readonly snapshotsOf: (site: string) => SnapshotSource | undefined;
}

export class DiskRooms implements DiskViews, AsyncDisposable {
  readonly #config: Config;
  readonly #ports: DiskPorts;
  readonly #desk: VaultDesk | undefined;
  readonly #hosts = new Map<string, DiskHost>();
  readonly #protections = new Map<string, DiskProtection>();
  readonly #snapshotProtections: SnapshotProtection[] = [];
  readonly #points = new Map<string, RecoveryPoints>();
  readonly #pins: PinFollower[] = [];
  readonly #stop = new AbortController();
  #running: Promise<unknown> = Promise.resolve();

  constructor(config: Config, ports: DiskPorts) {
    this.#config = config;
    this.#ports = ports;
    this.#desk =
      config.vault === undefined ? undefined : deskWithin(connectDesk(config.vault.data), ports.clock);
    for (const [name, site] of Object.entries(config.sites)) {
      if (site.host === undefined) continue;
      this.#hosts.set(name, hostWithin(hostClientOf(site.host, config.vault), name, ports.clock));
    }
  }

  /** Undefined: no disk of the environment is protected. */
  moverOf(id: string): ((context: DiskContext) => DiskMover) | undefined {
    const environment = this.#config.environments[id];
    const { protect } = environment ?? {};
    if (protect === undefined || environment === undefined) return undefined;
    const desk = this.#desk;
    invariant(desk !== undefined, "the configuration has a vault where disks are protected");
    return (context) => {
      const { store, clock, log } = this.#ports;
      const { active, standby } = environment;
      const sites = [active, standby];
      const snapshots = this.#snapshots(id, context, sites);
      const shared = {
        context,
        select: protect.volumes,
        desk,
        hostOf: (site: string) => this.#hosts.get(site),
        ...(snapshots === undefined ? {} : { snapshots }),
        store,
        clock,
        log: log.child({ environment: id }),
      };
      const { stallLimit: stallLimitMs, pointsEvery, snapshots: asked } = protect;
      // Points are no closer together than what they are points of.
      const pointsEveryMs = Math.max(pointsEvery, asked?.every ?? 0);
      const protection = new DiskProtection({ ...shared, sites, stallLimitMs, pointsEveryMs });
      this.#protections.set(id, protection);
      this.#pins.push(new PinFollower({ ...shared, environment: context.environment, sites }));
      const { random } = this.#ports;
      const { consistency, freezeLimit: freezeLimitMs } = protect;
      const points = { ...shared, random, everyMs: pointsEvery, consistency, freezeLimitMs };
      this.#points.set(id, new RecoveryPoints(points));
      return createDiskMover({ ...shared, openDisk: (uri, signal) => this.#openDisk(uri, signal) });
    };
  }

  /** Undefined: the environment asks for none. */
  #snapshots(id: string, context: DiskContext, sites: readonly string[]): SnapshotProtection | undefined {
    const { protect } = this.#config.environments[id] ?? {};
    const desk = this.#desk;
    if (protect?.snapshots === undefined || desk === undefined) return undefined;
    const { store, clock, random, log, snapshotsOf } = this.#ports;
    const protection = new SnapshotProtection({
      context,
      select: protect.volumes,
      desk,
      // Where a host agent captures each write, a snapshot adds nothing.
      sourceOf: (site) => (this.#hosts.has(site) ? undefined : snapshotsOf(site)),
      sites,
      openDisk: (uri, signal) => this.#openDisk(uri, signal),
      store,
      clock,
      random,
      log: log.child({ environment: id }),
      everyMs: protect.snapshots.every,
    });
    this.#snapshotProtections.push(protection);
    return protection;
  }

  hostOf(site: string): DiskHost | undefined {
    return this.#hosts.get(site);
  }

  disksOf(environment: string): readonly ProtectedDisk[] {
    return this.#protections.get(environment)?.disks ?? [];
  }

  async pointsOf(environment: string, signal: AbortSignal): Promise<PointsView> {
    const points = this.#points.get(environment);
    if (points === undefined) return { group: null, points: [] };
    return {
      group: (await this.#desk?.status(environment, signal)) ?? null,
      points: await points.list(),
    };
  }

  createPoint(
    environment: string,
    consistency: "crash" | "application",
    signal: AbortSignal,
  ): Promise<RecoveryPoint> {
    return this.#pointsOf(environment).create(consistency, signal);
  }

  evidenceOf(environment: string, id: string, signal: AbortSignal): Promise<Evidence> {
    return this.#pointsOf(environment).evidence(id, signal);
  }

  #pointsOf(environment: string): RecoveryPoints {
    const points = this.#points.get(environment);
    if (points !== undefined) return points;
    throw new OperationalError(
      "not_found",
      `no disk of "${environment}" is kept: see \`protect\` in understudy.yaml`,
    );
  }

  /** Once the environments are open. */
  start(): void {
    const { signal } = this.#stop;
    const loops = [
      ...this.#protections.values(),
      ...this.#snapshotProtections,
      ...this.#points.values(),
      ...this.#pins,
    ];
    this.#running = Promise.all([
      ...loops.map((loop) => loop.run(signal)),
      ...this.#endedProtections(signal),
    ]);
  }

  /** Of environments that keep no disks, or do so no more. */
  #endedProtections(signal: AbortSignal): readonly Promise<void>[] {
    const { store, clock, log } = this.#ports;
    const without = Object.entries(this.#config.environments).filter(
      ([, { protect }]) => protect === undefined,
    );
    return without.map(([id, { active, standby }]) => {
      const hosts = new Map([...this.#hosts].filter(([site]) => site === active || site === standby));
      return endProtection({ environment: environmentId(id), hosts, store, clock, log }, signal);
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new Error("the control plane is closing"));
    await this.#running;
    for (const host of this.#hosts.values()) await host[Symbol.asyncDispose]();
    await this.#desk?.[Symbol.asyncDispose]();
  }

  async #openDisk(uri: string, signal: AbortSignal): Promise<BlockDevice> {
    const { clock, random, log } = this.#ports;
    const parsed = parseNbdUri(uri);
    const { address, exportName } = parsed;
    const tls = await loadClientTls(parsed);
    const ports = { clock, random, log, ...(tls && { tls }) };
    // Nobody else writes to what a run restores into: a lost connection's writes can be sent again.
    return openNbdClient({ ...ports, address, exportName, repeatWrites: true }, signal);
  }
}
