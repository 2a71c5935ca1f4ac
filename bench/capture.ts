// What capture costs a guest that writes. A real guest (QEMU) under the host agent, whose disk is captured as the product does it: mirror,
// bitmap and watchdog of the agent, into the vault's desk, a process of its own. The guest writes with O_DIRECT from several processes, once
// held to 20 MB/s by QEMU and once as fast as it can, with capture off and on in turns. Then its disk and the desk's last moment are
// compared. Guest, disk, log and store share one machine and one physical disk here.
import { execFile } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { open } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { readGuestImage } from "#hypervisor/guest/build-guest-image.ts";
import type { Machine } from "#hypervisor/machine.ts";
import { type HypervisorHost, openHost } from "#hypervisor/open-host.ts";
import { systemClock } from "#kernel/clock.ts";
import { silentLog } from "#kernel/log.ts";
import { systemRandom } from "#kernel/random.ts";
import { openNbdClient } from "#nbd/nbd-client.ts";
import { parseNbdUri } from "#wire/nbd/nbd-uri.ts";
import { Desk, noLimit } from "./desk/desk.ts";

export const summary = "a guest's writes at 20 MB/s and flat out, with capture and without; lag and loss";

const rounds = Number(process.env["BENCH_CAPTURE_ROUNDS"] ?? 3);
const seconds = Number(process.env["BENCH_CAPTURE_SECONDS"] ?? 8);
const sizeBytes = 256 * 1024 * 1024;
const execute = promisify(execFile);

/** Bytes of one write, how many are under way, and what QEMU holds them to (0: nothing). */
const loads = {
  steady: { blockKiB: 16, writers: 8, bytesPerSecond: 20_000_000 },
  flatOut: { blockKiB: 64, writers: 8, bytesPerSecond: 0 },
} as const;
type Load = keyof typeof loads;

/** Each writer walks its own part of the disk over and over, and each time with other content. */
function userData({ blockKiB, writers }: (typeof loads)[Load]): string {
  const part = sizeBytes / 1024 / blockKiB / writers;
  return `#!/bin/sh
disk=$(disk-of data)
dd if=/dev/urandom of=/tmp/random bs=1M count=8
writer() {
  skip=0
  while :; do
    for at in 0 1 2 3 4 5 6 7; do
      dd if=/tmp/random of="$disk" bs=${blockKiB}k skip=$skip seek=$(($1 * ${part} + at * ${part / 8})) count=${part / 8} conv=notrunc oflag=direct 2>/dev/null
    done
    skip=$(((skip + 1) % 32))
  done
}
for number in ${Array.from({ length: writers }, (_, number) => number).join(" ")}; do writer $number & done
echo writing
wait
`;
}

interface Written {
  readonly bytes: number;
  readonly histogram: readonly number[];
}

/** Upper bounds of the histogram's bins, in milliseconds. */
const boundsMs = [0.25, 0.5, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512, 1000, 2000];

interface BlockStats {
  readonly qdev?: string;
  readonly stats: {
    readonly wr_bytes: number;
    readonly wr_latency_histogram?: { readonly bins: readonly number[] };
  };
}

/** As the guest sees it: below its device and above everything of ours. */
async function statsOf(machine: Machine): Promise<{ readonly device: string; readonly written: Written }> {
  const all = (await machine.execute("query-blockstats")) as unknown as readonly BlockStats[];
  const [found] = all
    .filter(({ qdev }) => qdev !== undefined)
    .toSorted((a, b) => b.stats.wr_bytes - a.stats.wr_bytes);
  if (found?.qdev === undefined) throw new Error("the guest has no disk");
  const { wr_bytes: bytes, wr_latency_histogram: latencies } = found.stats;
  return { device: found.qdev, written: { bytes, histogram: latencies?.bins ?? [] } };
}

/** MB/s over the time, and how long the writes took that began in it. */
async function measure(
  machine: Machine,
): Promise<{ readonly rate: number; readonly histogram: readonly number[] }> {
  const { device } = await statsOf(machine);
  const boundaries = boundsMs.map((bound) => bound * 1e6);
  await machine.execute("block-latency-histogram-set", { id: device, "boundaries-write": boundaries });
  const before = (await statsOf(machine)).written;
  const began = performance.now();
  await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  const after = (await statsOf(machine)).written;
  const rate = (after.bytes - before.bytes) / 1e3 / (performance.now() - began);
  return { rate, histogram: after.histogram };
}

/** The bound of the bin in which it lies. */
function percentile(histogram: readonly number[], part: number): number {
  const total = histogram.reduce((sum, count) => sum + count, 0);
  let seen = 0;
  for (const [at, count] of histogram.entries()) {
    seen += count;
    if (seen >= total * part) return boundsMs[at] ?? Number.POSITIVE_INFINITY;
  }
  return Number.NaN;
}

