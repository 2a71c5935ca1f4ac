/** The files of volumes: one qcow2 image each, whole when it has its name. The records say which there are to be. */
import { open, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { qemuImg } from "#hypervisor/create-disk.ts";
import { isThere, missingImage, publishImage } from "#hypervisor/image-file.ts";
import type { NbdLocation } from "#hypervisor/machine-spec.ts";
import { backingName, headerCredentials } from "#hypervisor/plan-nbd.ts";
import { makeFolder } from "#kernel/durable-file.ts";
import type { VolumeWish } from "./guest-wishes.ts";

export const GIB = 1024 ** 3;
const SUFFIX = ".qcow2";

/**
 * By what a guest finds the volume, the disk's serial number: virtio takes 20 characters. As in the clouds themselves: EBS
 * shows `vol0123456789abcdef0`, Nova the first 20 of a volume's id.
 */
export function diskIdOf(volumeId: string): string {
  return volumeId.replace(/^vol-/, "vol").slice(0, 20);
}

interface ImageInfo {
  readonly "virtual-size": number;
  readonly "backing-filename"?: string;
}

export class VolumeFiles {
  readonly folder: string;
  /** Bytes, of those looked at by this process. */
  readonly #sizes = new Map<string, number>();

  /** See `DiskHostParts`. */
  readonly #certificates: string | undefined;

  constructor(folder: string, certificates?: string) {
    this.folder = folder;
    this.#certificates = certificates;
  }

  path(volumeId: string): string {
    return join(this.folder, `${volumeId}${SUFFIX}`);
  }

  /**
   * Makes it, if it is not there: a disk of zeroes, or its own writes over an image, which must stay as it is. Gives its size in
   * bytes, an image's being its own. `wasMade`: one that is not there is lost, and is not made again. Errors: `machine.refused`,
   * `store.failing`.
   */
  async ensure(
    { id: volumeId, sizeGiB, image }: Pick<VolumeWish, "id" | "sizeGiB" | "image">,
    wasMade: boolean,
    signal: AbortSignal,
  ): Promise<number> {
    const sizeBytes = sizeGiB * GIB;
    const known = this.#sizes.get(volumeId);
    if (known !== undefined) return known;
    if (await isThere(this.path(volumeId))) {
      const size = (await this.#info(volumeId, signal))["virtual-size"];
      this.#sizes.set(volumeId, size);
      return size;
    }
    if (wasMade) throw missingImage(`volume ${volumeId}`, this.path(volumeId));
    if (image === undefined) {
      await this.#make(volumeId, "absent", sizeBytes, [], signal);
      return sizeBytes;
    }
    await this.#make(volumeId, "absent", null, ["-F", image.format, "-b", image.path], signal);
    const size = (await this.#info(volumeId, signal))["virtual-size"];
    this.#sizes.set(volumeId, size);
    return size;
  }

  /** In the place of the file that is there: its own writes over what the export holds, which need not answer now. */
  async overlay(
    volumeId: string,
    sizeBytes: number,
    source: NbdLocation,
    signal: AbortSignal,
  ): Promise<void> {
    const below = ["-u", "-F", "raw", "-b", backingName(source)];
    await this.#make(volumeId, "any", sizeBytes, below, signal);
  }

  /** Whether nothing was ever written to it. No machine has it. */
  async isUntouched(volumeId: string, signal: AbortSignal): Promise<boolean> {
    if (!(await isThere(this.path(volumeId)))) return true;
    // Without what it may stand on.
    const image = {
      driver: "qcow2",
      backing: null,
      file: { driver: "file", filename: this.path(volumeId) },
    };
    const { stdout } = await qemuImg(["map", "--output=json", `json:${JSON.stringify(image)}`], signal);
    return (JSON.parse(stdout) as { present: boolean }[]).every(({ present }) => !present);
  }

  /** Whether it needs no source: QEMU takes the source's name out of the file when the copy is complete. */
  async isWhole(volumeId: string, signal: AbortSignal): Promise<boolean> {
    return (await this.#info(volumeId, signal))["backing-filename"] === undefined;
  }

  /** Arguments for programs of QEMU's that open the file: what its header needs, which is nothing for most. */
  async credentials(volumeId: string, signal: AbortSignal): Promise<string[]> {
    const below = (await this.#info(volumeId, signal))["backing-filename"];
    return below === undefined ? [] : headerCredentials(below, this.#certificates);
  }

  /** No machine has it. Larger only. */
  async grow(volumeId: string, sizeBytes: number, signal: AbortSignal): Promise<void> {
    const credentials = await this.credentials(volumeId, signal);
    const resize = ["resize", ...credentials, "-q", "-f", "qcow2", this.path(volumeId), String(sizeBytes)];
    await qemuImg(resize, signal);
    this.grew(volumeId, sizeBytes);
  }

  /** A machine has made it larger. */
  grew(volumeId: string, sizeBytes: number): void {
    this.#sizes.set(volumeId, sizeBytes);
  }

  async list(): Promise<readonly string[]> {
    const names = await readdir(this.folder).catch((error: NodeJS.ErrnoException) => {
      if (error.code === "ENOENT") return [];
      throw error;
    });
    return names.flatMap((name) => (name.endsWith(SUFFIX) ? [name.slice(0, -SUFFIX.length)] : []));
  }

  async sync(volumeId: string): Promise<void> {
    const file = await open(this.path(volumeId), "r");
    try {
      await file.sync();
    } finally {
      await file.close();
    }
  }

  async remove(volumeId: string): Promise<void> {
    this.#sizes.delete(volumeId);
    await rm(this.path(volumeId), { force: true });
    await rm(`${this.path(volumeId)}.new`, { force: true });
  }

  async #info(volumeId: string, signal: AbortSignal): Promise<ImageInfo> {
    const { stdout } = await qemuImg(["info", "-U", "--output=json", this.path(volumeId)], signal);
    return JSON.parse(stdout) as ImageInfo;
  }

  async #make(
    volumeId: string,
    expected: "absent" | "any",
    sizeBytes: number | null,
    options: readonly string[],
    signal: AbortSignal,
  ): Promise<void> {
    await makeFolder(this.folder);
    const path = this.path(volumeId);
    const making = `${path}.new`;
    await rm(making, { force: true });
    const size = sizeBytes === null ? [] : [String(sizeBytes)];
    await qemuImg(["create", "-q", "-f", "qcow2", ...options, making, ...size], signal);
    await publishImage(making, path, expected);
    if (sizeBytes !== null) this.#sizes.set(volumeId, sizeBytes);
  }
}
