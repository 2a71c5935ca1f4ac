/** The write log's points in a vault. */
import { OperationalError } from "#kernel/errors.ts";
import type { Vault } from "#vault/open-vault.ts";
import type { PointId, PointManifest } from "#vault/point-manifest.ts";
import type { CommittedPoint, PointStore } from "./point-store.ts";

const attribute = { group: "log.group", whole: "log.whole" } as const;

/** Undefined for points that no log of the group made. */
function committedPoint(manifest: PointManifest, group: string): CommittedPoint | undefined {
  const { id, volumeId, sequence, timeMs, sizeBytes, consistency, attributes } = manifest;
  if (sequence === undefined || attributes[attribute.group] !== group) return undefined;
  const whole = attributes[attribute.whole] === "yes";
  return { id, group, volumeId, sequence, timeMs, sizeBytes, whole, consistency };
}

/** Manifests are read once and remembered: they never change. */
export function vaultPoints(vault: Vault): PointStore {
  const known = new Map<string, PointManifest>();
  const manifest = async (id: PointId, signal: AbortSignal | undefined): Promise<PointManifest> => {
    const facts = known.get(id) ?? (await vault.pointFacts(id, signal));
    known.set(id, facts);
    return facts;
  };
  const isPoint = (point: CommittedPoint | undefined): point is CommittedPoint => point !== undefined;
  return {
    list: async (group, volumeId, signal) => {
      const points: (CommittedPoint | undefined)[] = [];
      for (const { id } of await vault.listPoints(volumeId, signal))
        points.push(committedPoint(await manifest(id, signal), group));
      return points.filter(isPoint).sort((a, b) => a.sequence - b.sequence);
    },
    open: (point, signal) => vault.openPoint(point.id as PointId, signal === undefined ? {} : { signal }),
    write: async (point, signal) => {
      const made = await vault.writePoint({
        volumeId: point.volumeId,
        sizeBytes: point.sizeBytes,
        source: point.source,
        timeMs: point.timeMs,
        consistency: point.consistency,
        sequence: point.sequence,
        attributes: { [attribute.group]: point.group, [attribute.whole]: point.whole ? "yes" : "no" },
        ...(point.base === undefined ? {} : { base: point.base.id as PointId, changed: point.changed }),
        ...(signal === undefined ? {} : { signal }),
      });
      known.set(made.id, made);
      const committed = committedPoint(made, point.group);
      if (committed === undefined)
        throw new OperationalError("vault.damaged", `${made.id} is not the point that was written`);
      return committed;
    },
  };
}
