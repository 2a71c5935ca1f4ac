// What the gateway costs: the same load through it, through a bare Node proxy and through nginx, to the same upstream.
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { LoadCommand, LoadResult } from "./gateway/load.ts";
import { freePort } from "../demo/free-ports.ts";

const rounds = Number(process.env["BENCH_ROUNDS"] ?? 10);
const roundMs = Number(process.env["BENCH_ROUND_MS"] ?? 1_000);
const warmUp = Number(process.env["BENCH_WARM_UP"] ?? 20_000);

interface Child {
  readonly process: ChildProcess;
  ready(): Promise<Record<string, unknown>>;
}

function child(script: string, args: readonly string[], flags: readonly string[] = []): Child {
  const path = new URL(`./gateway/${script}`, import.meta.url).pathname;
  const started = spawn(process.execPath, [...flags, path, ...args], { stdio: ["pipe", "pipe", "inherit"] });
  const lines = createInterface({ input: started.stdout })[Symbol.asyncIterator]();
  return {
    process: started,
    async ready() {
      const line = await lines.next();
      if (line.done === true) throw new Error(`${script} ended early`);
      return JSON.parse(line.value) as Record<string, unknown>;
    },
  };
}

async function stop(process: ChildProcess): Promise<void> {
  if (process.exitCode !== null || process.signalCode !== null) return;
  const gone = once(process, "exit");
  process.kill("SIGTERM");
  await gone;
}

