// A disk with much on it of which a guest wants a little before it answers, taken into a vault; guests on it.
import { execFile } from "node:child_process";
import { randomFillSync } from "node:crypto";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { type GuestImage, readGuestImage } from "#hypervisor/guest/build-guest-image.ts";
import type { MachineSpecInput } from "#hypervisor/machine-spec.ts";

export const MIB = 1024 * 1024;
const execute = promisify(execFile);

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

/** Writes to the volume and answers when that is durable. Milliseconds that it took; Infinity where nothing came. */
async function askOnce(port: number, signal: AbortSignal): Promise<number> {
  const began = performance.now();
  try {
    const url = `http://127.0.0.1:${port}/cgi-bin/count`;
    const answer = await fetch(url, { signal, headers: { connection: "close" } });
    await answer.text();
    return answer.ok ? performance.now() - began : Number.POSITIVE_INFINITY;
  } catch {
    return Number.POSITIVE_INFINITY;
  }
}

/** Asked again until it answers. Milliseconds of the one that was answered. */
export async function ask(port: number): Promise<number> {
  for (;;) {
    const tookMs = await askOnce(port, AbortSignal.timeout(10_000));
    if (Number.isFinite(tookMs)) return tookMs;
    await sleep(20);
  }
}

/**
 * Ends with the first answer of a guest that starts. New questions come while older ones wait: QEMU's user network takes a connection before
 * the guest has a network, and offers it to the guest again only six seconds later.
 */
export async function firstAnswer(port: number): Promise<void> {
  const answered = new AbortController();
  while (!answered.signal.aborted) {
    const limit = AbortSignal.any([answered.signal, AbortSignal.timeout(2000)]);
    void askOnce(port, limit).then((tookMs) => Number.isFinite(tookMs) && answered.abort());
    await sleep(50, undefined, { signal: answered.signal }).catch(() => {});
  }
}
