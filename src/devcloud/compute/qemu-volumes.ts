/** The files of volumes: one qcow2 image each, whole when it has its name. The cloud's records say which there are to be. */
import { access, mkdir, open, readdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { qemuImg } from "#hypervisor/create-disk.ts";
import { syncFolder } from "#hypervisor/durable-file.ts";

export const GIB = 1024 ** 3;

/**
 * By what a guest finds the volume, the disk's serial number: virtio takes 20 characters. As in the clouds themselves: EBS
 * shows `vol0123456789abcdef0`, Nova the first 20 of a volume's id.
 */
export function diskIdOf(volumeId: string): string {
  return volumeId.replace(/^vol-/, "vol").slice(0, 20);
}

export class VolumeFiles {
  readonly #folder: string;
  /** Bytes, of those looked at by this process. */
  readonly #sizes = new Map<string, number>();

  constructor(folder: string) {
    this.#folder = folder;
  }

  path(volumeId: string): string {
    return join(this.#folder, `${volumeId}.qcow2`);
  }

  /** Makes it, if it is not there, as a disk of zeroes. Errors: `machine.refused`. */
  async ensure(volumeId: string, sizeBytes: number, signal: AbortSignal): Promise<void> {
    if (this.#sizes.has(volumeId)) return;
    const path = this.path(volumeId);
    if (await exists(path)) {
      const { stdout } = await qemuImg(["info", "-U", "--output=json", path], signal);
      this.#sizes.set(volumeId, (JSON.parse(stdout) as { "virtual-size": number })["virtual-size"]);
      return;
    }
    await this.replace(
      volumeId,
      (making) => ["create", "-q", "-f", "qcow2", making, String(sizeBytes)],
      signal,
    );
    this.#sizes.set(volumeId, sizeBytes);
  }

  /** In the place of whatever is there: durable, or as it was. `argumentsFor`: of the qemu-img that makes it. */
  async replace(
    volumeId: string,
    argumentsFor: (making: string) => string[],
    signal: AbortSignal,
  ): Promise<void> {
    await mkdir(this.#folder, { recursive: true, mode: 0o700 });
    const path = this.path(volumeId);
    const making = `${path}.new`;
    await rm(making, { force: true });
    await qemuImg(argumentsFor(making), signal);
    const file = await open(making, "r");
    try {
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(making, path);
    await syncFolder(this.#folder);
  }

  /** Bytes; undefined before `ensure`. */
  sizeOf(volumeId: string): number | undefined {
    return this.#sizes.get(volumeId);
  }

  /** No machine has it. Larger only. */
  async grow(volumeId: string, sizeBytes: number, signal: AbortSignal): Promise<void> {
    await qemuImg(["resize", "-q", "-f", "qcow2", this.path(volumeId), String(sizeBytes)], signal);
    this.grew(volumeId, sizeBytes);
  }

  /** A machine has made it larger. */
  grew(volumeId: string, sizeBytes: number): void {
    this.#sizes.set(volumeId, sizeBytes);
  }

  async list(): Promise<readonly string[]> {
    const names = await readdir(this.#folder).catch(() => []);
    return names.flatMap((name) => (name.endsWith(".qcow2") ? [name.slice(0, -".qcow2".length)] : []));
  }

  async remove(volumeId: string): Promise<void> {
    this.#sizes.delete(volumeId);
    await rm(this.path(volumeId), { force: true });
    await rm(`${this.path(volumeId)}.new`, { force: true });
  }
}

function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
