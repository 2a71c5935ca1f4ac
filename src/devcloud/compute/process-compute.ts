/**
 * Servers as real processes: a server's user data (a `#!` script) runs in a process group of its own and listens on the
 * server's own loopback address. A guard, which leads the group, reads a pipe that devcloud holds open: at its end, whatever
 * ended devcloud, SIGKILL among it, the guard kills the group. A descendant that starts a session of its own escapes.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdir, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { Duplex } from "node:stream";
import type { Compute, ComputeStatus, ServerLaunch } from "#devcloud/core/compute.ts";
import type { Clock } from "#kernel/clock.ts";
import { ConsoleRing } from "./console-ring.ts";
import { MetadataService } from "./metadata-service.ts";

/**
 * fd 3: the guard's pipe. fd 5: open in the script and all it starts, so that its end tells when nothing of it runs any
 * more. TERM only sets a variable: dash's `read` returns 1 both at the end of the pipe and when a signal interrupts it.
 */
const GUARD = `
trap 't=1' TERM
"$1" 3<&- </dev/null &
exec >/dev/null 2>&1 5>&-
while t=; read -r _ <&3 || [ -n "$t" ]; do :; done
kill -KILL 0
`;

const CONSOLE_BYTES = 64 * 1024;

interface Machine {
  readonly child: ChildProcess | null;
  readonly exited: Promise<void>;
  alive: boolean;
}

export interface ProcessComputeOptions {
  /** Scripts and working directories of servers live below it. */
  readonly dataDir: string;
  readonly clock: Clock;
  /** Between SIGTERM and SIGKILL, in milliseconds. */
  readonly stopGraceMs?: number;
}

export function openProcessCompute(options: ProcessComputeOptions): Compute {
  return new ProcessCompute(options);
}

class ProcessCompute implements Compute {
  readonly reachable = true;
  readonly #options: ProcessComputeOptions;
  readonly #machines = new Map<string, Machine>();
  readonly #consoles = new Map<string, ConsoleRing>();
  readonly #metadata: MetadataService;

  constructor(options: ProcessComputeOptions) {
    this.#options = options;
    this.#metadata = new MetadataService(options.clock);
  }

  async start(server: ServerLaunch): Promise<void> {
    const log = this.#consoleOf(server.id);
    const metadataUrl = await this.#metadata.serve(server);
    const script = server.userData === null ? null : Buffer.from(server.userData, "base64");
    if (script === null || !script.subarray(0, 2).equals(Buffer.from("#!"))) {
      if (script !== null) log.line("user data is not a script (it does not begin with #!): nothing runs");
      this.#machines.set(server.id, { child: null, exited: Promise.resolve(), alive: true });
      return;
    }
    const directory = this.#directory(server.id);
    await mkdir(directory, { recursive: true, mode: 0o700 });
    const path = join(directory, "user-data");
    await writeFile(path, script, { mode: 0o700 });
    const child = spawn("/bin/sh", ["-c", GUARD, "devcloud-guard", path], {
      cwd: directory,
      detached: true,
      env: environmentOf(server, directory, metadataUrl),
      stdio: ["ignore", "pipe", "pipe", "pipe", "ignore", "pipe"],
    });
    const [, output, errors, guard, , life] = child.stdio as (Duplex | null)[];
    const machine: Machine = {
      child,
      alive: true,
      exited: new Promise((resolve) => {
        child.once("exit", () => resolve());
        child.once("error", () => resolve());
      }),
    };
    output?.on("data", (chunk: Buffer) => log.write(chunk));
    errors?.on("data", (chunk: Buffer) => log.write(chunk));
    // The guard may be gone when its pipe is closed.
    guard?.on("error", () => {});
    life?.resume().once("close", () => {
      if (machine.alive) log.line("user data ended: nothing of it runs any more");
      machine.alive = false;
    });
    await new Promise<void>((resolve, reject) => {
      child.once("spawn", resolve);
      child.once("error", reject);
    });
    log.line(`boot of ${server.id} at ${server.address}`);
    this.#machines.set(server.id, machine);
  }

  async stop(id: string): Promise<void> {
    this.#metadata.withdraw(id);
    const machine = this.#machines.get(id);
    if (machine === undefined) return;
    this.#machines.delete(id);
    const child = machine.child;
    if (child?.pid === undefined) return;
    const group = -child.pid;
    const over = new AbortController();
    const gone = new Promise<void>((resolve) => {
      const [, , , , , life] = child.stdio as readonly (Duplex | null)[];
      if (!machine.alive || !life) resolve();
      else life.once("close", resolve);
    });
    if (machine.alive) signal(group, "SIGTERM");
    const grace = this.#options.clock.sleep(this.#options.stopGraceMs ?? 5000, over.signal).catch(() => {});
    await Promise.race([gone, grace]);
    over.abort();
    machine.alive = false;
    signal(group, "SIGKILL");
    await machine.exited;
  }

  status(id: string): ComputeStatus {
    const machine = this.#machines.get(id);
    if (machine === undefined) return "absent";
    return machine.alive ? "running" : "exited";
  }

  console(id: string): Buffer {
    return this.#consoles.get(id)?.read() ?? Buffer.alloc(0);
  }

  async forget(id: string): Promise<void> {
    this.#consoles.delete(id);
    await rm(this.#directory(id), { recursive: true, force: true });
  }

  refresh(server: ServerLaunch): void {
    this.#metadata.update(server);
  }

  async close(): Promise<void> {
    await Promise.all(Array.from(this.#machines.keys(), (id) => this.stop(id)));
    this.#metadata.close();
  }

  #directory(id: string): string {
    return join(this.#options.dataDir, "servers", id);
  }

  #consoleOf(id: string): ConsoleRing {
    let ring = this.#consoles.get(id);
    if (ring === undefined) this.#consoles.set(id, (ring = new ConsoleRing(CONSOLE_BYTES)));
    return ring;
  }
}

/** Nothing of our own environment but the way to programs: it may hold secrets. */
function environmentOf(server: ServerLaunch, home: string, metadataUrl: string): Record<string, string> {
  return {
    // `#!/usr/bin/env node` finds the node that runs this.
    PATH: `${dirname(process.execPath)}:${process.env["PATH"] ?? "/usr/bin:/bin"}`,
    HOME: home,
    LANG: "C.UTF-8",
    SERVER_ADDRESS: server.address,
    SERVER_ID: server.id,
    SERVER_NAME: server.name,
    TAGS: JSON.stringify(server.tags),
    AWS_EC2_METADATA_SERVICE_ENDPOINT: metadataUrl,
  };
}

function signal(group: number, name: "SIGTERM" | "SIGKILL"): void {
  try {
    process.kill(group, name);
  } catch (error) {
    // ESRCH: the group is gone already, which is what was wanted.
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
}
