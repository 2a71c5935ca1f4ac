/** Moves the content of disks between the vault and the sites' hosts. */
import type { DiskHost } from "#cloud/disk-host.ts";
import type { Clock } from "#kernel/clock.ts";
import { deadlineAfter } from "#kernel/clock.ts";
import { isOperational, OperationalError } from "#kernel/errors.ts";
import type { ResourceId } from "#kernel/ids.ts";
import type { Log } from "#kernel/log.ts";
import type { BlockDevice, BlockReader } from "#model/block-device.ts";
import { recoveredVolumes } from "#model/recovered-volumes.ts";
import type { Tags } from "#model/resource.ts";
import { confirmCaptures } from "#recovery/confirm-captures.ts";
import type { DiskContext, DiskMoment, DiskMover, MovedDisk, RestoreReport } from "#recovery/disk-mover.ts";
import { lineageOf, writeLineage } from "#recovery/kept-volumes.ts";
import { restoreInPlace } from "#recovery/restore-in-place.ts";
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
  readonly store: Store;
  readonly clock: Clock;
  readonly log: Log;
}

/** What guests wrote last takes a moment to be captured; more than this means that capture does not work, in milliseconds. */
const settleWithinMs = 20_000;
const pauseMs = 50;

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
  ): Promise<{ readonly lineage: string; readonly uri: string }> {
    const lineage = await lineageOf(store, environment, context.servingSite(), sourceId);
    const { uri } = await desk.serve(environment, lineage, moment, signal);
    return { lineage, uri };
  }

  const remember = (site: string, volumeId: ResourceId, lineage: string): Promise<unknown> =>
    store.commit([writeLineage(store, { environment, site, volumeId, lineage, since: clock.now() })]);

  async function restore(
    site: string,
    disk: MovedDisk,
    moment: DiskMoment,
    signal: AbortSignal,
  ): Promise<RestoreReport> {
    const host = hostOf(site);
    const { lineage, uri } = await served(disk, moment, signal);
    await host.stopCapture(disk.targetId, signal);
    const exported = await host.exportVolume(disk.targetId, signal);
    try {
      await using source: BlockReader = await ports.openDisk(uri, signal);
      await using target = await ports.openDisk(exported.uri, signal);
      const report = await restoreInPlace(source, target, { signal });
      await remember(site, disk.targetId, lineage);
      ports.log.info({ site, volume: disk.targetId, ...report }, "a disk was restored in place");
      return report;
    } finally {
      await host.endExport(disk.targetId, signal);
    }
  }

  return {
    moment: (atMs, signal) => desk.moment(environment, atMs, signal),

    async settle(signal) {
      const host = hostOf(context.servingSite());
      const patience = deadlineAfter(clock, settleWithinMs);
      const either = AbortSignal.any([signal, patience.signal]);
      try {
        for (;;) {
          const kept = await desk.volumes(environment, either);
          const captures = await host.captures(either);
          const seen = await Promise.all(
            Array.from(keptIds(), async (volumeId) => ({
              lineage: await lineageOf(store, environment, context.servingSite(), volumeId),
              capture: captures.find((one) => one.volumeId === volumeId) ?? null,
            })),
          );
          if (await confirmCaptures(desk, environment, kept, seen, either)) return;
          await clock.sleep(pauseMs, either);
        }
      } catch (error) {
        signal.throwIfAborted();
        if (!patience.signal.aborted) throw error;
        throw new OperationalError(
          "cloud.timeout",
          `what was written last at "${context.servingSite()}" was not captured within ${settleWithinMs / 1000} s: see "understudy point list ${environment}"`,
        );
      } finally {
        patience.cancel();
      }
    },

    fence: (epoch, signal) => desk.fence(environment, epoch, signal),

    async seed(site, disk, moment, signal) {
      const { lineage, uri } = await served(disk, moment, signal);
      try {
        await hostOf(site).seed({ volumeId: disk.targetId, uri }, signal);
      } catch (error) {
        // A disk that was written to before keeps what it has in common with the moment.
        if (!isOperational(error, "machine.refused")) throw error;
        await restore(site, disk, moment, signal);
        return;
      }
      await remember(site, disk.targetId, lineage);
    },

    restore,

    async replace(site, disk, { moment, token }, signal) {
      const host = hostOf(site);
      const { lineage, uri } = await served(disk, moment, signal);
      await host.stopCapture(disk.targetId, signal);
      await host.seed({ volumeId: disk.targetId, uri, replace: token }, signal);
      await remember(site, disk.targetId, lineage);
    },
  };
}
