// Hosts and a vault in the test's own process, so that only the control plane dies: disks are memory, everything between is real
// (NBD, the desk, the write log). A guest is whoever calls `write`.
import assert from "node:assert/strict";
import { rmSync } from "node:fs";
import { join } from "node:path";
import type { CaptureStatus, DiskHost, GuestExit, SeedRequest, SeedStatus } from "#cloud/disk-host.ts";
import { startHostApi } from "#hypervisor/host-api/host-api-server.ts";
import { systemClock } from "#kernel/clock.ts";
import { OperationalError } from "#kernel/errors.ts";
import { silentLog } from "#kernel/log.ts";
import { systemRandom } from "#kernel/random.ts";
import { Secret } from "#kernel/secret.ts";
import { singleExport } from "#nbd/export-provider.ts";
import { MemoryDevice } from "#nbd/memory-device.ts";
import { type NbdClient, openNbdClient } from "#nbd/nbd-client.ts";
import { startNbdServer } from "#nbd/nbd-server.ts";
import { openDesk } from "#recovery/desk/open-desk.ts";
import { serveDesk } from "#recovery/desk/serve-desk.ts";
import { restoreInPlace } from "#recovery/restore-in-place.ts";
import { initVault } from "#vault/open-vault.ts";
import { memoryStorage } from "#vault/storage/memory-storage.ts";
import { formatNbdUri, parseNbdUri } from "#wire/nbd/nbd-uri.ts";
import type { Side } from "./engine-under-test.ts";

export const sizeBytes = 2 * 1024 ** 3;
const signal = new AbortController().signal;

export function connect(uri: string): Promise<NbdClient> {
  const { address, exportName } = parseNbdUri(uri);
  const ports = { clock: systemClock, random: systemRandom, log: silentLog, reconnectMs: 0 };
  return openNbdClient({ address, exportName, ...ports }, signal);
}

interface Disk {
  readonly device: MemoryDevice;
  touched: boolean;
  capture: { readonly status: CaptureStatus; readonly target: NbdClient } | null;
  seed: SeedStatus | null;
  replaced?: string | undefined;
  exported: { readonly uri: string; readonly server: AsyncDisposable } | null;
}

export class HostUnderTest implements DiskHost {
  readonly #folder: string;
  readonly #side: Side;
  readonly #disks = new Map<string, Disk>();
  readonly #runsWith: (volumeId: string) => Promise<boolean>;
  /** What was asked for that would have put a content under a server that runs. */
  readonly wrong: string[] = [];
  #api: AsyncDisposable | undefined;
  #exports = 0;

  /** @param runsWith whether a server that has the volume runs now */
  constructor(folder: string, side: Side, runsWith?: (volumeId: string) => Promise<boolean>) {
    this.#folder = folder;
    this.#side = side;
    this.#runsWith = runsWith ?? (() => Promise.resolve(false));
  }

  async start(): Promise<void> {
    this.#api ??= await startHostApi(this, join(this.#folder, `${this.#side}-host.sock`), silentLog);
  }

