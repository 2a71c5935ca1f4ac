// A disk with much on it of which a guest wants a little before it answers, taken into a vault; guests on it.
import { execFile, spawn, type ChildProcess } from "node:child_process";
import { randomFillSync } from "node:crypto";
import { once } from "node:events";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { promisify } from "node:util";
import { type GuestImage, readGuestImage } from "#hypervisor/guest/build-guest-image.ts";
import type { MachineSpecInput, NbdLocation } from "#hypervisor/machine-spec.ts";
import type { DiskMoment } from "#recovery/disk-mover.ts";
import { connectDesk } from "#recovery/desk/serve-desk.ts";
import { parseNbdUri } from "#wire/nbd/nbd-uri.ts";

export const MIB = 1024 * 1024;
const group = "bench";
const execute = promisify(execFile);
export const noLimit: AbortSignal = new AbortController().signal;

/** Files that the guest reads before it answers: so many, of 64 KiB each, between the ballast over the whole disk. */
const wantedFiles = 256;

/** Half of the disk is data that does not compress. */
export async function makeDisk(folder: string, sizeBytes: number): Promise<string> {
  const [content, path] = [join(folder, "content"), join(folder, "disk.raw")];
  mkdirSync(content, { recursive: true });
  const ballast = Buffer.alloc(Math.floor(sizeBytes / 2 / wantedFiles));
  const wanted = Buffer.alloc(64 * 1024);
  // In the order in which they are named, mke2fs lays them out.
  for (let number = 0; number < wantedFiles; number += 1) {
    const name = String(number).padStart(4, "0");
    writeFileSync(join(content, `${name}-ballast`), randomFillSync(ballast));
    writeFileSync(join(content, `${name}-wanted`), randomFillSync(wanted));
  }
  rmSync(path, { force: true });
  const env = { PATH: `${process.env["PATH"] ?? ""}:/usr/sbin:/sbin` };
  await execute(
    "mke2fs",
    ["-q", "-t", "ext4", "-b", "4096", "-F", "-d", content, path, `${sizeBytes / MIB}M`],
    {
      env,
    },
  );
  rmSync(content, { recursive: true });
  return path;
}

export class Desk implements AsyncDisposable {
  readonly #folder: string;
  readonly #child: ChildProcess;

  private constructor(folder: string, child: ChildProcess) {
    this.#folder = folder;
    this.#child = child;
  }

  static async start(folder: string, megabytesPerSecond: number, waitMs: number): Promise<Desk> {
    const script = join(import.meta.dirname, "desk-process.ts");
    const child = spawn(process.execPath, [script, folder, String(megabytesPerSecond), String(waitMs)], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    await Promise.race([
      once(child.stdout, "data"),
      once(child, "exit").then(() => {
        throw new Error("the desk did not come up");
      }),
    ]);
    return new Desk(folder, child);
  }

  async takeIn(volume: string, path: string, sizeBytes: number): Promise<DiskMoment> {
    await using desk = connectDesk(join(this.#folder, "desk"));
    const { uri } = await desk.protect(group, { volume, sizeBytes, epoch: 1 }, noLimit);
    await execute("qemu-img", ["convert", "-n", "-f", "raw", "-O", "raw", path, uri]);
    const kept = (await desk.volumes(group, noLimit)).find((one) => one.volume === volume);
    await desk.markWhole(group, volume, kept?.session ?? 0, noLimit);
    const moment = await desk.moment(group, null, noLimit);
    for (;;) {
      const status = await desk.status(group, noLimit);
      if ((status?.foldedSequence ?? 0) >= moment.sequence) return moment;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }

  async serve(
    volume: string,
    moment: DiskMoment,
  ): Promise<{ readonly uri: string; readonly location: NbdLocation }> {
    await using desk = connectDesk(join(this.#folder, "desk"));
    const { uri } = await desk.serve(group, volume, moment, noLimit);
    const { address, exportName } = parseNbdUri(uri);
    if (address.kind !== "unix") throw new Error(`${uri} is not on a Unix socket`);
    return { uri, location: { kind: "unix", path: address.path, export: exportName } };
  }

  /** What is known of earlier starts. */
  forget(): void {
    rmSync(join(this.#folder, "desk", "groups", group, "boot-reads"), { recursive: true, force: true });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode !== null) return;
    this.#child.kill("SIGTERM");
    await once(this.#child, "exit");
  }
}

const userData = `#!/bin/sh
cat /disks/data/*-wanted >/dev/null
httpd -h /www
record-writer /disks/data 20 /dev/null &
`;

/** Reads what it wants, answers, and writes on. */
export async function guest(
  id: string,
  port: number,
  content: NonNullable<MachineSpecInput["disks"]>[number]["content"],
): Promise<MachineSpecInput> {
  const { kernelPath, initrdPath } = await imageOf();
  return {
    id,
    memoryMiB: 128,
    cpus: 1,
    boot: { kind: "kernel", kernelPath, initrdPath },
    disks: [{ id: "data", content }],
    networks: [{ kind: "user", forwards: [{ hostPort: port, guestPort: 80 }] }],
    userData,
  };
}

async function imageOf(): Promise<GuestImage> {
  const image = await readGuestImage();
  if (image === null) throw new Error("the guest image is missing: script/guest-image");
  return image;
}

/** Writes to the volume and answers when that is durable. Milliseconds of the one that was answered. */
export async function ask(port: number): Promise<number> {
  for (;;) {
    const began = performance.now();
    try {
      const answer = await fetch(`http://127.0.0.1:${port}/cgi-bin/count`, {
        signal: AbortSignal.timeout(10_000),
        headers: { connection: "close" },
      });
      await answer.text();
      if (answer.ok) return performance.now() - began;
    } catch {
      // Not yet.
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

export async function freePort(): Promise<number> {
  const server = createServer();
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  await once(server, "close");
  if (address === null || typeof address === "string") throw new Error("no port");
  return address.port;
}
