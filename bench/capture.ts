// What capture costs a writer. The disk is a raw file behind qemu-storage-daemon, which is QEMU's block layer without a guest; fio writes to it over
// NBD, with the page cache out of the way (`cache=none`), once plain and once with QEMU's mirror in write-blocking mode to our write
// log, in turns. Then disk and log are compared, byte for byte. Disk, log and store share one physical disk here.
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { open } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { promisify } from "node:util";
import { connectQmp, type QmpClient } from "#hypervisor/qmp-client.ts";
import { systemClock } from "#kernel/clock.ts";
import { silentLog } from "#kernel/log.ts";
import { systemRandom } from "#kernel/random.ts";
import { openNbdClient } from "#nbd/nbd-client.ts";

export const summary = "writes at 20 MB/s and flat out, with capture and without; lag and loss";

const rounds = Number(process.env["BENCH_CAPTURE_ROUNDS"] ?? 3);
const seconds = Number(process.env["BENCH_CAPTURE_SECONDS"] ?? 8);
const sizeBytes = 512 * 1024 * 1024;
const execute = promisify(execFile);

const loads = {
  steady: ["--bs=16k", "--rw=randwrite", "--iodepth=8", "--rate=20m"],
  flatOut: ["--bs=64k", "--rw=randwrite", "--iodepth=16"],
} as const;

interface Report {
  readonly writes: number;
  readonly lagP50Ms: number;
  readonly lagP99Ms: number;
  readonly lagMaxMs: number;
  readonly unshippedMs: number;
  readonly unshippedP99Ms: number;
  readonly mostRssMb: number;
  readonly mostQueuedMb: number;
}

async function appears(path: string, child: ChildProcess): Promise<void> {
  while (!existsSync(path)) {
    if (child.exitCode !== null) throw new Error(`${path} did not come up`);
    await new Promise((resolve) => void setTimeout(resolve, 10));
  }
}

/** What an earlier run left to be written back must not be this one's burden. */
async function drain(folder: string): Promise<void> {
  await using disk = await open(join(folder, "disk.raw"), "r+");
  await disk.sync();
}

/** MB/s. */
async function write(folder: string, load: readonly string[]): Promise<number> {
  await drain(folder);
  const { stdout } = await execute("fio", [
    "--name=w",
    "--ioengine=nbd",
    `--uri=nbd+unix:///disk?socket=${join(folder, "guest.sock")}`,
    `--size=${sizeBytes}`,
    "--time_based",
    `--runtime=${seconds}`,
    "--refill_buffers",
    "--output-format=json",
    ...load,
  ]);
  const { jobs } = JSON.parse(stdout.slice(stdout.indexOf("{"))) as {
    jobs: { write: { bw_bytes: number } }[];
  };
  return (jobs[0]?.write.bw_bytes ?? 0) / 1e6;
}

async function beginCapture(qmp: QmpClient, socket: string): Promise<void> {
  const server = { type: "unix", path: socket };
  await qmp.execute("blockdev-add", { driver: "nbd", "node-name": "target", server, export: "disk" });
  await qmp.execute("blockdev-mirror", {
    "job-id": "capture",
    device: "disk",
    target: "target",
    sync: "full",
    "copy-mode": "write-blocking",
  });
  for (;;) {
    const jobs = (await qmp.execute("query-block-jobs", {})) as { ready: boolean }[];
    if (jobs[0]?.ready === true) return;
    if (jobs.length === 0) throw new Error("the capture ended by itself");
    await new Promise((resolve) => void setTimeout(resolve, 50));
  }
}

async function endCapture(qmp: QmpClient): Promise<void> {
  await qmp.execute("block-job-cancel", { device: "capture" });
  while (((await qmp.execute("query-block-jobs", {})) as unknown[]).length > 0)
    await new Promise((resolve) => void setTimeout(resolve, 50));
  await qmp.execute("blockdev-del", { "node-name": "target" });
}

/** 4 KiB blocks that the log has otherwise than the disk. */
async function countLost(folder: string): Promise<number> {
  const address = { kind: "unix", path: join(folder, "vault.sock") } as const;
  const common = { clock: systemClock, random: systemRandom, log: silentLog };
  await using captured = await openNbdClient({ address, exportName: "disk", ...common });
  await using disk = await open(join(folder, "disk.raw"), "r");
  const part = Buffer.alloc(1024 * 1024);
  let lost = 0;
  for (let at = 0; at < sizeBytes; at += part.length) {
    await disk.read(part, 0, part.length, at);
    const got = await captured.read(at, part.length);
    if (got.equals(part)) continue;
    for (let block = 0; block < part.length; block += 4096)
      if (part.compare(got, block, block + 4096, block, block + 4096) !== 0) lost += 1;
  }
  return lost;
}

