/** One group at the desk: its log and what keeps it, who writes into it, and which moments of it are served. */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import type { Clock } from "#kernel/clock.ts";
import { isOperational, OperationalError } from "#kernel/errors.ts";
import type { Log } from "#kernel/log.ts";
import type { BlockReader } from "#model/block-device.ts";
import type { NbdExport } from "#nbd/export-provider.ts";
import type { DiskMoment } from "#recovery/disk-mover.ts";
import { type KeptPoint, listKeptPoints, removeKeptPoint, storeKeptPoint } from "#recovery/kept-points.ts";
import { planPointsRetention } from "#recovery/plan-points-retention.ts";
import type { GroupStatus, KeptVolume } from "#recovery/vault-desk.ts";
import { openBootReads } from "#recovery/priorities/boot-reads.ts";
import { PriorityReader } from "#recovery/priorities/priority-reader.ts";
import type { Vault } from "#vault/open-vault.ts";
import type { RetentionPolicy } from "#vault/plan-retention.ts";
import type { PointId } from "#vault/point-manifest.ts";
import { CaptureTarget } from "#vault/write-log/capture-target.ts";
import { LogKeeper } from "#vault/write-log/keep-log.ts";
import { openMoment } from "#vault/write-log/open-moment.ts";
import type { VolumeImage } from "#vault/write-log/log-event.ts";
import { openSegmentFolder } from "#vault/write-log/open-segment-folder.ts";
import { openWriteLog } from "#vault/write-log/open-write-log.ts";
import type { CommittedPoint } from "#vault/write-log/point-store.ts";
import type { LogWindow } from "#vault/write-log/prune-log.ts";
import { LogShipper } from "#vault/write-log/ship-log.ts";
import { vaultPoints } from "#vault/write-log/vault-points.ts";
import { lastWholeMoment, oldestWholeMoment } from "#vault/write-log/whole-moments.ts";
import type { WriteLog } from "#vault/write-log/write-log.ts";
import { CaptureSession, fenced } from "./capture-session.ts";
import { ImageSession } from "./image-session.ts";
import { type GroupRecord, readGroupRecord, writeGroupRecord } from "./group-record.ts";

export interface GroupDeskOptions {
  readonly group: string;
  /** Of this group alone. */
  readonly folder: string;
  readonly vault: Vault;
  readonly clock: Clock;
  readonly log: Log;
  readonly window: LogWindow;
  readonly foldEveryMs: number;
}

/** A served moment that nobody has used for so long is let go, in milliseconds. */
const idleMs = 30 * 60_000;
/** How often what is served is looked through, in milliseconds. */
const sweepEveryMs = 60_000;

interface Served {
  readonly volume: string;
  readonly sequence: number;
  readonly reader: Promise<PriorityReader>;
  users: number;
  usedAt: number;
}

interface Session {
  readonly volume: string;
  readonly epoch: number;
  /** Rises with each connection of the volume. */
  readonly number: number;
  readonly device: CaptureSession | ImageSession;
}

export class GroupDesk implements AsyncDisposable {
  readonly #options: GroupDeskOptions;
  readonly #log: WriteLog;
  readonly #shipper: LogShipper;
  readonly #keeper: LogKeeper;
  readonly #sessions = new Set<Session>();
  /** Volume -> number of its last connection. */
  readonly #lastSession = new Map<string, number>();
  /** Volume -> the last session whose copy its host called whole. */
  readonly #confirmed = new Map<string, number>();
  readonly #served = new Map<string, Served>();
  readonly #stop = new AbortController();
  #record: GroupRecord;
  #writing: Promise<unknown> = Promise.resolve();
  /** Keeping and letting go of points, one after the other: a point that was just written is not let go before it is named. */
  #keeping: Promise<unknown> = Promise.resolve();

