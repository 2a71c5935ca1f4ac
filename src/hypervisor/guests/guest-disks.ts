/**
 * What a cloud's API does not offer for the content of volumes (cloud/disk-host.ts), over the machines and files of this host.
 * Wishes are durable first; whoever brings machines and disks to the records (guest-keeper.ts) brings them to the wishes too.
 */
import type {
  CaptureRequest,
  CaptureState,
  CaptureStatus,
  DiskHost,
  GuestExit,
  GuestProgram,
  SeedRequest,
  SeedStatus,
} from "#cloud/disk-host.ts";
import { capturesTo } from "#hypervisor/disk-services.ts";
import { attachedDisks } from "#hypervisor/hot-disk.ts";
import type { DiskSpecInput, NbdLocation } from "#hypervisor/machine-spec.ts";
import type { Machine } from "#hypervisor/machine.ts";
import type { HypervisorHost } from "#hypervisor/open-host.ts";
import type { Clock } from "#kernel/clock.ts";
import { OperationalError } from "#kernel/errors.ts";
import type { Log } from "#kernel/log.ts";
import { parseNbdUri } from "#wire/nbd/nbd-uri.ts";
import { agentAnswers, runInGuest } from "./ask-guest.ts";
import { behindItsSeed, unreached, viewCapture } from "./capture-view.ts";
import { copyVolumes, type VolumeCopy } from "./copy-volumes.ts";
import type { CaptureWish, DiskLedger, SeedRecord } from "./disk-ledger.ts";
import { FreezeWatch } from "./freeze-watch.ts";
import { endExport, type ExportedFile, exportUri, startExport } from "./volume-export.ts";
import type { GuestWishes, VolumeWish } from "./guest-wishes.ts";
import { diskIdOf, GIB, type VolumeFiles } from "./volume-files.ts";

export interface DiskHostParts {
  readonly wishes: GuestWishes;
  readonly host: HypervisorHost;
  readonly files: VolumeFiles;
  readonly ledger: DiskLedger;
  readonly clock: Clock;
  readonly log: Log;
  /** One at a time: who has which disk. */
  readonly turn: <Value>(work: () => Promise<Value>) => Promise<Value>;
  /** Whether a server's machine is between the choice of its disks and the end of its boot. */
  readonly isStarting: (serverId: string) => boolean;
  /** Brings machines to the records soon. */
  readonly reconcile: () => void;
  /** What machines show to NBD servers over TLS: see `NbdLocation`. */
  readonly certificates?: string | undefined;
}

export class GuestDisks implements DiskHost {
  readonly #parts: DiskHostParts;
  /** Since when each capture is in the state that was seen last. */
  readonly #seen = new Map<string, { readonly state: CaptureState; readonly since: number }>();
  readonly #awaited = new WeakSet();
  readonly #freezes: FreezeWatch;

  constructor(parts: DiskHostParts) {
    this.#parts = parts;
    this.#freezes = new FreezeWatch(parts);
  }

  // What those ask who bring machines to the records. Within a turn.

