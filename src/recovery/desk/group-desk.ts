/** One group at the desk: its log and what keeps it, who writes into it, and which moments of it are served. */
import { join } from "node:path";
import type { Clock } from "#kernel/clock.ts";
import { makeFolder } from "#kernel/durable-file.ts";
import { OperationalError } from "#kernel/errors.ts";
import type { Log } from "#kernel/log.ts";
import type { NbdExport } from "#nbd/export-provider.ts";
import type { DiskMoment } from "#recovery/disk-mover.ts";
import type { KeptPoint } from "#recovery/kept-points.ts";
import type { GroupStatus, KeptVolume, PinnedMoment, Taker } from "#recovery/vault-desk.ts";
import { openBootReads } from "#recovery/priorities/boot-reads.ts";
import { PriorityReader } from "#recovery/priorities/priority-reader.ts";
import type { Vault } from "#vault/open-vault.ts";
import type { FileRule } from "#recovery/priorities/file-rules.ts";
import { PointRanking } from "#recovery/priorities/rank-points.ts";
import type { RetentionPolicy } from "#vault/plan-retention.ts";
import { LogKeeper } from "#vault/write-log/keep-log.ts";
import type { VolumeImage } from "#vault/write-log/log-event.ts";
import { openSegmentFolder } from "#vault/write-log/open-segment-folder.ts";
import { openWriteLog } from "#vault/write-log/open-write-log.ts";
import type { LogWindow } from "#vault/write-log/prune-log.ts";
import { LogShipper } from "#vault/write-log/ship-log.ts";
import { vaultPoints } from "#vault/write-log/vault-points.ts";
import { lastWholeMoment, oldestWholeMoment, type WholeMoment } from "#vault/write-log/whole-moments.ts";
import type { WriteLog } from "#vault/write-log/write-log.ts";
import { CaptureSessions } from "./capture-sessions.ts";
import { GroupRecordFile } from "./group-record.ts";
import { GroupPoints } from "./keep-points.ts";
import { ServedMoments, type ServedMomentsOptions } from "./served-moments.ts";

export interface GroupDeskOptions {
  readonly group: string;
  /** Of this group alone. */
  readonly folder: string;
  readonly vault: Vault;
  readonly clock: Clock;
  readonly log: Log;
  readonly window: LogWindow;
  readonly foldEveryMs: number;
  /** Which files of a disk are fetched first. */
  readonly priorities: readonly FileRule[];
}

interface OpenLog {
  readonly log: WriteLog;
  readonly shipper: LogShipper;
}

export class GroupDesk implements AsyncDisposable {
  readonly #options: GroupDeskOptions;
  readonly #record: GroupRecordFile;
  readonly #log: WriteLog;
  readonly #shipper: LogShipper;
  readonly #keeper: LogKeeper;
  readonly #points: GroupPoints;
  readonly #ranking: PointRanking;
  readonly #sessions: CaptureSessions;
  readonly #served: ServedMoments;