  private constructor(
    options: GroupDeskOptions,
    record: GroupRecord,
    log: WriteLog,
    shipper: LogShipper,
    keeper: LogKeeper,
  ) {
    this.#options = options;
    this.#record = record;
    this.#log = log;
    this.#shipper = shipper;
    this.#keeper = keeper;
  }

  /** Moments that were served before a restart are served again: whoever reads them has not noticed. */
  static async open(options: GroupDeskOptions): Promise<GroupDesk> {
    const { group, folder, vault, clock, window, foldEveryMs } = options;
    await mkdir(join(folder, "log"), { recursive: true, mode: 0o700 });
    const record = await readGroupRecord(folder);
    const log = await openWriteLog({
      folder: openSegmentFolder(join(folder, "log")),
      group,
      logKey: vault.context.keys.log,
      clock,
      points: vaultPoints(vault),
    });
    const shipper = await LogShipper.open(log, vault.context.storage);
    const keeper = new LogKeeper({
      log,
      shipper,
      window,
      foldEveryMs,
      notify: ({ code, raised, detail }) =>
        options.log[raised ? "warn" : "info"](
          { group, code, raised },
          detail === "" ? `${code} is over` : detail,
        ),
    });
    const desk = new GroupDesk(options, record, log, shipper, keeper);
    for (const { volume, sequence, usedAt } of record.served) desk.#pin(volume, sequence, usedAt);
    void desk.#sweep();
    return desk;
  }

  async protect(volume: string, sizeBytes: number, epoch: number): Promise<void> {
    this.#admit(epoch);
    const known = this.#log.volumes().find(({ id }) => id === volume);
    if (known === undefined) await this.#log.addVolume(volume, sizeBytes);
    else if (known.sizeBytes < sizeBytes) await this.#log.resizeVolume(volume, sizeBytes);
  }

  async release(volume: string): Promise<void> {
    const known = this.#log.volumes().find(({ id }) => id === volume);
    if (known === undefined || known.state === "released") return;
    await this.#log.appendEvent({ type: "volume_released", index: known.index });
  }

