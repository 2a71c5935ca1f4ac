/** Moves the content of disks between the vault and the sites' hosts. */
import type { DiskHost } from "#cloud/disk-host.ts";
import type { Clock } from "#kernel/clock.ts";
import { isOperational, OperationalError, publicMessage } from "#kernel/errors.ts";
import type { ResourceId } from "#kernel/ids.ts";
import type { Log } from "#kernel/log.ts";
import type { BlockDevice, BlockReader } from "#model/block-device.ts";
import { recoveredVolumes } from "#model/recovered-volumes.ts";
import type { Tags } from "#model/resource.ts";
import type {
  DiskContext,
  DiskMoment,
  DiskMover,
  MovedDisk,
  RestoreReport,
  Settled,
} from "#recovery/disk-mover.ts";
import { contentOf, type KeptContent, writeContent } from "#recovery/kept-contents.ts";
import { lineageOf } from "#recovery/kept-volumes.ts";
import { restoreInPlace } from "#recovery/restore-in-place.ts";
import { settleCaptures } from "#recovery/settle-captures.ts";
import type { SnapshotProtection } from "#recovery/snapshots/protect-by-snapshots.ts";
import type { VaultDesk } from "#recovery/vault-desk.ts";
import type { Store } from "#store/contract.ts";

export interface DiskMoverPorts {
  readonly context: DiskContext;
  /** Which volumes are kept. */
  readonly select: Tags;
  readonly desk: VaultDesk;
  /** Undefined: no host agent of ours runs the site's machines. */
  readonly hostOf: (site: string) => DiskHost | undefined;
  /** Opens what a URI leads to. */
  readonly openDisk: (uri: string, signal: AbortSignal) => Promise<BlockDevice>;
  /** What keeps the disks of a site without a host agent. Undefined: nothing. */
  readonly snapshots?: Pick<SnapshotProtection, "covers" | "settle">;
  readonly store: Store;
  readonly clock: Clock;
  readonly log: Log;
}

const gibibyte = 1024 ** 3;

