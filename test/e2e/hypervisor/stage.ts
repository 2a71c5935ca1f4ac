/** What the machine suites share: the small guest, a folder of their own, and a host agent. */
import { type ChildProcess, execFile, execFileSync, spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { type GuestImage, readGuestImage } from "#hypervisor/guest/build-guest-image.ts";
import type { HostNotice } from "#hypervisor/host-notice.ts";
import type { MachineSpecInput, NbdLocation } from "#hypervisor/machine-spec.ts";
import { openHost, type HypervisorHost } from "#hypervisor/open-host.ts";
import { parseNbdUri } from "#wire/nbd/nbd-uri.ts";

const MIB = 1024 * 1024;

const missing = ["qemu-system-x86_64", "qemu-img", "mke2fs", "nbdkit"].filter((name) => {
  try {
    execFileSync("which", [name], {
      stdio: "ignore",
      env: { PATH: `${process.env["PATH"] ?? ""}:/usr/sbin` },
    });
    return false;
  } catch {
    return true;
  }
});
const image = await readGuestImage();

/** For `test`'s options: why it cannot run here; in strict mode that is an error. */
export const skip: string | false =
  missing.length > 0
    ? `missing: ${missing.join(", ")}`
    : image === null
      ? "the guest image is missing: script/guest-image"
      : false;
if (skip !== false && process.env["UNDERSTUDY_STRICT"] === "1") throw new Error(skip);

export function guestImage(): GuestImage {
  if (image === null) throw new Error("no guest image");
  return image;
}

/** A folder that is removed at the end, and with it every machine that was left running in it. */
export class Stage implements AsyncDisposable {
  readonly folder = mkdtempSync(join(tmpdir(), "understudy-hypervisor-"));
  readonly notices: HostNotice[] = [];
  #host: HypervisorHost | null = null;
  readonly #waiting = new Set<() => void>();

  get host(): HypervisorHost {
    if (this.#host === null) throw new Error("open the host first");
    return this.#host;
  }

  get hostFolder(): string {
    return join(this.folder, "host");
  }

  /** `checkpoint`: see `HostOptions`. */
  async openHost(checkpoint: (step: string) => void = () => {}): Promise<HypervisorHost> {
    this.#host = await openHost({ folder: this.hostFolder, accelerator: "tcg", checkpoint });
    this.#host.onNotice((notice) => {
      this.notices.push(notice);
      if (process.env["STAGE_NOTICES"] !== undefined) console.error(notice);
      for (const wake of this.#waiting) wake();
    });
    return this.#host;
  }

  async closeHost(): Promise<void> {
    await this.#host?.[Symbol.asyncDispose]();
    this.#host = null;
  }

  /** The first notice of this kind from the `from`th on. */
  async notice(code: HostNotice["code"], from = 0): Promise<HostNotice> {
    for (;;) {
      const found = this.notices.slice(from).find((one) => one.code === code);
      if (found !== undefined) return found;
      await new Promise<void>((resolve) => {
        const wake = (): void => {
          this.#waiting.delete(wake);
          resolve();
        };
        this.#waiting.add(wake);
      });
    }
  }

  /** A raw ext4 image. */
  dataImage(name: string, sizeMiB: number): string {
    const path = join(this.folder, name);
    execFileSync("mke2fs", ["-q", "-t", "ext4", "-F", path, `${sizeMiB}M`], {
      env: { PATH: `${process.env["PATH"] ?? ""}:/usr/sbin:/sbin` },
      stdio: "ignore",
    });
    return path;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const host = this.#host ?? (await this.openHost());
    await host.resumed;
    await Promise.all(host.list().map(({ id }) => host.destroy(id)));
    await this.closeHost();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** The small guest with one volume, which serves HTTP: /cgi-bin/count adds one on the volume. */
export function webGuest(id: string, port: number, rest: Partial<MachineSpecInput> = {}): MachineSpecInput {
  const { kernelPath, initrdPath } = guestImage();
  return {
    id,
    memoryMiB: 112,
    cpus: 1,
    boot: { kind: "kernel", kernelPath, initrdPath },
    disks: [{ id: "data", content: { kind: "blank", sizeBytes: 64 * MIB } }],
    networks: [{ kind: "user", forwards: [{ hostPort: port, guestPort: 80 }] }],
    userData: "#!/bin/sh\nhttpd -h /www\necho serving\n",
    ready: { consoleLine: "serving", withinMs: 30_000, attempts: 3 },
    ...rest,
  };
}

/** The body of a GET, tried again until the guest answers: its network comes up at a time of its own. */
export async function get(port: number, path: string, signal?: AbortSignal): Promise<string> {
  for (;;) {
    try {
      const limit = AbortSignal.timeout(5000);
      const both = signal === undefined ? limit : AbortSignal.any([limit, signal]);
      const answer = await fetch(`http://127.0.0.1:${port}${path}`, {
        signal: both,
        headers: { connection: "close" },
      });
      if (answer.ok) return (await answer.text()).trim();
    } catch {
      signal?.throwIfAborted();
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** A file served writable by nbdkit on a Unix socket, which can be made to stand still, and to die. */
export class FileTarget implements AsyncDisposable {
  readonly path: string;
  readonly location: NbdLocation;
  readonly #socket: string;
  readonly #options: readonly string[];
  readonly #parameters: readonly string[];
  #child: ChildProcess | null = null;

  /** `port` 0: on a Unix socket. */
  constructor(path: string, port: number, options: readonly string[], parameters: readonly string[]) {
    this.path = path;
    this.#socket = `${path}.sock`;
    this.location =
      port === 0
        ? { kind: "unix", path: this.#socket, export: "" }
        : { kind: "tcp", host: "127.0.0.1", port, export: "" };
    this.#options = options;
    this.#parameters = parameters;
  }

  async start(): Promise<void> {
    rmSync(this.#socket, { force: true });
    // One thread a connection: with more, nbdkit 1.32 dies of an assertion when its client hangs up in the middle of a reply.
    const args = [
      "-f",
      "-t",
      "1",
      ...this.#address,
      ...this.#options,
      "file",
      this.path,
      ...this.#parameters,
    ];
    rmSync(`${this.#socket}.pid`, { force: true });
    const child = spawn("nbdkit", args, { stdio: ["ignore", "ignore", "inherit"] });
    this.#child = child;
    while (!existsSync(`${this.#socket}.pid`)) {
      if (child.exitCode !== null) throw new Error("nbdkit did not start");
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }

  get #address(): string[] {
    // Written when it listens.
    const pid = ["-P", `${this.#socket}.pid`];
    if (this.location.kind === "unix") return [...pid, "-U", this.location.path];
    return [...pid, "-i", this.location.host, "-p", String(this.location.port)];
  }

  stop(): void {
    this.#child?.kill("SIGSTOP");
  }

  goOn(): void {
    this.#child?.kill("SIGCONT");
  }

  async kill(): Promise<void> {
    const child = this.#child;
    this.#child = null;
    if (child === null) return;
    const exited = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGKILL");
    await exited;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
  }
}

/** `sizeBytes`: an empty file is made. Null: the file is there. */
export async function serveFile(
  stage: Stage,
  name: string,
  sizeBytes: number | null,
  options: readonly string[] = [],
  parameters: readonly string[] = [],
  port = 0,
): Promise<FileTarget> {
  const path = join(stage.folder, name);
  if (sizeBytes !== null) {
    writeFileSync(path, "");
    truncateSync(path, sizeBytes);
  }
  const target = new FileTarget(path, port, options, parameters);
  await target.start();
  return target;
}

/** Where an NBD URI leads to, as a host is told of it. */
export function locationOf(uri: string): NbdLocation {
  const { address, exportName } = parseNbdUri(uri);
  return { ...address, export: exportName };
}

/** Fails with the first difference. */
export async function sameContent(a: string, aFormat: string, b: string, bFormat: string): Promise<void> {
  await promisify(execFile)("qemu-img", ["compare", "-f", aFormat, "-F", bFormat, a, b]);
}
