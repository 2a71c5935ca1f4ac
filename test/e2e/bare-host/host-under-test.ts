// A bare host in a folder of its own: its configuration, its agent as a process that tests kill, and what runs there. At the end
// nothing of it does.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Cloud, Observed } from "#cloud/contract.ts";
import { openHypervisorCloud } from "#drivers/hypervisor/hypervisor-cloud.ts";
import { readGuestImage } from "#hypervisor/guest/build-guest-image.ts";
import type { ResourceId } from "#kernel/ids.ts";
import { isRunning } from "../devcloud-qemu/stage.ts";
import { certify } from "./machines-apart.ts";

export const siteName = "metal";

export interface HostOptions {
  /** A prefix that nobody else uses. */
  readonly addresses: string;
  readonly pageSize?: number;
  /** YAML, as under `limits`. */
  readonly limits?: string;
  readonly outbound?: boolean;
  /** Also for a control plane on another machine, whose certificate is for `control`: ports of the API and of disks. */
  readonly apart?: { readonly api: number; readonly disks: number };
}

export class HostUnderTest implements AsyncDisposable {
  readonly folder: string;
  readonly cloud: Cloud;
  readonly #options: HostOptions;
  #child: ChildProcess | null = null;

  private constructor(folder: string, options: HostOptions) {
    this.folder = folder;
    this.#options = options;
    const { apart } = options;
    if (apart !== undefined) certify(this.certificates, ["control", "metal"]);
    this.cloud = openHypervisorCloud({
      place: { socketPath: this.socket },
      outbound: options.outbound ?? true,
    });
  }

  static async open(options: HostOptions): Promise<HostUnderTest> {
    const folder = mkdtempSync(join(tmpdir(), "understudy-host-"));
    const host = new HostUnderTest(folder, options);
    await host.#linkImage();
    writeFileSync(host.imageDisk, "");
    truncateSync(host.imageDisk, 1024 ** 2);
    writeFileSync(host.configPath, `version: 1\nsites:\n${host.siteYaml()}environments: {}\n`);
    return host;
  }

  get socket(): string {
    return join(this.folder, "host.sock");
  }

  /** A folder for each machine: `control` and `metal`. */
  get certificates(): string {
    return join(this.folder, "certificates");
  }

  get configPath(): string {
    return join(this.folder, "host.yaml");
  }

  /** The kernel that guests boot from, by a name of ours: without it, none starts. */
  get kernel(): string {
    return join(this.folder, "kernel");
  }

  /** Of the images `rooted` and `booting`: raw, and empty unless the test makes it otherwise. */
  get imageDisk(): string {
    return join(this.folder, "root.raw");
  }

  /** With paths that hold wherever the configuration stands. */
  siteYaml(from: "host" | "control" = "host"): string {
    const { folder } = this;
    const { addresses, limits = "memory: 2GiB, cpus: 16, disk: 500GiB", outbound = true } = this.#options;
    return `  ${siteName}:
    driver: hypervisor
    host: ${this.#hostYaml(from)}
    data: ${folder}/host
    addresses: [${addresses}]
    outbound: ${String(outbound)}
    limits: {${limits}}
    types:
      small: {cpus: 1, memory: 96MiB}
      large: {cpus: 1, memory: 128MiB}
    images:
      small: {kernel: ${folder}/kernel, initrd: ${folder}/initrd, ready: "guest: ready"}
      rooted: {kernel: ${folder}/kernel, initrd: ${folder}/initrd, disk: ${this.imageDisk}, format: raw, ready: "guest: ready"}
      booting: {disk: ${this.imageDisk}, format: raw, ready: "image: up"}
      hung: {kernel: ${folder}/kernel, initrd: ${folder}/initrd, ready: "what no guest prints"}
`;
  }

  #hostYaml(from: "host" | "control"): string {
    const socket = `socket: ${this.folder}/host.sock`;
    const { apart } = this.#options;
    if (apart === undefined) return `{${socket}}`;
    const { api, disks } = apart;
    if (from === "control")
      return `{url: "https://127.0.0.1:${api}", certificates: ${this.certificates}/control}`;
    const doors = `listen: "127.0.0.1:${api}", disks: "127.0.0.1:${disks}"`;
    return `{${socket}, remote: {${doors}, certificates: ${this.certificates}/metal, callers: [control]}}`;
  }

  async start(): Promise<void> {
    const program = new URL("./host-child.ts", import.meta.url).pathname;
    const args = [program, this.configPath, siteName, String(this.#options.pageSize ?? 200)];
    const child = spawn(process.execPath, args, { stdio: ["pipe", "pipe", "inherit"] });
    this.#child = child;
    await Promise.race([
      once(createInterface({ input: child.stdout }), "line"),
      once(child, "exit").then(([code]) => {
        throw new Error(`the host agent ended with ${String(code)} before it was ready`);
      }),
    ]);
  }

  async kill(): Promise<void> {
    const child = this.#child;
    if (child === null || child.exitCode !== null || child.signalCode !== null) return;
    const gone = once(child, "exit");
    child.kill("SIGKILL");
    await gone;
  }

  async stop(): Promise<void> {
    const child = this.#child;
    if (child === null || child.exitCode !== null || child.signalCode !== null) return;
    const gone = once(child, "exit");
    child.stdin?.end();
    await gone;
  }

  get machines(): readonly string[] {
    const folder = join(this.folder, "host/host/machines");
    return existsSync(folder) ? readdirSync(folder) : [];
  }

  /** The process that runs a server's guest; null: none. */
  guestPid(serverId: string): number | null {
    try {
      const path = join(this.folder, "host/host/machines", serverId, "qemu.pid");
      const pid = Number(readFileSync(path, "utf8"));
      return isRunning(pid) ? pid : null;
    } catch {
      return null;
    }
  }

  /** What the server's guest has printed. */
  console(serverId: string): string {
    const path = join(this.folder, "host/host/machines", serverId, "console.log");
    return existsSync(path) ? readFileSync(path, "utf8") : "";
  }

  breakImage(): void {
    rmSync(this.kernel);
  }

  async mendImage(): Promise<void> {
    if (!existsSync(this.kernel)) await this.#linkImage();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.cloud.close();
    await this.stop();
    for (const id of this.machines) {
      const pid = this.guestPid(id);
      if (pid !== null) process.kill(pid, "SIGKILL");
    }
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 10 });
  }

  async #linkImage(): Promise<void> {
    const image = await readGuestImage();
    if (image === null) throw new Error("no guest image");
    rmSync(this.kernel, { force: true });
    rmSync(join(this.folder, "initrd"), { force: true });
    symlinkSync(image.kernelPath, this.kernel);
    symlinkSync(image.initrdPath, join(this.folder, "initrd"));
  }
}

/** A script for a guest, and for a host as well: it serves its server's name at this port. */
export function servesItsName(port: number): string {
  return Buffer.from(`#!/bin/sh
if command -v node >/dev/null; then
  exec node -e 'require("node:http").createServer((_, answer) => answer.end(process.env.SERVER_NAME)).listen(${port}, process.env.SERVER_ADDRESS)'
fi
mkdir -p /www && hostname >/www/index.html
exec httpd -f -p ${port} -h /www
`).toString("base64");
}

export async function serverOf(cloud: Cloud, id: ResourceId): Promise<Observed<"server">> {
  const found = await cloud.get("server", id, AbortSignal.timeout(10_000));
  if (found === undefined) throw new Error(`there is no server ${id}`);
  return found;
}
