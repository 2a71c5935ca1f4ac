/** The vault's process, asked and killed from outside, and disk images taken into it as a host's mirror would. */
import { execFile } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import type { NbdLocation } from "#hypervisor/machine-spec.ts";
import type { DiskMoment } from "#recovery/disk-mover.ts";
import { connectDesk } from "#recovery/desk/serve-desk.ts";
import { parseNbdUri } from "#wire/nbd/nbd-uri.ts";
import { type Actor, startActor } from "../../../demo/processes.ts";

const group = "shop";

const configOf = (window: string): string => `version: 1
vault: {store: {folder: ./store}, passphrase: {file: ./passphrase}, data: ./vault, foldEvery: 1s, window: ${window}}
sites: {}
environments: {}
`;

export class VaultStage implements AsyncDisposable {
  readonly #folder: string;
  #process: Actor | null = null;

  private constructor(folder: string) {
    this.#folder = folder;
  }

  /** Makes a vault in the folder, and serves it. */
  static async open(folder: string, window = "1h"): Promise<VaultStage> {
    writeFileSync(join(folder, "understudy.yaml"), configOf(window));
    writeFileSync(join(folder, "passphrase"), "correct horse battery staple", { mode: 0o600 });
    const stage = new VaultStage(folder);
    const made = await startActor("vault-init", ["vault", "init", "--json"], folder);
    await made.stop();
    await stage.start();
    return stage;
  }

  async start(): Promise<void> {
    this.#process = await startActor("vault", ["vault", "serve", "--json"], this.#folder);
  }

  /** SIGKILL. */
  async kill(): Promise<void> {
    await this.#process?.kill();
    this.#process = null;
  }

  /** Takes a raw image in as a volume; returns when the store's points hold all of it. */
  async takeIn(volume: string, path: string, sizeBytes: number, signal: AbortSignal): Promise<DiskMoment> {
    await using desk = connectDesk(join(this.#folder, "vault"));
    const { uri } = await desk.protect(group, { volume, sizeBytes, epoch: 1 }, signal);
    await promisify(execFile)("qemu-img", ["convert", "-n", "-f", "raw", "-O", "raw", path, uri], { signal });
    const kept = (await desk.volumes(group, signal)).find((one) => one.volume === volume);
    await desk.markWhole(group, volume, kept?.session ?? 0, signal);
    const moment = await desk.moment(group, null, signal);
    for (;;) {
      const status = await desk.status(group, signal);
      if ((status?.foldedSequence ?? 0) >= moment.sequence) return moment;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }

  /** Where the volume is served as it was then. */
  async serve(volume: string, moment: DiskMoment, signal: AbortSignal): Promise<NbdLocation> {
    await using desk = connectDesk(join(this.#folder, "vault"));
    const { uri } = await desk.serve(group, volume, moment, signal);
    const { address, exportName } = parseNbdUri(uri);
    if (address.kind !== "unix") throw new Error(`${uri} is not on a Unix socket`);
    return { kind: "unix", path: address.path, export: exportName };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
  }
}