  /** The volume's file is there, with the content that it is to have. Gives its size in bytes. */
  async ensureFile(volume: VolumeWish, signal: AbortSignal): Promise<number> {
    const { files, ledger } = this.#parts;
    const seed = ledger.records.seeds[volume.id];
    if (seed?.phase === "making") {
      await files.overlay(volume.id, seed.sizeBytes, this.#locationOf(seed.uri), signal);
      await ledger.setSeed(volume.id, { ...seed, phase: "live" });
    }
    const sizeBytes = await files.ensure(volume, ledger.records.made?.[volume.id] === true, signal);
    await ledger.setMade(volume.id);
    return sizeBytes;
  }

  diskOf({ id }: VolumeWish): DiskSpecInput {
    const { files, ledger } = this.#parts;
    const seed = ledger.records.seeds[id];
    const path = files.path(id);
    return {
      id: diskIdOf(id),
      content: {
        kind: "existing",
        path,
        format: "qcow2",
        ...(seed?.phase === "live" && { source: this.#locationOf(seed.uri) }),
      },
    };
  }

  isExported(volumeId: string): boolean {
    return this.#parts.ledger.records.exports[volumeId] === true;
  }

  /** What goes on for disks that are in a machine: captures and background copies, as wished. */
  async follow(machine: Machine, volumes: readonly VolumeWish[], signal: AbortSignal): Promise<void> {
    const { host, ledger } = this.#parts;
    const { captures, seeds } = ledger.records;
    const services = host.disksOf(machine.id);
    const wished = new Set<string>();
    for (const { id } of volumes) {
      const [wish, seed, disk] = [captures[id], seeds[id], diskIdOf(id)];
      // QEMU copies into a disk or out of it, not both: capture begins when the seed is here.
      if (wish !== undefined && seed?.phase !== "live") {
        wished.add(disk);
        const target = this.#targetOf(wish);
        // Its status says why; what goes on is left as it is.
        if (target instanceof OperationalError) continue;
        await services.startCapture(disk, { target, stallLimitMs: wish.stallLimitMs });
      }
      if (seed?.phase === "live") await this.#followSeed(machine, id, seed, signal);
    }
    for (const disk of Object.keys(machine.record.captures)) {
      if (!wished.has(disk)) await services.stopCapture(disk);
    }
  }

  /** Before a disk leaves a machine, or the machine's next boot is without it. */
  async release(machine: Machine, disk: string): Promise<void> {
    const services = this.#parts.host.disksOf(machine.id);
    if (machine.record.captures[disk] !== undefined) await services.stopCapture(disk);
    if (machine.record.copies[disk] !== undefined) await services.stopBackgroundCopy(disk);
  }

  /** What a process that was killed may have left standing still, once its machines are taken over. */
  thawLeft(): void {
    this.#freezes.resume(this.#parts.host.list());
  }

  /** The volume is gone. */
  async forget(volumeId: string): Promise<void> {
    await endExport(this.#fileOf(volumeId), this.#parts.clock);
    await this.#parts.ledger.forget(volumeId);
    await this.#parts.files.remove(volumeId);
    this.#seen.delete(volumeId);
  }

  // The contract.

  async startCapture(request: CaptureRequest, signal: AbortSignal): Promise<CaptureStatus> {
    signal.throwIfAborted();
    const { volumeId, uri, stallLimitMs } = request;
    this.#locationOf(uri);
    this.#volume(volumeId);
    const { ledger, clock, reconcile } = this.#parts;
    const present = ledger.records.captures[volumeId];
    if (present?.uri !== uri || present.stallLimitMs !== stallLimitMs) {
      await ledger.setCapture(volumeId, { uri, stallLimitMs, askedAt: clock.now() });
      reconcile();
    }
    return this.#captureStatus(volumeId, ledger.records.captures[volumeId] as CaptureWish);
  }

  async stopCapture(volumeId: string, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const { ledger, turn, host } = this.#parts;
    if (ledger.records.captures[volumeId] === undefined) return;
    await ledger.setCapture(volumeId, null);
    this.#seen.delete(volumeId);
    const disk = diskIdOf(volumeId);
    await turn(async () => {
      for (const machine of host.list()) {
        if (machine.record.captures[disk] !== undefined) await host.disksOf(machine.id).stopCapture(disk);
      }
    });
  }

  captures(signal: AbortSignal): Promise<readonly CaptureStatus[]> {
    signal.throwIfAborted();
    const wishes = Object.entries(this.#parts.ledger.records.captures);
    return Promise.resolve(wishes.map(([id, wish]) => this.#captureStatus(id, wish)));
  }

  seed({ volumeId, uri, bytesPerSecond, replace }: SeedRequest, signal: AbortSignal): Promise<SeedStatus> {
    const { host, ledger, files, turn, reconcile } = this.#parts;
    return turn(async () => {
      signal.throwIfAborted();
      this.#locationOf(uri);
      const volume = this.#volume(volumeId);
      const present = ledger.records.seeds[volumeId];
      const speed = bytesPerSecond ?? null;
      if (present?.uri === uri && (replace === undefined || present.replaced === replace)) {
        if (present.bytesPerSecond !== speed) {
          await ledger.setSeed(volumeId, { ...present, bytesPerSecond: speed });
        }
      } else {
        await this.#refuseUnlessFree(volumeId, signal);
        const given = replace !== undefined || (await files.isUntouched(volumeId, signal));
        if (this.isExported(volumeId) || !given) {
          throw refused(`volume ${volumeId} was written to: its content is not replaced`);
        }
        // What went on for the disk that was is not about the one that comes.
        for (const machine of host.list()) await this.release(machine, diskIdOf(volumeId));
        const sizeBytes = volume.sizeGiB * GIB;
        const record = { uri, bytesPerSecond: speed, sizeBytes, phase: "making" } as const;
        await ledger.setSeed(volumeId, { ...record, ...(replace !== undefined && { replaced: replace }) });
        await this.ensureFile(volume, signal);
      }
      reconcile();
      return this.#seedStatus(volumeId, ledger.records.seeds[volumeId] as SeedRecord);
    });
  }

  seeds(signal: AbortSignal): Promise<readonly SeedStatus[]> {
    signal.throwIfAborted();
    const seeds = Object.entries(this.#parts.ledger.records.seeds);
    return Promise.resolve(seeds.map(([id, seed]) => this.#seedStatus(id, seed)));
  }

  exportVolume(volumeId: string, signal: AbortSignal): Promise<{ readonly uri: string }> {
    const { ledger, turn } = this.#parts;
    return turn(async () => {
      signal.throwIfAborted();
      const volume = this.#volume(volumeId);
      await this.#refuseUnlessFree(volumeId, signal);
      await this.ensureFile(volume, signal);
      // First: from now on no machine gets it.
      await ledger.setExport(volumeId, true);
      const file = this.#fileOf(volumeId);
      await startExport(file, await this.#parts.files.credentials(volumeId, signal), signal);
      return { uri: exportUri(file) };
    });
  }

  endExport(volumeId: string, signal: AbortSignal): Promise<void> {
    const { ledger, files, turn, clock, reconcile } = this.#parts;
    return turn(async () => {
      signal.throwIfAborted();
      if (!this.isExported(volumeId)) return;
      await endExport(this.#fileOf(volumeId), clock);
      await files.sync(volumeId);
      await ledger.setExport(volumeId, false);
      reconcile();
    });
  }

  /** Raw copies, at one instant. Errors: `machine.refused` for a volume that is written from outside. */
  copyVolumes(
    wanted: readonly { readonly volumeId: string; readonly path: string }[],
    signal: AbortSignal,
  ): Promise<void> {
    const { files, turn } = this.#parts;
    return turn(async () => {
      const copies: VolumeCopy[] = [];
      for (const { volumeId, path } of wanted) {
        if (this.isExported(volumeId)) throw refused(`volume ${volumeId} is being written to from outside`);
        await this.ensureFile(this.#volume(volumeId), signal);
        copies.push({ source: files.path(volumeId), holder: this.#holderOf(volumeId), path });
      }
      await copyVolumes(copies, signal);
    });
  }

  agentAnswers(serverId: string, signal: AbortSignal): Promise<boolean> {
    return agentAnswers(this.#machine(serverId).agent, this.#parts.clock, signal);
  }

  async freeze(
    serverId: string,
    limitMs: number,
    signal: AbortSignal,
  ): Promise<{ readonly fileSystems: number }> {
    return { fileSystems: await this.#freezes.hold(this.#machine(serverId), limitMs, signal) };
  }

  async thaw(serverId: string, signal: AbortSignal): Promise<{ readonly held: boolean }> {
    return { held: await this.#freezes.release(this.#machine(serverId), signal) };
  }

  exec(serverId: string, program: GuestProgram, signal: AbortSignal): Promise<GuestExit> {
    return runInGuest(this.#machine(serverId).agent, program, this.#parts.clock, signal);
  }

  async console(serverId: string, signal: AbortSignal): Promise<string> {
    signal.throwIfAborted();
    return (await this.#machine(serverId).console()).toString("utf8");
  }

  async screenshot(serverId: string, signal: AbortSignal): Promise<Buffer | null> {
    const machine = this.#machine(serverId);
    return machine.spec.display ? machine.screenshot(signal) : null;
  }

  /** Exports end; that they were asked for stays on record, and keeps machines away from their volumes. */
  async [Symbol.asyncDispose](): Promise<void> {
    const { ledger, clock } = this.#parts;
    await this.#freezes[Symbol.asyncDispose]();
    for (const id of Object.keys(ledger.records.exports)) await endExport(this.#fileOf(id), clock);
  }

  #fileOf(volumeId: string): ExportedFile {
    return { folder: this.#parts.files.folder, name: volumeId };
  }

  #volume(id: string): VolumeWish {
    const found = this.#parts.wishes.volume(id);
    if (found !== undefined) return found;
    throw new OperationalError("not_found", `there is no volume ${id}`);
  }

  #machine(serverId: string): Machine {
    return this.#parts.host.machine(serverId);
  }

  async #refuseUnlessFree(volumeId: string, signal: AbortSignal): Promise<void> {
    for (const machine of this.#parts.host.list()) {
      if (machine.isOn && (await attachedDisks(machine, signal)).has(diskIdOf(volumeId))) {
        throw refused(`server ${machine.id} runs with volume ${volumeId}: stop it, or detach the volume`);
      }
      if (this.#parts.isStarting(machine.id)) {
        const has = machine.spec.disks.some(({ id }) => id === diskIdOf(volumeId));
        if (has) throw refused(`server ${machine.id} is starting with volume ${volumeId}`);
      }
    }
  }

  async #followSeed(
    machine: Machine,
    volumeId: string,
    seed: SeedRecord,
    signal: AbortSignal,
  ): Promise<void> {
    const { host, files, ledger, reconcile } = this.#parts;
    const disk = diskIdOf(volumeId);
    const bytesPerSecond = seed.bytesPerSecond ?? 0;
    const copy = await host.disksOf(machine.id).startBackgroundCopy(disk, { bytesPerSecond });
    if (copy.progress.state === "complete" && (await files.isWhole(volumeId, signal))) {
      await ledger.setSeed(volumeId, { ...seed, phase: "done" });
      // Now it can be captured.
      reconcile();
    } else if (!this.#awaited.has(copy)) {
      this.#awaited.add(copy);
      void copy.complete.then(reconcile);
    }
  }

  /** The machine that has the volume as a disk. */
  #holderOf(volumeId: string): Machine | undefined {
    const disk = diskIdOf(volumeId);
    return this.#parts.host.list().find(({ spec }) => spec.disks.some(({ id }) => id === disk));
  }

  #captureStatus(volumeId: string, wish: CaptureWish): CaptureStatus {
    const disk = diskIdOf(volumeId);
    const holder = this.#holderOf(volumeId);
    const present = holder?.record.captures[disk];
    // One to another target, which is still to end, says nothing of this wish.
    const target = this.#targetOf(wish);
    const unusable = target instanceof OperationalError;
    const capture =
      holder !== undefined && present !== undefined && !unusable && capturesTo(present, target)
        ? this.#parts.host.disksOf(holder.id).capture(disk)
        : undefined;
    const seeding = this.#parts.ledger.records.seeds[volumeId]?.phase === "live" && holder?.isOn === true;
    const isOn = holder?.isOn === true;
    const seen = unusable
      ? unreached(target.message)
      : seeding
        ? behindItsSeed
        : viewCapture(capture?.status, isOn);
    const before = this.#seen.get(volumeId);
    const since =
      before?.state === seen.state
        ? before.since
        : (seen.since ?? (before === undefined ? wish.askedAt : this.#parts.clock.now()));
    this.#seen.set(volumeId, { state: seen.state, since });
    const { state, reason, copiedBytes, totalBytes } = seen;
    return { volumeId, uri: wish.uri, state, reason, copiedBytes, totalBytes, since };
  }

  /** A target that this host could reach when it was told of it, and cannot any more, is no reason not to tell of the others. */
  #targetOf({ uri }: CaptureWish): NbdLocation | OperationalError {
    try {
      return this.#locationOf(uri);
    } catch (error) {
      if (error instanceof OperationalError) return error;
      throw error;
    }
  }

  #locationOf(uri: string): NbdLocation {
    return locationOf(uri, this.#parts.certificates);
  }

  #seedStatus(volumeId: string, seed: SeedRecord): SeedStatus {
    const base = { volumeId, uri: seed.uri };
    const whole = { copiedBytes: seed.sizeBytes, totalBytes: seed.sizeBytes };
    if (seed.phase === "done") return { ...base, state: "done", ...whole };
    const disk = diskIdOf(volumeId);
    const holder = this.#holderOf(volumeId);
    if (holder?.record.copies[disk] === undefined) {
      // Live, and copied from when a machine runs with it.
      return { ...base, state: "copying", copiedBytes: 0, totalBytes: seed.sizeBytes };
    }
    const { state, doneBytes } = this.#parts.host.disksOf(holder.id).backgroundCopy(disk).progress;
    return {
      ...base,
      state: state === "waiting" ? "waiting" : "copying",
      copiedBytes: doneBytes,
      totalBytes: seed.sizeBytes,
    };
  }
}

/** Errors: `input.invalid`. */
function locationOf(uri: string, certificates: string | undefined): NbdLocation {
  const { address, exportName, tls } = parseNbdUri(uri);
  const invalid = (why: string): OperationalError =>
    new OperationalError("input.invalid", why, { detail: uri });
  if (address.kind === "unix") {
    if (tls) throw invalid("machines reach NBD exports over TLS by TCP only");
    return { kind: "unix", path: address.path, export: exportName };
  }
  const place = { kind: "tcp", host: address.host, port: address.port, export: exportName } as const;
  if (!tls) return place;
  if (certificates === undefined) {
    throw invalid(
      "this host has no certificates to show: set `remote.certificates` of its site, and start its agent again",
    );
  }
  return { ...place, certificates };
}

function refused(message: string): OperationalError {
  return new OperationalError("machine.refused", message);
}