const median = (values: readonly number[]): number =>
  values.toSorted((a, b) => a - b)[values.length >> 1] ?? 0;

async function startVault(folder: string): Promise<{
  child: ChildProcess;
  report: () => Promise<Report>;
  settled: () => Promise<void>;
}> {
  const child = spawn(
    process.execPath,
    [
      join(import.meta.dirname, "capture", "capture-server.ts"),
      folder,
      join(folder, "vault.sock"),
      String(sizeBytes),
    ],
    { stdio: ["pipe", "pipe", "inherit"] },
  );
  const { stdin, stdout } = child;
  const lines = createInterface({ input: stdout })[Symbol.asyncIterator]();
  await lines.next();
  const report = async (): Promise<Report> => {
    stdin.write("report\n");
    return JSON.parse((await lines.next()).value as string) as Report;
  };
  // The first copy is in the store before anything is measured.
  const settled = async (): Promise<void> => {
    while ((await report()).unshippedMs > 0) await new Promise((resolve) => void setTimeout(resolve, 100));
  };
  return { child, report, settled };
}

async function startDisk(folder: string): Promise<{ child: ChildProcess; qmp: QmpClient }> {
  const file = await open(join(folder, "disk.raw"), "w");
  for (let at = 0; at < sizeBytes; at += 1024 * 1024) await file.write(Buffer.alloc(1024 * 1024, 1));
  await file.close();
  const [guest, monitor] = [join(folder, "guest.sock"), join(folder, "qmp.sock")];
  const child = spawn(
    "qemu-storage-daemon",
    [
      ["--chardev", `socket,id=c,path=${monitor},server=on,wait=off`],
      ["--monitor", "chardev=c"],
      ["--blockdev", `driver=file,node-name=disk,cache.direct=on,filename=${join(folder, "disk.raw")}`],
      ["--nbd-server", `addr.type=unix,addr.path=${guest}`],
      ["--export", "type=nbd,id=guest,node-name=disk,name=disk,writable=on"],
    ].flat(),
    { stdio: "inherit" },
  );
  await appears(guest, child);
  await appears(monitor, child);
  return { child, qmp: await connectQmp(monitor) };
}

export async function run(): Promise<Record<string, number | string>> {
  const folder = mkdtempSync(join(tmpdir(), "bench-capture-"));
  const vault = await startVault(folder);
  const disk = await startDisk(folder);
  const rates = {
    steady: { off: [] as number[], on: [] as number[] },
    flatOut: { off: [] as number[], on: [] as number[] },
  };
  const reports = { steady: [] as Report[], flatOut: [] as Report[] };
  let lost = 0;
  try {
    for (let round = 0; round < rounds; round += 1)
      for (const name of ["steady", "flatOut"] as const) {
        rates[name].off.push(await write(folder, loads[name]));
        await beginCapture(disk.qmp, join(folder, "vault.sock"));
        await vault.settled();
        await vault.report();
        rates[name].on.push(await write(folder, loads[name]));
        reports[name].push(await vault.report());
        lost += await countLost(folder);
        await endCapture(disk.qmp);
        console.log(
          name,
          rates[name].off.at(-1)?.toFixed(1),
          "->",
          rates[name].on.at(-1)?.toFixed(1),
          "MB/s",
          JSON.stringify(reports[name].at(-1)),
        );
      }
  } finally {
    disk.child.kill();
    vault.child.stdin?.write("quit\n");
    for (const child of [disk.child, vault.child]) if (child.exitCode === null) await once(child, "exit");
    rmSync(folder, { recursive: true, force: true });
  }
  const ratio = (name: "steady" | "flatOut"): number =>
    Number((median(rates[name].on) / median(rates[name].off)).toFixed(3));
  const worst = (pick: (report: Report) => number, of: readonly Report[]): number =>
    Number(Math.max(...of.map(pick)).toFixed(1));
  const all = [...reports.steady, ...reports.flatOut];
  return {
    steadyVsOff: ratio("steady"),
    flatOutVsOff: ratio("flatOut"),
    lagP99Ms: worst(({ lagP99Ms }) => lagP99Ms, reports.steady),
    flatOutLagP99Ms: worst(({ lagP99Ms }) => lagP99Ms, reports.flatOut),
    unshippedP99Ms: worst(({ unshippedP99Ms }) => unshippedP99Ms, reports.steady),
    mostRssMb: worst(({ mostRssMb }) => mostRssMb, all),
    lostWrites: lost,
  };
}
