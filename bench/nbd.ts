// Our NBD server against qemu-nbd and nbdkit: the same file, the same client (fio's nbd engine, one connection, 16 requests at once),
// a Unix socket, in turns within one run. The file is in the page cache: what is measured is the server's own cost. Throughput means
// something on a quiet machine only; the bytes served for a second of the server's CPU time mean something on a busy one too.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { open } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

export const summary =
  "reads and writes at depth 16 over a Unix socket vs qemu-nbd and nbdkit on the same file";

const rounds = Number(process.env["BENCH_NBD_ROUNDS"] ?? 3);
const seconds = Number(process.env["BENCH_NBD_SECONDS"] ?? 2);
const sizeBytes = 256 * 1024 * 1024;

const loads = [
  { key: "read1M", mode: "read", block: "1M" },
  { key: "write1M", mode: "write", block: "1M" },
  { key: "read4k", mode: "randread", block: "4k" },
  { key: "write4k", mode: "randwrite", block: "4k" },
] as const;

type Load = (typeof loads)[number];

interface Contender {
  readonly name: "ours" | "qemu-nbd" | "nbdkit";
  readonly command: (socket: string, file: string) => readonly [string, ...string[]];
}

const contenders: readonly Contender[] = [
  {
    name: "ours",
    command: (socket, file) => [
      process.execPath,
      join(import.meta.dirname, "nbd", "serve-file.ts"),
      socket,
      file,
    ],
  },
  {
    name: "qemu-nbd",
    command: (socket, file) => ["qemu-nbd", "-t", "-f", "raw", "--cache=writeback", "-k", socket, file],
  },
  { name: "nbdkit", command: (socket, file) => ["nbdkit", "-f", "-U", socket, "file", file] },
];

async function started(contender: Contender, socket: string, file: string): Promise<ChildProcess> {
  const [program, ...args] = contender.command(socket, file);
  const child = spawn(program, args, { stdio: "ignore" });
  await once(child, "spawn");
  while (!existsSync(socket)) {
    if (child.exitCode !== null) throw new Error(`${contender.name} did not come up`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  return child;
}

interface Measured {
  readonly bytesPerSecond: number;
  readonly bytesPerCpuSecond: number;
}

async function measure(socket: string, pid: number, load: Load): Promise<Measured> {
  const cpuBefore = cpuSeconds(pid);
  const how = [`--rw=${load.mode}`, `--bs=${load.block}`, "--iodepth=16", `--size=${sizeBytes}`];
  const time = ["--time_based", `--runtime=${seconds}`, "--output-format=json"];
  const uri = `--uri=nbd+unix:///?socket=${socket}`;
  const child = spawn("fio", ["--name=job", "--ioengine=nbd", uri, ...how, ...time], {
    stdio: ["ignore", "pipe", "ignore"],
  });
  let output = "";
  child.stdout.on("data", (chunk: Buffer) => (output += chunk.toString()));
  const [code] = (await once(child, "close")) as [number | null];
  if (code !== 0) throw new Error(`fio ended with ${code}`);
  const job = (
    JSON.parse(output.slice(output.indexOf("{"))) as {
      jobs: Record<string, { bw_bytes: number; io_bytes: number }>[];
    }
  ).jobs[0];
  const done = job?.[load.mode.endsWith("read") ? "read" : "write"];
  if (done === undefined) throw new Error("fio did not say what it did");
  return { bytesPerSecond: done.bw_bytes, bytesPerCpuSecond: done.io_bytes / (cpuSeconds(pid) - cpuBefore) };
}

/** Seconds of CPU time that a process has taken, all its threads together. */
function cpuSeconds(pid: number): number {
  // After the name in brackets, which may hold anything: fields 14 and 15 of proc(5), in hundredths of a second.
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8")
    .replace(/^.*\) /s, "")
    .split(" ");
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

const median = (values: readonly number[]): number =>
  [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;

export async function run(): Promise<Record<string, number>> {
  const folder = mkdtempSync(join(tmpdir(), "understudy-bench-nbd-"));
  const file = join(folder, "disk");
  const handle = await open(file, "w");
  for (let at = 0; at < sizeBytes; at += 1024 * 1024)
    await handle.write(Buffer.alloc(1024 * 1024, 1 + ((at / 1024 / 1024) % 255)));
  await handle.sync();
  await handle.close();
  const measured = new Map<string, Measured[]>();
  try {
    for (let round = 0; round < rounds; round += 1)
      for (const contender of contenders) {
        const socket = join(folder, `${contender.name}-${round}`);
        const child = await started(contender, socket, file);
        for (const load of loads) {
          const key = `${contender.name} ${load.key}`;
          measured.set(key, [...(measured.get(key) ?? []), await measure(socket, child.pid ?? 0, load)]);
        }
        child.kill("SIGKILL");
        await once(child, "exit");
      }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
  const rate = (name: Contender["name"], load: Load, unit: keyof Measured): number =>
    median((measured.get(`${name} ${load.key}`) ?? []).map((one) => one[unit]));
  const text = (value: number): string => (value / 1e6).toFixed(0);
  for (const { name } of contenders) {
    const cells = loads.map((load) => {
      const [speed, perCpu] = [rate(name, load, "bytesPerSecond"), rate(name, load, "bytesPerCpuSecond")];
      return `${load.key} ${text(speed)} MB/s (${text(perCpu)} per CPU second)`;
    });
    console.log(name.padEnd(10), cells.join("  "));
  }
  const ratios = (peer: Contender["name"], suffix: string, unit: keyof Measured): [string, number][] =>
    loads.map((load) => {
      const ratio = rate("ours", load, unit) / rate(peer, load, unit);
      return [`${load.key}${suffix}`, Number(ratio.toFixed(2))];
    });
  return Object.fromEntries([
    ...ratios("qemu-nbd", "VsQemuNbd", "bytesPerSecond"),
    ...ratios("nbdkit", "VsNbdkit", "bytesPerSecond"),
    ...ratios("qemu-nbd", "PerCpuVsQemuNbd", "bytesPerCpuSecond"),
    ...ratios("nbdkit", "PerCpuVsNbdkit", "bytesPerCpuSecond"),
  ]);
}
