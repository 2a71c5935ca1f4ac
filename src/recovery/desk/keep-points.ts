/** The points of a group in the vault: those that are kept, that which holds its last whole moment, and what is let go of. */
import type { Clock } from "#kernel/clock.ts";
import { isOperational, OperationalError } from "#kernel/errors.ts";
import type { Log } from "#kernel/log.ts";
import type { BlockReader } from "#model/block-device.ts";
import { type KeptPoint, listKeptPoints, removeKeptPoint, storeKeptPoint } from "#recovery/kept-points.ts";
import { planPointsRetention } from "#recovery/plan-points-retention.ts";
import type { Vault } from "#vault/open-vault.ts";
import type { RetentionPolicy } from "#vault/plan-retention.ts";
import type { PointId } from "#vault/point-manifest.ts";
import { openMoment } from "#vault/write-log/open-moment.ts";
import type { CommittedPoint } from "#vault/write-log/point-store.ts";
import type { WholeMoment } from "#vault/write-log/whole-moments.ts";
import type { WriteLog } from "#vault/write-log/write-log.ts";
import type { GroupRecordFile } from "./group-record.ts";

export interface PointsOptions {
  readonly group: string;
  readonly vault: Vault;
  readonly writeLog: WriteLog;
  readonly record: GroupRecordFile;
  readonly clock: Clock;
  readonly log: Log;
}

type Consistency = KeptPoint["consistency"];

export class GroupPoints {
  readonly #options: PointsOptions;
  /** One after the other: a point that was just written is not let go before it is named. */
  #turn: Promise<unknown> = Promise.resolve();

  constructor(options: PointsOptions) {
    this.#options = options;
  }