export function createDiskMover(ports: DiskMoverPorts): DiskMover {
  const { context, desk, store, clock } = ports;
  const { environment } = context;

  const hostOf = (site: string): DiskHost => {
    const host = ports.hostOf(site);
    if (host !== undefined) return host;
    throw new OperationalError(
      "config.invalid",
      `site "${site}" has no host agent, so that no disk can be given a content there: add its \`host\` to understudy.yaml`,
    );
  };

  /** Ids of the kept volumes where they are served from. */
  const keptIds = (): ReadonlySet<ResourceId> =>
    new Set(recoveredVolumes(context.state(), ports.select).map(({ id }) => id));

  async function served(
    { sourceId }: MovedDisk,
    moment: DiskMoment,
    signal: AbortSignal,
  ): Promise<{ readonly lineage: string; readonly uri: string; readonly sizeBytes: number }> {
    const lineage = await lineageOf(store, environment, context.servingSite(), sourceId);
    return { lineage, ...(await desk.serve(environment, lineage, moment, signal)) };
  }

  /** As `served`, for a disk that goes on reading there: kept until it has all of it (`PinFollower`). */
  async function pinned(
    site: string,
    { sourceId, targetId }: MovedDisk,
    moment: DiskMoment,
    signal: AbortSignal,
  ): Promise<{ readonly lineage: string; readonly uri: string; readonly unpin: () => Promise<void> }> {
    const lineage = await lineageOf(store, environment, context.servingSite(), sourceId);
    const taker = { site, volumeId: targetId };
    const { uri } = await desk.pin(environment, lineage, moment, taker, signal);
    const pin = { volume: lineage, sequence: moment.sequence, taker };
    return { lineage, uri, unpin: () => desk.unpin(environment, pin, signal) };
  }

  /** What a disk there is from now on, and under which name the vault knows it. */
  const remember = (
    site: string,
    volumeId: ResourceId,
    lineage: string,
    content: KeptContent,
  ): Promise<unknown> =>
    store.commit([writeContent(store, { environment, site, volumeId, lineage, content, at: clock.now() })]);

  async function restore(
    site: string,
    disk: MovedDisk,
    moment: DiskMoment,
    signal: AbortSignal,
  ): Promise<RestoreReport> {
    const host = hostOf(site);
    const { targetId } = disk;
    const { lineage, uri } = await served(disk, moment, signal);
    // Before anything is held up for it: the content can be read.
    await using source: BlockReader = await ports.openDisk(uri, signal);
    await host.stopCapture(targetId, signal);
    const exported = await host.exportVolume(targetId, signal);
    let begun = (await contentOf(store, { environment, site, volumeId: targetId })) === "half";
    let report: RestoreReport;
    try {
      await using target = await ports.openDisk(exported.uri, signal);
      await remember(site, targetId, lineage, "half");
      begun = true;
      report = await restoreInPlace(source, target, { signal });
    } catch (error) {
      // As long as it is exported, no machine starts with it: part old and part new, it would be destroyed by that.
      if (!begun) await host.endExport(targetId, signal);
      throw error;
    }
    await host.endExport(targetId, signal);
    await remember(site, targetId, lineage, { sequence: moment.sequence });
    ports.log.info({ site, volume: targetId, ...report }, "a disk was restored in place");
    return report;
  }

  /** A site whose cloud does not answer has nothing newer to give. */
  async function settleBySnapshot(
    snapshots: Pick<SnapshotProtection, "settle">,
    wanted: readonly ResourceId[],
    signal: AbortSignal,
  ): Promise<Settled> {
    try {
      await snapshots.settle(signal);
      return { behind: [], silence: null };
    } catch (error) {
      signal.throwIfAborted();
      if (!isOperational(error)) throw error;
      const problem = publicMessage(error);
      return { behind: wanted.map((volumeId) => ({ volumeId, problem })), silence: problem };
    }
  }

  async function settle(volumes: ReadonlySet<ResourceId> | null, signal: AbortSignal): Promise<Settled> {
    const site = context.servingSite();
    const wanted = [...keptIds()].filter((id) => volumes?.has(id) ?? true);
    if (ports.snapshots?.covers(site) === true) return settleBySnapshot(ports.snapshots, wanted, signal);
    const host = ports.hostOf(site);
    if (host === undefined) {
      const problem = `site "${site}" has no host agent`;
      return { behind: wanted.map((volumeId) => ({ volumeId, problem })), silence: problem };
    }
    const disks = await Promise.all(
      wanted.map(async (volumeId) => ({
        volumeId,
        lineage: await lineageOf(store, environment, site, volumeId),
      })),
    );
    return settleCaptures({ environment, desk, host, clock }, disks, signal);
  }

  return {
    moment: (atMs, signal) => desk.moment(environment, atMs, signal),

    settle,

    fence: (epoch, signal) => desk.fence(environment, epoch, signal),

    async seed(site, disk, moment, signal) {
      const { lineage, uri, unpin } = await pinned(site, disk, moment, signal);
      try {
        await hostOf(site).seed({ volumeId: disk.targetId, uri }, signal);
      } catch (error) {
        // A disk that was written to before keeps what it has in common with the moment.
        if (!isOperational(error, "machine.refused")) throw error;
        await restore(site, disk, moment, signal);
        await unpin();
        return;
      }
      await remember(site, disk.targetId, lineage, { sequence: moment.sequence });
    },

    given: (site, volumeId) => contentOf(store, { environment, site, volumeId }),

    async check(site, disk, moment, signal) {
      const host = hostOf(site);
      const { uri, sizeBytes } = await served(disk, moment, signal);
      const volume = context.state().get("volume", disk.sourceId);
      if (volume?.kind === "volume" && sizeBytes > volume.spec.sizeGiB * gibibyte) {
        throw new OperationalError(
          "input.invalid",
          `volume ${disk.sourceId} had ${sizeBytes} bytes then, and has room for fewer now: make it larger first`,
        );
      }
      await using source: BlockReader = await ports.openDisk(uri, signal);
      await source.read(0, Math.min(4096, source.sizeBytes), signal);
      await host.captures(signal);
    },

    restore,

    async accept(site, volumeId, signal) {
      if ((await contentOf(store, { environment, site, volumeId })) !== "half") return;
      await hostOf(site).endExport(volumeId, signal);
      await remember(site, volumeId, await lineageOf(store, environment, site, volumeId), null);
      ports.log.warn({ site, volume: volumeId }, "a disk that is part old and part new is taken as it is");
    },

    async replace(site, disk, { moment, token }, signal) {
      const host = hostOf(site);
      const { lineage, uri } = await pinned(site, disk, moment, signal);
      await host.stopCapture(disk.targetId, signal);
      // A restore that broke off keeps machines away from it; what it wrote is given up with the rest.
      if ((await contentOf(store, { environment, site, volumeId: disk.targetId })) === "half") {
        await host.endExport(disk.targetId, signal);
      }
      await host.seed({ volumeId: disk.targetId, uri, replace: token }, signal);
      await remember(site, disk.targetId, lineage, { sequence: moment.sequence });
    },
  };
}
