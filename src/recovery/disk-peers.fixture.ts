// A vault and hosts that say and do what a test wants of them, for those who look after disks.
import type { CaptureStatus, DiskHost, SeedStatus } from "#cloud/disk-host.ts";
import { OperationalError } from "#kernel/errors.ts";
import { environmentId, resourceId, type ResourceId } from "#kernel/ids.ts";
import type { BlockDevice } from "#model/block-device.ts";
import { EnvironmentState } from "#model/environment-state.ts";
import type { Resource } from "#model/resource.ts";
import type { DiskContext } from "#recovery/disk-mover.ts";
import { encodeExportName } from "#recovery/desk/export-name.ts";
import { formatNbdUri } from "#wire/nbd/nbd-uri.ts";
import type { GroupStatus, KeptVolume, VaultDesk } from "#recovery/vault-desk.ts";

export const environment = environmentId("shop");
export const keptTags = { role: "database" };

export function keptVolume(id: string): Resource {
  return { kind: "volume", id: resourceId(id), tags: keptTags, spec: { sizeGiB: 1 } } as unknown as Resource;
}

export function captureUri(volume: string, epoch = 1): string {
  const exportName = encodeExportName({ kind: "capture", group: environment, volume, epoch, history: "" });
  return formatNbdUri({ address: { kind: "unix", path: "/vault.sock" }, exportName, tls: false });
}

export function capture(volumeId: string, more: Partial<CaptureStatus> = {}): CaptureStatus {
  return {
    volumeId,
    uri: captureUri(volumeId),
    state: "continuous",
    reason: "first_copy",
    copiedBytes: 1,
    totalBytes: 1,
    since: 0,
    ...more,
  };
}

/** Resolves never; rejects when the signal aborts. */
export function hangs(signal: AbortSignal): Promise<never> {
  return new Promise((_resolve, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason as Error), { once: true });
  });
}

type DiskSide = Pick<
  DiskHost,
  | "captures"
  | "seeds"
  | "startCapture"
  | "stopCapture"
  | "exportVolume"
  | "endExport"
  | "seed"
  | typeof Symbol.asyncDispose
>;

export class FakeHost {
  readonly captured = new Map<string, CaptureStatus>();
  readonly seeded = new Map<string, SeedStatus>();
  readonly exported = new Set<string>();
  readonly did: string[] = [];
  hung = false;
  silent = false;

  readonly #disks: DiskSide = {
    captures: async (signal) => {
      await this.#answer(signal);
      return [...this.captured.values()];
    },
    seeds: async (signal) => {
      await this.#answer(signal);
      return [...this.seeded.values()];
    },
    startCapture: async ({ volumeId, uri }) => {
      this.did.push(`start ${volumeId}`);
      const status = capture(volumeId, { uri });
      this.captured.set(volumeId, status);
      return status;
    },
    stopCapture: async (volumeId) => {
      this.did.push(`stop ${volumeId}`);
      this.captured.delete(volumeId);
    },
    exportVolume: async (volumeId) => {
      this.exported.add(volumeId);
      return { uri: `disk:${volumeId}` };
    },
    endExport: async (volumeId) => void this.exported.delete(volumeId),
    seed: async ({ volumeId, uri }) => {
      const status: SeedStatus = { volumeId, uri, state: "copying", copiedBytes: 0, totalBytes: 1 };
      this.seeded.set(volumeId, status);
      return status;
    },
    [Symbol.asyncDispose]: async () => {},
  };

  /** What is about guests, nobody asks of it. */
  readonly host = this.#disks as DiskHost;

  async #answer(signal: AbortSignal): Promise<void> {
    if (this.hung) await hangs(signal);
    if (this.silent) throw new OperationalError("machine.failing", "the host agent does not answer");
  }
}

export class FakeVault {
  readonly kept = new Map<string, KeptVolume>();
  readonly did: string[] = [];
  status: Partial<GroupStatus> = {};
  /** Called before each answer to `moment`. */
  onMoment: () => void = () => {};

  readonly desk: VaultDesk = {
    protect: async (_group: string, { volume, epoch }: { volume: string; epoch: number }) => {
      if (!this.kept.has(volume)) this.keep(volume, { state: "synchronising", reason: "first_copy" });
      return { uri: captureUri(volume, epoch), history: "" };
    },
    release: async (_group: string, volume: string) => {
      this.did.push(`release ${volume}`);
      this.kept.delete(volume);
    },
    markWhole: async (_group: string, volume: string) => {
      this.did.push(`whole ${volume}`);
      this.keep(volume, { ...this.kept.get(volume), state: "continuous", confirmed: true });
    },
    volumes: async () => [...this.kept.values()],
    status: async () => this.status as GroupStatus,
    serve: async () => ({ uri: "vault:moment", sizeBytes: 4096 }),
    moment: async () => {
      this.onMoment();
      return { sequence: 7, at: 7000 };
    },
  } as unknown as VaultDesk;

  keep(volume: string, more: Partial<KeptVolume> = {}): void {
    this.kept.set(volume, {
      volume,
      sizeBytes: 1,
      state: "continuous",
      reason: "first_copy",
      session: 1,
      confirmed: true,
      image: null,
      ...more,
    });
  }
}

/** An environment whose volumes and site a test changes as it goes. */
export class FakeContext {
  readonly volumes: string[];
  site = "east";
  epoch: number | undefined = 1;

  constructor(volumes: readonly string[]) {
    this.volumes = [...volumes];
  }

  readonly context: DiskContext = {
    environment,
    state: () => EnvironmentState.of(this.volumes.map(keptVolume)),
    servingSite: () => this.site,
    epoch: () => this.epoch,
    position: () => 12,
  };
}

/** A disk of so many bytes; `failAt`: the write after so many fails. */
export function memoryDisk(bytes: Buffer, failAt = Number.POSITIVE_INFINITY): BlockDevice {
  let writes = 0;
  return {
    sizeBytes: bytes.length,
    read: async (offset: number, length: number) => Buffer.from(bytes.subarray(offset, offset + length)),
    extents: async (offset: number, length: number) => [{ offset, length, kind: "data" as const }],
    write: async (offset: number, data: Buffer) => {
      writes += 1;
      if (writes > failAt) throw new OperationalError("nbd.unreachable", "the disk went away");
      data.copy(bytes, offset);
    },
    flush: async () => {},
    [Symbol.asyncDispose]: async () => {},
  } as unknown as BlockDevice;
}

export function ids(...names: readonly string[]): ReadonlySet<ResourceId> {
  return new Set(names.map(resourceId));
}