  /** Nothing answers there any more, and what was captured is captured no more. */
  async stop(): Promise<void> {
    await this.#api?.[Symbol.asyncDispose]();
    this.#api = undefined;
    for (const id of this.#disks.keys()) await this.stopCapture(id);
  }

  /** As new. */
  async reset(): Promise<void> {
    for (const id of this.#disks.keys()) {
      await this.stopCapture(id);
      await this.endExport(id);
    }
    this.#disks.clear();
  }

  /** What a guest does: told that it is written when both sides have it. */
  async write(volumeId: string, offset: number, data: Buffer): Promise<void> {
    const disk = this.#disk(volumeId);
    disk.touched = true;
    await disk.device.write(offset, data);
    await disk.capture?.target.write(offset, data);
  }

  read(volumeId: string, offset: number, length: number): Promise<Buffer> {
    return this.#disk(volumeId).device.read(offset, length);
  }

  async startCapture({ volumeId, uri }: { volumeId: string; uri: string }): Promise<CaptureStatus> {
    const disk = this.#disk(volumeId);
    if (disk.capture?.status.uri === uri) return disk.capture.status;
    await this.stopCapture(volumeId);
    const target = await connect(uri);
    await restoreInPlace(disk.device, target, { signal });
    const status: CaptureStatus = {
      volumeId,
      uri,
      state: "continuous",
      reason: "first_copy",
      copiedBytes: sizeBytes,
      totalBytes: sizeBytes,
      since: Date.now(),
    };
    disk.capture = { status, target };
    return status;
  }

  async stopCapture(volumeId: string): Promise<void> {
    const disk = this.#disk(volumeId);
    const { capture } = disk;
    disk.capture = null;
    await capture?.target[Symbol.asyncDispose]();
  }

  captures(): Promise<readonly CaptureStatus[]> {
    return Promise.resolve([...this.#disks.values()].flatMap(({ capture }) => capture?.status ?? []));
  }

  async seed({ volumeId, uri, replace }: SeedRequest): Promise<SeedStatus> {
    const disk = this.#disk(volumeId);
    if (disk.seed?.uri === uri && (replace === undefined || disk.replaced === replace)) return disk.seed;
    await this.#refuseUnlessFree(volumeId, "seeded");
    if ((disk.touched && replace === undefined) || disk.exported !== null)
      throw new OperationalError("machine.refused", `${volumeId} was written to`);
    await using source = await connect(uri);
    await restoreInPlace(source, disk.device, { signal });
    disk.touched = true;
    disk.replaced = replace;
    disk.seed = { volumeId, uri, state: "done", copiedBytes: sizeBytes, totalBytes: sizeBytes };
    return disk.seed;
  }

  seeds(): Promise<readonly SeedStatus[]> {
    return Promise.resolve([...this.#disks.values()].flatMap(({ seed }) => seed ?? []));
  }

  async exportVolume(volumeId: string): Promise<{ readonly uri: string }> {
    const disk = this.#disk(volumeId);
    assert.equal(disk.capture, null, "a disk that is captured is in use");
    await this.#refuseUnlessFree(volumeId, "written from outside");
    if (disk.exported === null) {
      this.#exports += 1;
      const path = join(this.#folder, `${this.#side}-${this.#exports}.sock`);
      const server = await startNbdServer({
        listen: { kind: "unix", path },
        provider: singleExport("", disk.device),
        clock: systemClock,
        log: silentLog,
      });
      const uri = formatNbdUri({ address: { kind: "unix", path }, exportName: "", tls: false });
      disk.exported = { uri, server };
    }
    disk.touched = true;
    return { uri: disk.exported.uri };
  }

  async endExport(volumeId: string): Promise<void> {
    const disk = this.#disk(volumeId);
    const { exported } = disk;
    // Nothing keeps the cloud of this test from starting one: whoever runs the environment has to.
    if (exported !== null && (await this.#runsWith(volumeId))) {
      this.wrong.push(`a server was started with ${volumeId} while it was written from outside`);
    }
    disk.exported = null;
    await exported?.server[Symbol.asyncDispose]();
  }

  agentAnswers(): Promise<boolean> {
    return Promise.resolve(true);
  }

  freeze(): Promise<{ readonly fileSystems: number }> {
    return Promise.resolve({ fileSystems: 1 });
  }

  thaw(): Promise<{ readonly held: boolean }> {
    return Promise.resolve({ held: true });
  }

  exec(): Promise<GuestExit> {
    return Promise.resolve({ exitCode: 0, output: "" });
  }

  screenshot(): Promise<Buffer | null> {
    return Promise.resolve(null);
  }

  console(): Promise<string> {
    return Promise.resolve("");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
    await this.reset();
  }

  async #refuseUnlessFree(volumeId: string, what: string): Promise<void> {
    if (!(await this.#runsWith(volumeId))) return;
    this.wrong.push(`${volumeId} was ${what} while a server ran with it`);
    throw new OperationalError("machine.refused", `a server runs with ${volumeId}`);
  }

  #disk(volumeId: string): Disk {
    const disk = this.#disks.get(volumeId) ?? {
      device: new MemoryDevice({ sizeBytes }),
      touched: false,
      capture: null,
      seed: null,
      exported: null,
    };
    this.#disks.set(volumeId, disk);
    return disk;
  }
}

/** A vault that has kept nothing yet, served where the configuration says. */
export async function openVaultUnderTest(folder: string): Promise<AsyncDisposable> {
  const data = join(folder, "vault-data");
  rmSync(data, { recursive: true, force: true });
  const storage = memoryStorage();
  const unlock = { passphrase: new Secret("test") };
  const vault = await initVault({ storage, unlock, threads: 0, scrypt: { N: 1024, r: 8, p: 1 } });
  const window = { windowMs: 3_600_000, windowBytes: 1024 ** 3 };
  const desk = await openDesk({
    folder: data,
    vault,
    clock: systemClock,
    log: silentLog,
    window,
    foldEveryMs: 3_600_000,
  });
  const served = await serveDesk(desk, data, silentLog);
  return {
    [Symbol.asyncDispose]: async () => {
      await served[Symbol.asyncDispose]();
      await desk[Symbol.asyncDispose]();
      await vault[Symbol.asyncDispose]();
    },
  };
}