async function startGuest(host: HypervisorHost, load: Load): Promise<Machine> {
  const image = await readGuestImage();
  if (image === null) throw new Error("the guest image is missing: script/guest-image");
  const { kernelPath, initrdPath } = image;
  const { bytesPerSecond } = loads[load];
  const machine = await host.create({
    id: load.toLowerCase(),
    memoryMiB: 192,
    cpus: 1,
    boot: { kind: "kernel", kernelPath, initrdPath },
    disks: [{ id: "data", content: { kind: "blank", sizeBytes }, bytesPerSecond }],
    ready: { consoleLine: "writing", withinMs: 120_000 },
    userData: userData(loads[load]),
  });
  await machine.start(noLimit);
  return machine;
}

/** 4 KiB blocks that the last moment has otherwise than the disk of a guest that stands still. */
async function countLost(desk: Desk, machine: Machine, volume: string, folder: string): Promise<number> {
  const copy = join(folder, "disk.raw");
  const disk = join(machine.folder, "disk-data.qcow2");
  await execute("qemu-img", ["convert", "-U", "-f", "qcow2", "-O", "raw", disk, copy]);
  const { address, exportName } = parseNbdUri((await desk.serve(volume, await desk.lastMoment())).uri);
  await using captured = await openNbdClient({
    address,
    exportName,
    clock: systemClock,
    random: systemRandom,
    log: silentLog,
  });
  await using file = await open(copy, "r");
  const part = Buffer.alloc(1024 * 1024);
  let lost = 0;
  for (let at = 0; at < sizeBytes; at += part.length) {
    await file.read(part, 0, part.length, at);
    const got = await captured.read(at, part.length);
    if (got.equals(part)) continue;
    for (let block = 0; block < part.length; block += 4096)
      if (part.compare(got, block, block + 4096, block, block + 4096) !== 0) lost += 1;
  }
  rmSync(copy);
  return lost;
}

interface Taken {
  readonly off: number[];
  readonly on: number[];
  readonly lagP99Ms: number[];
  readonly shipLagMs: number[];
}

/** With capture off and on in turns; at the end of each turn the guest stands still, and disk and moment are compared. */
async function measureLoad(
  host: HypervisorHost,
  desk: Desk,
  load: Load,
  folder: string,
): Promise<{ taken: Taken; lost: number }> {
  const machine = await startGuest(host, load);
  const taken: Taken = { off: [], on: [], lagP99Ms: [], shipLagMs: [] };
  let lost = 0;
  const disks = host.disksOf(load.toLowerCase());
  const { location } = await desk.protect(load, sizeBytes);
  for (let round = 0; round < rounds; round += 1) {
    taken.off.push((await measure(machine)).rate);
    const capture = await disks.startCapture("data", { target: location });
    await capture.reached("continuous", AbortSignal.timeout(120_000));
    await desk.markWhole(load);
    const { rate, histogram } = await measure(machine);
    taken.on.push(rate);
    taken.lagP99Ms.push(percentile(histogram, 0.99));
    taken.shipLagMs.push((await desk.status())?.shipLagMs ?? Number.NaN);
    await machine.pause();
    const { state, lastInterruption } = capture.status;
    if (state !== "continuous") throw new Error(`the capture is ${state}: ${lastInterruption ?? ""}`);
    lost += await countLost(desk, machine, load, folder);
    await machine.resume();
    await disks.stopCapture("data");
    console.log(
      `${load} ${taken.off.at(-1)?.toFixed(1)} -> ${rate.toFixed(1)} MB/s, a write took p50 ${percentile(histogram, 0.5)} ms, p99 ${taken.lagP99Ms.at(-1)} ms`,
    );
  }
  await host.destroy(load.toLowerCase());
  return { taken, lost };
}

const median = (values: readonly number[]): number =>
  values.toSorted((a, b) => a - b)[values.length >> 1] ?? Number.NaN;

export async function run(): Promise<Record<string, number | string>> {
  const folder = mkdtempSync(join(tmpdir(), "bench-capture-"));
  const host = await openHost({ folder: join(folder, "host"), accelerator: "tcg" });
  const desk = await Desk.start(folder);
  try {
    const steady = await measureLoad(host, desk, "steady", folder);
    const flatOut = await measureLoad(host, desk, "flatOut", folder);
    const ratio = ({ on, off }: Taken): number => Number((median(on) / median(off)).toFixed(3));
    return {
      steadyVsOff: ratio(steady.taken),
      flatOutVsOff: ratio(flatOut.taken),
      lagP99Ms: Math.max(...steady.taken.lagP99Ms),
      flatOutLagP99Ms: Math.max(...flatOut.taken.lagP99Ms),
      shipLagMs: Math.max(...steady.taken.shipLagMs),
      deskRssMiB: Math.round(desk.mostResidentMiB()),
      lostWrites: steady.lost + flatOut.lost,
    };
  } finally {
    await Promise.all(host.list().map(({ id }) => host.destroy(id)));
    await host[Symbol.asyncDispose]();
    await desk[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true, force: true });
  }
}