  /** When it returns, everything that came in before is in the log, and nothing under an older epoch comes after it. */
  async fence(epoch: number): Promise<void> {
    if (epoch > this.#record.epoch) await this.#write({ epoch });
    const older = [...this.#sessions].filter((session) => session.epoch < this.#record.epoch);
    await Promise.all(older.map(({ device }) => device.quiet()));
    await this.#log.flush();
  }

  /** The capture of the volume is continuous, as far as its host saw; stale unless it is still the same connection. */
  async markWhole(volume: string, session: number): Promise<void> {
    if (this.#lastSession.get(volume) !== session) return;
    // Also one that has written nothing yet: its first write is then no beginning of a copy.
    for (const one of this.#sessions)
      if (one.volume === volume && one.number === session && one.device instanceof CaptureSession)
        one.device.confirm();
    this.#confirmed.set(volume, session);
    if (this.#log.volume(volume).state !== "synchronising") return;
    await new CaptureTarget(this.#log, volume).completeSynchronisation();
  }

  /** An export that takes in the volume's writes. Undefined: there is no such volume. */
  openCapture(volume: string, epoch: number): NbdExport | undefined {
    const known = this.#log.volumes().find(({ id }) => id === volume);
    if (known === undefined) return undefined;
    this.#admit(epoch);
    const number = (this.#lastSession.get(volume) ?? 0) + 1;
    this.#lastSession.set(volume, number);
    const wasWhole = known.state !== "synchronising" || known.reason !== "first_copy";
    const device = new CaptureSession({
      target: new CaptureTarget(this.#log, volume),
      admit: () => this.#admit(epoch),
      wasWhole: () => wasWhole,
    });
    return this.#sessionExport({ volume, epoch, number, device });
  }

  #sessionExport(session: Session): NbdExport {
    this.#sessions.add(session);
    return {
      writable: true,
      device: session.device,
      // One connection: another one is another session, which may have missed writes.
      multiConn: false,
      [Symbol.asyncDispose]: async () => {
        this.#sessions.delete(session);
      },
    };
  }

  /** An export that takes in images of the volume. Undefined: there is no such volume. */
  openImage(volume: string, epoch: number): NbdExport | undefined {
    if (!this.#log.volumes().some(({ id }) => id === volume)) return undefined;
    this.#admit(epoch);
    const device = new ImageSession({
      target: new CaptureTarget(this.#log, volume),
      volume: () => this.#log.volume(volume),
      admit: () => this.#admit(epoch),
    });
    return this.#sessionExport({ volume, epoch, number: 0, device });
  }

  /** Begins an image, or says how much of it has come. */
  async takeImage(volume: string, epoch: number, image: VolumeImage): Promise<void> {
    this.#admit(epoch);
    const { state, image: present } = this.#log.volume(volume);
    const goesOn =
      state === "synchronising" &&
      present?.id === image.id &&
      present.base === image.base &&
      present.throughBytes <= image.throughBytes;
    const begins =
      image.throughBytes === 0 &&
      (image.base === null || (state === "continuous" && present?.id === image.base));
    if (!goesOn && !begins) {
      throw new OperationalError(
        "state.conflict",
        `the vault has no content of volume ${volume} that image ${image.id} could go on from: take it as a whole`,
      );
    }
    await this.#log.markImage(volume, image);
  }

  async completeImage(volume: string, epoch: number, id: string): Promise<void> {
    this.#admit(epoch);
    const { state, image } = this.#log.volume(volume);
    if (image?.id === id && state === "continuous") return;
    if (image?.id !== id || state !== "synchronising") {
      throw new OperationalError(
        "state.conflict",
        `volume ${volume} is not being brought to image ${id} now`,
      );
    }
    await this.#log.markImageWhole(volume, image);
  }

  async moment(atMs: number | null, signal: AbortSignal): Promise<DiskMoment> {
    if (atMs === null) await this.#log.flush();
    const found =
      (await lastWholeMoment(this.#log, atMs ?? undefined, signal)) ?? (await this.#keptAt(atMs, signal));
    if (found === undefined) {
      const when = atMs === null ? "yet" : `at or before ${new Date(atMs).toISOString()}`;
      throw new OperationalError(
        "not_found",
        `"${this.#options.group}" has no moment ${when} at which all its disks are whole: ${this.#describe()}`,
      );
    }
    return { sequence: found.sequence, at: found.timeMs };
  }

  /** The last recovery point not after the time: what remains when the window has passed. */
  async #keptAt(
    atMs: number | null,
    signal: AbortSignal,
  ): Promise<{ readonly sequence: number; readonly timeMs: number } | undefined> {
    if (atMs === null) return undefined;
    const { points } = await listKeptPoints(this.#options.vault, this.#options.group, signal);
    const found = points.find(({ at }) => at <= atMs);
    return found === undefined ? undefined : { sequence: found.sequence, timeMs: found.at };
  }

  /** Its disks first, then its document. */
  async keepPoint(point: KeptPoint, signal: AbortSignal): Promise<void> {
    await this.#keepInTurn(async () => {
      const disks: Record<string, string> = {};
      for (const volume of Object.values(point.volumes)) {
        disks[volume] = (await this.#pointAt(volume, point.sequence, signal)).id;
      }
      await storeKeptPoint(this.#options.vault, this.#options.group, point, disks, signal);
    });
  }

  /** A point of the vault at exactly the record: the one that there is, or a new one. The log goes on building on its own. */
  async #pointAt(volume: string, sequence: number, signal: AbortSignal): Promise<CommittedPoint> {
    const present = await this.#committedAt(volume, sequence, signal);
    if (present !== undefined) return present;
    const { group } = this.#options;
    await using moment = await openMoment(this.#log, volume, { sequence }, { signal });
    const { timeMs, sizeBytes, base } = moment;
    const facts = { group, volumeId: volume, sequence, timeMs, sizeBytes, base };
    const more = { whole: true, consistency: "crash" as const, source: moment, changed: moment.changed() };
    return await this.#log.points.write({ ...facts, ...more }, signal);
  }

  async #committedAt(
    volume: string,
    sequence: number,
    signal?: AbortSignal,
  ): Promise<CommittedPoint | undefined> {
    const points = await this.#log.points.list(this.#options.group, volume, signal);
    return points.find((point) => point.sequence === sequence && point.whole);
  }

  /** Lets go of what the policy does not keep; never of what a moment of the window, a served moment or a kept point stands on. */
  async retain(policy: RetentionPolicy, signal: AbortSignal): Promise<void> {
    const { group, vault, clock, log } = this.#options;
    await this.#keepInTurn(async () => {
      // Only then it is known what the window stands on.
      await this.#keeper.foldNow(signal);
      const { points: recoveryPoints, damaged } = await listKeptPoints(vault, group, signal);
      if (damaged.length > 0) {
        // What it needs is not known: nothing goes until a person has looked.
        const names = damaged.map(({ object }) => object).join(", ");
        throw new OperationalError(
          "vault.damaged",
          `no point of "${group}" is let go: ${names} cannot be read`,
        );
      }
      const needed = new Set(this.#keeper.needed.map(({ id }) => id));
      const volumes = new Map<string, readonly CommittedPoint[]>();
      for (const { id } of this.#log.volumes()) {
        volumes.set(id, await this.#log.points.list(group, id, signal));
        const base = this.#log.baseOf(id);
        if (base !== undefined) needed.add(base.id);
      }
      const plan = planPointsRetention({ recoveryPoints, volumes, needed, policy, nowMs: clock.now() });
      for (const point of plan.recoveryPoints) await removeKeptPoint(vault, group, point, signal);
      let inUse = 0;
      for (const { id } of plan.points) {
        try {
          await vault.deletePoint(id as PointId, signal);
        } catch (error) {
          // Someone reads it: a served moment stands on it. Another time.
          if (!isOperational(error, "state.conflict")) throw error;
          inUse += 1;
        }
      }
      const gone = plan.recoveryPoints.length + plan.points.length - inUse;
      if (gone > 0) log.info({ group, gone, inUse }, "points that the policy does not keep were let go");
    });
  }

  #keepInTurn(work: () => Promise<void>): Promise<void> {
    const done = this.#keeping.then(work);
    this.#keeping = done.catch(() => {});
    return done;
  }

  #describe(): string {
    const parts = this.#log.volumes().map(({ id, state, reason }) => `${id} is ${state} (${reason})`);
    return parts.length === 0 ? "no disk was ever captured" : parts.join(", ");
  }

  /** Answers the size of the content. Errors: `not_found`, `state.conflict`. */
  async serve(volume: string, sequence: number, signal: AbortSignal): Promise<number> {
    const served = this.#pin(volume, sequence, this.#options.clock.now());
    const reader = await served.reader;
    signal.throwIfAborted();
    await this.#remember();
    reader.expectStart();
    return reader.sizeBytes;
  }

  /** Undefined: it is not served (any more). */
  async openMomentExport(volume: string, sequence: number): Promise<NbdExport | undefined> {
    const served = this.#served.get(`${volume}/${sequence}`);
    if (served === undefined) return undefined;
    const device = await served.reader;
    served.users += 1;
    return {
      writable: false,
      device,
      multiConn: true,
      cheapExtents: true,
      [Symbol.asyncDispose]: async () => {
        served.users -= 1;
        served.usedAt = this.#options.clock.now();
      },
    };
  }

  volumes(): readonly KeptVolume[] {
    return this.#log.volumes().flatMap(({ id, sizeBytes, state, reason, image = null }) => {
      if (state === "released") return [];
      const session = this.#lastSession.get(id) ?? 0;
      const confirmed = this.#confirmed.get(id) === session;
      return [{ volume: id, sizeBytes, state, reason, session, confirmed, image }];
    });
  }

  async status(signal: AbortSignal): Promise<GroupStatus> {
    const [last, oldest] = await Promise.all([
      lastWholeMoment(this.#log, undefined, signal),
      oldestWholeMoment(this.#log, this.#log.volumes(), signal),
    ]);
    const lag = this.#keeper.lag();
    return {
      group: this.#options.group,
      epoch: this.#record.epoch,
      volumes: this.volumes(),
      last: last === undefined ? null : { sequence: last.sequence, at: last.timeMs },
      oldest: oldest === undefined ? null : { sequence: oldest.sequence, at: oldest.timeMs },
      shipLagMs: lag.unshippedMs,
      foldedSequence: lag.foldedSequence,
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await this.#keeping;
    await this.#writing.catch(() => {});
    const readers = Array.from(this.#served.values(), ({ reader }) => reader);
    for (const reader of readers) {
      await reader.then(
        (open) => open[Symbol.asyncDispose](),
        () => {},
      );
    }
    await this.#keeper[Symbol.asyncDispose]();
    await this.#shipper[Symbol.asyncDispose]();
    await this.#log.close();
  }

  #admit(epoch: number): void {
    if (epoch < this.#record.epoch) throw fenced(this.#options.group, epoch, this.#record.epoch);
  }

  #pin(volume: string, sequence: number, usedAt: number): Served {
    const key = `${volume}/${sequence}`;
    const present = this.#served.get(key);
    if (present !== undefined) {
      present.usedAt = Math.max(present.usedAt, usedAt);
      return present;
    }
    const reader = this.#openServed(volume, sequence);
    const served: Served = { volume, sequence, reader, users: 0, usedAt };
    this.#served.set(key, served);
    reader.catch((error: unknown) => {
      this.#served.delete(key);
      this.#options.log.warn({ err: error, volume, sequence }, "a moment could not be opened");
    });
    return served;
  }

  /** Out of the log; behind its window out of the point that holds exactly this record. */
  async #openContent(volume: string, sequence: number): Promise<BlockReader> {
    try {
      return await openMoment(this.#log, volume, { sequence });
    } catch (error) {
      if (!isOperational(error, "not_found")) throw error;
      const point = await this.#committedAt(volume, sequence);
      if (point === undefined) throw error;
      return this.#log.points.open(point);
    }
  }

  async #openServed(volume: string, sequence: number): Promise<PriorityReader> {
    const { folder, clock, log } = this.#options;
    const reader = await this.#openContent(volume, sequence);
    const bootReads = openBootReads(join(folder, "boot-reads"));
    return new PriorityReader({ reader, volume, bootReads, clock, log });
  }

  #remember(): Promise<void> {
    const served = Array.from(this.#served.values(), ({ volume, sequence, usedAt }) => ({
      volume,
      sequence,
      usedAt,
    }));
    return this.#write({ served });
  }

  /** One after the other, each over what the one before made. */
  #write(change: Partial<GroupRecord>): Promise<void> {
    const done = this.#writing.then(async () => {
      const next = { ...this.#record, ...change };
      await writeGroupRecord(this.#options.folder, next);
      this.#record = next;
    });
    this.#writing = done.catch(() => {});
    return done;
  }

  async #sweep(): Promise<void> {
    const { clock } = this.#options;
    const { signal } = this.#stop;
    while (!signal.aborted) {
      await clock.sleep(sweepEveryMs, signal).catch(() => {});
      if (signal.aborted) return;
      const idle = [...this.#served].filter(
        ([, { users, usedAt }]) => users === 0 && usedAt < clock.now() - idleMs,
      );
      if (idle.length === 0) continue;
      for (const [key, { reader }] of idle) {
        this.#served.delete(key);
        await reader.then((open) => open[Symbol.asyncDispose]());
      }
      await this.#remember();
    }
  }
}