  private constructor(options: GroupDeskOptions, record: GroupRecordFile, { log, shipper }: OpenLog) {
    const { group, vault, clock } = options;
    this.#options = options;
    this.#record = record;
    this.#log = log;
    this.#shipper = shipper;
    this.#points = new GroupPoints({ group, vault, writeLog: log, record, clock, log: options.log });
    this.#ranking = new PointRanking({
      rules: options.priorities,
      fileReads: openBootReads(vault, group, "files"),
      open: (volume, sequence) => this.#points.open(volume, sequence),
      log: options.log,
    });
    this.#keeper = this.#keepLog();
    this.#sessions = new CaptureSessions({
      group,
      log,
      epoch: () => record.current.epoch,
      // A thousand a millisecond: no number is one of a process before this one.
      firstNumber: Math.floor(clock.now()) * 1024 + 1,
    });
    const { served: before } = record.current;
    const moments: ServedMomentsOptions = {
      open: (volume, sequence) => this.#openServed(volume, sequence),
      holdAll: () => log.shelf.lease(0),
      remember: (served) => record.change(() => ({ served })),
      clock,
      log: options.log,
    };
    this.#served = new ServedMoments(moments, before);
  }

  /** Moments that were served before a restart are served again: whoever reads them has not noticed. */
  static async open(options: GroupDeskOptions): Promise<GroupDesk> {
    // What is captured is in there: the folders outlive a power cut as it does.
    await makeFolder(join(options.folder, "log"));
    const record = await GroupRecordFile.open(options.folder);
    return new GroupDesk(options, record, await openLog(options));
  }

  /** Also one that was released before: it counts again from its next whole copy on. */
  async protect(volume: string, sizeBytes: number, epoch: number): Promise<void> {
    this.#sessions.admit(epoch);
    // A folder that is new does not know yet where the environment is.
    if (epoch > this.#record.current.epoch)
      await this.#record.change((record) => ({ epoch: Math.max(record.epoch, epoch) }));
    const known = this.#log.volumes().find(({ id }) => id === volume);
    if (known === undefined) {
      await this.#log.addVolume(volume, sizeBytes);
      return;
    }
    if (known.sizeBytes < sizeBytes) await this.#log.resizeVolume(volume, sizeBytes);
    if (known.state === "released") await this.#log.markSynchronising(volume, "taken_again");
  }

  async release(volume: string): Promise<void> {
    const known = this.#log.volumes().find(({ id }) => id === volume);
    if (known === undefined || known.state === "released") return;
    await this.#log.releaseVolume(volume);
  }

  /** When it returns, everything that came in before is in the log, and nothing under an older epoch comes after it. */
  async fence(epoch: number): Promise<void> {
    if (epoch > this.#record.current.epoch)
      await this.#record.change((record) => ({ epoch: Math.max(record.epoch, epoch) }));
    await this.#sessions.quiet();
    await this.#log.flush();
  }

  markWhole(volume: string, session: number): Promise<void> {
    return this.#sessions.markWhole(volume, session);
  }

  /** Of the folder: a capture into another one is none into this. */
  get history(): string {
    return this.#record.current.history;
  }

  /**
   * Undefined: there is no such volume, or the capture is one into a log that was here before. Its host would only bring what has changed since, and
   * is given another target by whoever protects the volume, for which it copies all of it.
   */
  async openCapture(
    capture: { readonly volume: string; readonly epoch: number; readonly history: string },
    signal: AbortSignal,
  ): Promise<NbdExport | undefined> {
    if (capture.history !== this.history) return undefined;
    return this.#sessions.openCapture(capture.volume, capture.epoch, signal);
  }

  openImage(volume: string, epoch: number): NbdExport | undefined {
    return this.#sessions.openImage(volume, epoch);
  }

  /** Begins an image, or says how much of it has come. */
  async takeImage(volume: string, epoch: number, image: VolumeImage): Promise<void> {
    this.#sessions.admit(epoch);
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
    this.#sessions.admit(epoch);
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
    const found = await this.#findWhole(atMs, signal);
    if (found === undefined) {
      const when = atMs === null ? "yet" : `at or before ${new Date(atMs).toISOString()}`;
      throw new OperationalError(
        "not_found",
        `"${this.#options.group}" has no moment ${when} at which all its disks are whole: ${this.#describe()}`,
      );
    }
    return { sequence: found.sequence, at: found.timeMs };
  }

  /** Of the log's window, or before it the last that a point holds. */
  async #findWhole(atMs: number | null, signal: AbortSignal): Promise<WholeMoment | undefined> {
    const found =
      atMs === null ? await this.#log.lastWhole(signal) : await lastWholeMoment(this.#log, atMs, signal);
    if (found !== undefined && this.#log.reaches(found.sequence)) return found;
    return this.#points.heldAt(atMs, signal);
  }

  async keepPoint(point: KeptPoint, signal: AbortSignal): Promise<void> {
    await this.#points.keep(point, signal);
    this.#ranking.want(Object.values(point.volumes), point.sequence, point.at);
  }

  async retain(policy: RetentionPolicy, signal: AbortSignal): Promise<void> {
    // What a served moment stands on is kept by its reader: by one that is open.
    await this.#served.allOpen();
    const window = {
      foldNow: () => this.#keeper.foldNow(signal),
      needed: () => this.#keeper.needed,
    };
    await this.#points.retain(policy, window, signal);
  }

  /** Answers the size of the content. Errors: `not_found`, `state.conflict`. */
  serve(volume: string, sequence: number, taker: Taker | undefined, signal: AbortSignal): Promise<number> {
    return this.#served.serve(volume, sequence, taker, signal);
  }

  unpin(volume: string, sequence: number, taker: Taker): Promise<void> {
    return this.#served.unpin(volume, sequence, taker);
  }

  pins(): readonly Omit<PinnedMoment, "uri">[] {
    return this.#served.pins();
  }

  openMomentExport(volume: string, sequence: number): Promise<NbdExport | undefined> {
    return this.#served.openExport(volume, sequence);
  }

  volumes(): readonly KeptVolume[] {
    return this.#sessions.kept();
  }

  async status(signal: AbortSignal): Promise<GroupStatus> {
    const [last, oldest] = await Promise.all([
      this.#findWhole(null, signal),
      oldestWholeMoment(this.#log, this.#log.volumes(), signal),
    ]);
    const lag = this.#keeper.lag();
    return {
      group: this.#options.group,
      epoch: this.#record.current.epoch,
      history: this.history,
      volumes: this.volumes(),
      last: last === undefined ? null : { sequence: last.sequence, at: last.timeMs },
      oldest: oldest === undefined ? null : { sequence: oldest.sequence, at: oldest.timeMs },
      shipLagMs: lag.unshippedMs,
      foldedSequence: lag.foldedSequence,
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#ranking[Symbol.asyncDispose]();
    await this.#keeper[Symbol.asyncDispose]();
    await this.#points.settled();
    await this.#served[Symbol.asyncDispose]();
    await this.#record.settled();
    await this.#shipper[Symbol.asyncDispose]();
    await this.#log.close();
  }

  #describe(): string {
    const parts = this.#log.volumes().map(({ id, state, reason }) => `${id} is ${state} (${reason})`);
    return parts.length === 0 ? "no disk was ever captured" : parts.join(", ");
  }

  #keepLog(): LogKeeper {
    const { group, window, foldEveryMs, log } = this.#options;
    return new LogKeeper({
      log: this.#log,
      shipper: this.#shipper,
      window,
      foldEveryMs,
      leaving: (moment, signal) => this.#points.holdLast(moment, signal),
      notify: ({ code, raised, detail }) =>
        log[raised ? "warn" : "info"]({ group, code, raised }, detail === "" ? `${code} is over` : detail),
    });
  }

  async #openServed(volume: string, sequence: number): Promise<PriorityReader> {
    const { group, vault, clock, log } = this.#options;
    const reader = await this.#points.open(volume, sequence);
    const bootReads = openBootReads(vault, group, "boot");
    const fileReads = openBootReads(vault, group, "files");
    return new PriorityReader({ reader, volume, bootReads, fileReads, clock, log });
  }
}

/** What was opened is closed again when the rest cannot be: its folder is then free for the next try. */
export async function openLog({
  group,
  folder,
  vault,
  clock,
}: Pick<GroupDeskOptions, "group" | "folder" | "vault" | "clock">): Promise<OpenLog> {
  const segments = openSegmentFolder(join(folder, "log"));
  let log: WriteLog;
  try {
    const logKey = vault.context.keys.log;
    log = await openWriteLog({ folder: segments, group, logKey, clock, points: vaultPoints(vault) });
  } catch (error) {
    await segments.close();
    throw error;
  }
  try {
    return { log, shipper: await LogShipper.open(log, vault.context.storage) };
  } catch (error) {
    await log.close();
    throw error;
  }
}