async function startNginx(
  folder: string,
  upstream: number,
): Promise<{ process: ChildProcess; port: number } | undefined> {
  const found = spawnSync("nginx", ["-v"]);
  if (found.error !== undefined) {
    if (process.env["UNDERSTUDY_STRICT"] === "1")
      throw new Error("nginx is not installed (Debian: nginx-light)");
    console.error("nginx is not installed (Debian: nginx-light): that peer is left out");
    return undefined;
  }
  const port = await freePort();
  const config = join(folder, "nginx.conf");
  writeFileSync(
    config,
    `worker_processes 1; daemon off; pid ${folder}/nginx.pid; error_log stderr crit;
events { worker_connections 1024; }
http { access_log off; client_body_temp_path ${folder}/b; proxy_temp_path ${folder}/p; fastcgi_temp_path ${folder}/f; uwsgi_temp_path ${folder}/u; scgi_temp_path ${folder}/s;
  keepalive_requests 1000000;
  upstream cloud { server 127.0.0.1:${upstream}; keepalive 64; keepalive_requests 1000000; }
  server { listen 127.0.0.1:${port}; location / { proxy_pass http://cloud; proxy_http_version 1.1; proxy_set_header Connection ""; } } }
`,
  );
  const started = spawn("nginx", ["-p", folder, "-c", config], { stdio: ["ignore", "ignore", "inherit"] });
  for (let tries = 0; !existsSync(join(folder, "nginx.pid")); tries += 1) {
    if (tries > 100 || started.exitCode !== null) throw new Error("nginx did not start");
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return { process: started, port };
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}

function residentMiB(pid: number | undefined): number {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  return Number(/VmRSS:\s+(\d+)/.exec(status)?.[1] ?? Number.NaN) / 1024;
}

/** User and system time of a process and, for nginx, of its workers, in microseconds (proc_pid_stat(5); Linux counts in 1/100 s). */
function cpuMicros(pid: number | undefined): number {
  if (pid === undefined) return Number.NaN;
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ") ?? [];
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim();
  const own = (Number(fields[11]) + Number(fields[12])) * 10_000;
  return children.split(" ").reduce((sum, child) => sum + (child === "" ? 0 : cpuMicros(Number(child))), own);
}

const round2 = (value: number): number => Math.round(value * 100) / 100;

export async function run(): Promise<Record<string, number | string>> {
  const folder = mkdtempSync(join(process.env["UNDERSTUDY_BENCH_DIR"] ?? tmpdir(), "understudy-bench-"));
  const processes: ChildProcess[] = [];
  const start = (script: string, args: readonly string[] = [], flags: readonly string[] = []): Child => {
    const started = child(script, args, flags);
    processes.push(started.process);
    return started;
  };
  try {
    const upstream = start("upstream.ts");
    const upstreamPort = (await upstream.ready())["port"] as number;
    const endpoint = `http://127.0.0.1:${upstreamPort}`;
    const bareProxy = start("bare-proxy.ts", [endpoint]);
    const bare = (await bareProxy.ready())["port"] as number;
    const profile = process.env["BENCH_CPU_PROF"];
    // As the product runs.
    const flags = readFileSync(new URL("../bin/node-flags", import.meta.url), "utf8")
      .trim()
      .split(" ");
    const gateway = start(
      "gateway-process.ts",
      [endpoint, folder],
      profile === undefined ? flags : [...flags, "--cpu-prof", `--cpu-prof-dir=${profile}`],
    );
    const ours = await gateway.ready();
    const key = { id: String(ours["id"]), secret: String(ours["secret"]) };
    const nginx = await startNginx(folder, upstreamPort);
    if (nginx !== undefined) processes.push(nginx.process);
    const load = start("load.ts");
    const ports = { direct: upstreamPort, bare, gateway: ours["port"] as number, nginx: nginx?.port };
    const measured = {
      direct: upstream.process,
      bare: bareProxy.process,
      gateway: gateway.process,
      nginx: nginx?.process,
    };
    const measure = async (
      to: keyof typeof ports,
      command: Pick<LoadCommand, "kind" | "action"> & Partial<LoadCommand>,
    ): Promise<Measured | undefined> => {
      const port = ports[to];
      if (port === undefined) return undefined;
      const full: LoadCommand = {
        connections: 32,
        milliseconds: roundMs,
        atLeast: 0,
        rate: 1_000,
        port,
        key,
        ...command,
      };
      const before = cpuMicros(measured[to]?.pid);
      load.process.stdin?.write(`${JSON.stringify(full)}\n`);
      const result = (await load.ready()) as unknown as LoadResult;
      return { ...result, cpuMicros: (cpuMicros(measured[to]?.pid) - before) / result.count };
    };
    return await compare(measure, () => residentMiB(gateway.process.pid));
  } finally {
    await Promise.all(processes.map(stop));
    rmSync(folder, { recursive: true });
  }
}

/** With the CPU time that the contender itself took for a request. */
type Measured = LoadResult & { readonly cpuMicros: number };
type Peer = "direct" | "bare" | "gateway" | "nginx";
type Measure = (
  to: Peer,
  command: Pick<LoadCommand, "kind" | "action"> & Partial<LoadCommand>,
) => Promise<Measured | undefined>;

/** For work on the gateway itself: `BENCH_ONLY=changes,bare,gateway`. */
const only = process.env["BENCH_ONLY"]?.split(",");
const peers = ["direct", "bare", "gateway", "nginx"] as const satisfies readonly Peer[];
const works = {
  changes: { kind: "closed", action: "RunInstances" },
  reads: { kind: "closed", action: "DescribeInstances" },
  paced: { kind: "open", action: "RunInstances" },
} as const;

/** Peers take turns in every round, so that what else the machine does falls on all of them. */
async function compare(measure: Measure, resident: () => number): Promise<Record<string, number | string>> {
  const seen = new Map<string, Measured[]>();
  for (let round = -1; round < rounds; round += 1) {
    for (const [name, command] of Object.entries(works)) {
      if (only !== undefined && !only.includes(name)) continue;
      for (const peer of peers) {
        if (only !== undefined && !only.includes(peer)) continue;
        // The first round only warms up, each by the same number of requests: less has not been compiled to its end.
        const result = await measure(peer, round < 0 ? { ...command, atLeast: warmUp } : command);
        if (result !== undefined && round >= 0) {
          seen.set(`${name} ${peer}`, [...(seen.get(`${name} ${peer}`) ?? []), result]);
        }
      }
    }
  }
  for (const [name, results] of seen) {
    const show = (of: (result: Measured) => number): string => round2(median(results.map(of))).toFixed(2);
    console.log(
      `${name.padEnd(18)} ${show((r) => r.perSecond).padStart(10)}/s  p50 ${show((r) => r.p50Ms).padStart(7)} ms  p99 ${show((r) => r.p99Ms).padStart(7)} ms  cpu ${show((r) => r.cpuMicros).padStart(7)} us`,
    );
  }
  const ratio = (work: string, peer: Peer): number | string => {
    const theirs = seen.get(`${work} ${peer}`);
    if (theirs === undefined) return "no peer";
    const ours = seen.get(`${work} gateway`) ?? [];
    return round2(median(ours.map((one, at) => one.perSecond / (theirs[at]?.perSecond ?? Number.NaN))));
  };
  const added = (over: Peer, of: (result: LoadResult) => number): number => {
    const theirs = seen.get(`paced ${over}`) ?? [];
    const ours = seen.get(`paced gateway`) ?? [];
    return round2(median(ours.map((one, at) => of(one) - of(theirs[at] ?? one))));
  };
  const before = resident();
  const slow = await measure("gateway", { kind: "slow", action: "DescribeInstances" });
  console.log(
    `resident: ${Math.round(before)} MiB before, ${Math.round(resident())} MiB after 32 slow readers of ${Math.round((slow?.bytes ?? 0) / 1024 / 1024)} MiB at once`,
  );
  return {
    throughputVsBareProxy: ratio("changes", "bare"),
    throughputVsNginx: ratio("changes", "nginx"),
    readsVsBareProxy: ratio("reads", "bare"),
    addedP50Ms: added("bare", (result) => result.p50Ms),
    addedP99Ms: added("bare", (result) => result.p99Ms),
    addedOverDirectP50Ms: added("direct", (result) => result.p50Ms),
    addedOverDirectP99Ms: added("direct", (result) => result.p99Ms),
    rssMiB: Math.round(resident()),
  };
}