  /** Its disks first, then its document. A disk that was not whole then is left out. */
  async keep(point: KeptPoint, signal: AbortSignal): Promise<void> {
    const { group, vault } = this.#options;
    await this.#inTurn(async () => {
      const isMissing = (error: unknown): boolean => isOperational(error, "state.conflict");
      const { disks, missing } = await this.#disksAt(Object.values(point.volumes), point, isMissing, signal);
      if (Object.keys(disks).length === 0 && missing !== undefined) throw missing;
      await storeKeptPoint(vault, group, point, disks, signal);
    });
  }

  /**
   * Holds the group's last whole moment, which the log's window is about to leave behind. A disk that cannot be read as it was then
   * keeps nothing else from going on.
   */
  async holdLast({ sequence, timeMs }: WholeMoment, signal?: AbortSignal): Promise<void> {
    const { group, writeLog, record, log } = this.#options;
    if ((record.current.held?.sequence ?? 0) >= sequence) return;
    await this.#inTurn(async () => {
      const members = writeLog.volumes().map(({ id }) => id);
      // What can never be read is no reason to keep the log for ever.
      const isMissing = (error: unknown): boolean => isOperational(error) && error.retry === "never";
      const at = { sequence, consistency: "crash" } as const;
      const { disks, missing } = await this.#disksAt(members, at, isMissing, signal);
      if (Object.keys(disks).length === 0) {
        log.warn({ group, err: missing }, "the last moment at which all disks were whole could not be held");
        return;
      }
      await record.change(() => ({ held: { sequence, at: timeMs, disks } }));
      log.info(
        { group, sequence },
        "the last moment at which all disks were whole is held beyond the window",
      );
    });
  }

  /** The last moment not after the time (null: of all) that a point holds: what remains when the window has passed. */
  async heldAt(atMs: number | null, signal: AbortSignal): Promise<WholeMoment | undefined> {
    const { vault, group, record } = this.#options;
    const { points } = await listKeptPoints(vault, group, signal);
    const moments = points.map(({ sequence, at }) => ({ sequence, timeMs: at }));
    const { held } = record.current;
    if (held !== null) moments.push({ sequence: held.sequence, timeMs: held.at });
    return moments
      .filter(({ timeMs }) => atMs === null || timeMs <= atMs)
      .reduce<WholeMoment | undefined>(
        (last, one) => (last === undefined || one.sequence > last.sequence ? one : last),
        undefined,
      );
  }

  /** Out of the log; behind its window out of the point that holds exactly this record. */
  async open(volume: string, sequence: number): Promise<BlockReader> {
    const { writeLog } = this.#options;
    try {
      return await openMoment(writeLog, volume, { sequence });
    } catch (error) {
      if (!isOperational(error, "not_found")) throw error;
      const point = await this.#committedAt(volume, sequence);
      if (point === undefined) throw error;
      return writeLog.points.open(point);
    }
  }

  /**
   * Lets go of what the policy does not keep; never of what a moment of the window, a served moment, the last whole moment or a kept
   * point stands on. `foldNow` makes it known what the window stands on.
   */
  async retain(
    policy: RetentionPolicy,
    window: { readonly foldNow: () => Promise<void>; readonly needed: () => readonly CommittedPoint[] },
    signal: AbortSignal,
  ): Promise<void> {
    const { group, clock, log } = this.#options;
    await window.foldNow();
    await this.#inTurn(async () => {
      const recoveryPoints = await this.#soundPoints(signal);
      const { volumes, based } = await this.#pointsOfVolumes(signal);
      const needed = new Set([...based, ...this.#heldPoints(), ...window.needed().map(({ id }) => id)]);
      const plan = planPointsRetention({ recoveryPoints, volumes, needed, policy, nowMs: clock.now() });
      const { vault } = this.#options;
      for (const point of plan.recoveryPoints) await removeKeptPoint(vault, group, point, signal);
      const inUse = await this.#delete(plan.points, signal);
      const gone = plan.recoveryPoints.length + plan.points.length - inUse;
      if (gone > 0) log.info({ group, gone, inUse }, "points that the policy does not keep were let go");
    });
  }

  /** Resolves when nothing of it is under way. */
  async settled(): Promise<void> {
    await this.#turn;
  }

  /** A point for each that was whole at the record; `missing` says why another one has none. */
  async #disksAt(
    volumes: readonly string[],
    at: { readonly sequence: number; readonly consistency: Consistency },
    isMissing: (error: unknown) => boolean,
    signal: AbortSignal | undefined,
  ): Promise<{ readonly disks: Readonly<Record<string, string>>; readonly missing: unknown }> {
    const disks: Record<string, string> = {};
    let missing: unknown;
    for (const volume of volumes) {
      const known = this.#options.writeLog.volumes().find(({ id }) => id === volume);
      if (known === undefined || known.added > at.sequence) {
        missing ??= new OperationalError("state.conflict", `nothing of ${volume} was captured by then`);
        continue;
      }
      try {
        disks[volume] = (await this.#pointAt(volume, at, signal)).id;
      } catch (error) {
        if (signal?.aborted === true || !isMissing(error)) throw error;
        missing ??= error;
      }
    }
    return { disks, missing };
  }

  /** A point of the vault at exactly the record: the one that there is, or a new one. The log goes on building on its own. */
  async #pointAt(
    volume: string,
    { sequence, consistency }: { readonly sequence: number; readonly consistency: Consistency },
    signal: AbortSignal | undefined,
  ): Promise<CommittedPoint> {
    const present = await this.#committedAt(volume, sequence, signal);
    if (present !== undefined) return present;
    const { group, writeLog } = this.#options;
    const options = signal === undefined ? {} : { signal };
    await using moment = await openMoment(writeLog, volume, { sequence }, options);
    const { timeMs, sizeBytes, base } = moment;
    const facts = { group, volumeId: volume, sequence, timeMs, sizeBytes, base };
    const more = { whole: true, consistency, source: moment, changed: moment.changed() };
    return await writeLog.points.write({ ...facts, ...more }, signal);
  }

  async #committedAt(
    volume: string,
    sequence: number,
    signal?: AbortSignal,
  ): Promise<CommittedPoint | undefined> {
    const { writeLog, group } = this.#options;
    const points = await writeLog.points.list(group, volume, signal);
    return points.find((point) => point.sequence === sequence && point.whole);
  }

  async #soundPoints(signal: AbortSignal) {
    const { group, vault } = this.#options;
    const { points, damaged } = await listKeptPoints(vault, group, signal);
    if (damaged.length === 0) return points;
    // What it needs is not known: nothing goes until a person has looked.
    const names = damaged.map(({ object }) => object).join(", ");
    throw new OperationalError("vault.damaged", `no point of "${group}" is let go: ${names} cannot be read`);
  }

  /** Of each volume, and those that the log builds on. */
  async #pointsOfVolumes(signal: AbortSignal) {
    const { group, writeLog } = this.#options;
    const volumes = new Map<string, readonly CommittedPoint[]>();
    const based: string[] = [];
    for (const { id } of writeLog.volumes()) {
      volumes.set(id, await writeLog.points.list(group, id, signal));
      const base = writeLog.baseOf(id);
      if (base !== undefined) based.push(base.id);
    }
    return { volumes, based };
  }

  #heldPoints(): readonly string[] {
    return Object.values(this.#options.record.current.held?.disks ?? {});
  }

  /** Answers how many stay, because someone reads them: a served moment stands on them. Another time. */
  async #delete(points: readonly CommittedPoint[], signal: AbortSignal): Promise<number> {
    let inUse = 0;
    for (const { id } of points) {
      try {
        await this.#options.vault.deletePoint(id as PointId, signal);
      } catch (error) {
        if (!isOperational(error, "state.conflict")) throw error;
        inUse += 1;
      }
    }
    return inUse;
  }

  #inTurn(work: () => Promise<void>): Promise<void> {
    const done = this.#turn.then(work);
    this.#turn = done.catch(() => {});
    return done;
  }
}
