/** A vault's process with an intake, an agent's process, and the network between them: all real, and all can be killed. */
import { execFileSync, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { TestContext } from "node:test";
import { agentMethods, agentSocketIn, type AgentStatus } from "#agent/agent-status.ts";
import { endLeftTrace } from "#agent/trace-instance.ts";
import { systemClock } from "#kernel/clock.ts";
import { silentLog } from "#kernel/log.ts";
import { systemRandom } from "#kernel/random.ts";
import { openNbdClient } from "#nbd/nbd-client.ts";
import { connectDesk } from "#recovery/desk/serve-desk.ts";
import type { DiskMoment } from "#recovery/disk-mover.ts";
import type { VaultDesk } from "#recovery/vault-desk.ts";
import { LocalApiClient } from "#wire/local-api/local-api-client.ts";
import { parseNbdUri } from "#wire/nbd/nbd-uri.ts";
import { undo } from "./undo.ts";
import { freePort } from "../../../demo/free-ports.ts";

const program = join(import.meta.dirname, "..", "..", "..", "bin", "understudy");
const { signal } = new AbortController();

export const group = "shop";

export interface StageOptions {
  /** Agents and their volumes. The first one's configuration is written. */
  readonly agents: Readonly<Record<string, readonly string[]>>;
  /** Of the first agent. */
  readonly disks: readonly { readonly volume: string; readonly path: string; readonly snapshot?: string }[];
  /** Lines of the agent's YAML. */
  readonly agentLines?: string;
  /** Lines within `agents:` of the vault's, each with four spaces. */
  readonly intakeLines?: string;
}

export class AgentStage {
  readonly folder: string;
  /** Between the agent and the vault. */
  readonly network: Network;
  /** The agent's state. */
  agentFolder: string;
  readonly #names: readonly string[];
  #vault: Process | undefined;
  #agent: Process | undefined;

  private constructor(folder: string, network: Network, names: readonly string[]) {
    this.folder = folder;
    this.agentFolder = join(folder, "agent");
    this.network = network;
    this.#names = names;
  }

  static async open(
    t: TestContext,
    { agents, disks, agentLines = "", intakeLines = "" }: StageOptions,
  ): Promise<AgentStage> {
    const folder = mkdtempSync(join(tmpdir(), "understudy-agent-"));
    const port = await freePort();
    const network = await Network.open(port);
    const names = Object.keys(agents);
    const stage = new AgentStage(folder, network, names);
    undo(t, async () => {
      await stage.#agent?.end("SIGKILL");
      await stage.#vault?.end("SIGKILL");
      await network[Symbol.asyncDispose]();
      if (existsSync(stage.agentFolder)) await endLeftTrace(stage.agentFolder);
      rmSync(folder, { recursive: true, force: true });
    });
    const at = (name: string): string => join(folder, name);
    const subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"];
    const made = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    const files = ["-keyout", at("cert-key.pem"), "-out", at("cert.pem"), "-days", "2"];
    execFileSync("openssl", ["req", "-x509", ...made, ...files, ...subject], { stdio: "ignore" });
    writeFileSync(at("phrase"), "correct horse battery staple\n", { mode: 0o600 });
    for (const name of names) writeFileSync(at(`${name}.key`), systemRandom.hex(32), { mode: 0o600 });
    const keys = Object.entries(agents).map(
      ([name, volumes]) =>
        `      ${name}: {key: {file: ./${name}.key}, environment: ${group}, volumes: [${volumes.join(", ")}]}\n`,
    );
    writeFileSync(
      at("understudy.yaml"),
      `version: 1
vault:
  store: {folder: ./store}
  passphrase: {file: ./phrase}
  data: ./vd
  foldEvery: 2s
  agents:
    listen: 127.0.0.1:${port}
    certificate: ./cert.pem
    certificateKey: {file: ./cert-key.pem}
${intakeLines}    keys:
${keys.join("")}sites: {}
environments: {}
`,
    );
    const own = names[0] ?? "";
    writeFileSync(
      at("understudy-agent.yaml"),
      `version: 1
state: ./agent
vault: {url: "https://localhost:${network.port}", key: {file: ./${own}.key}, ca: ./cert.pem}
disks: ${JSON.stringify(disks)}
${agentLines}`,
    );
    execFileSync(program, ["vault", "init"], { cwd: folder, stdio: "ignore" });
    return stage;
  }

  /** Of an agent, as the vault knows it. */
  keyOf(name: string): string {
    return readFileSync(join(this.folder, `${name}.key`), "utf8");
  }

  get agentNames(): readonly string[] {
    return this.#names;
  }

  async startVault(): Promise<void> {
    this.#vault = await Process.start(this.folder, ["vault", "serve", "--json"]);
  }

  async killVault(): Promise<void> {
    await this.#vault?.end("SIGKILL");
  }

  async startAgent(): Promise<void> {
    this.#agent = await Process.start(this.folder, ["agent", "run", "--json"]);
  }

  /** Its exit code, when it ends by itself. */
  get agentEnd(): Promise<{ readonly code: number | null; readonly errors: string }> {
    if (this.#agent === undefined) throw new Error("the agent was not started");
    return this.#agent.ended;
  }

  async killAgent(): Promise<void> {
    await this.#agent?.end("SIGKILL");
  }

  async stopAgent(): Promise<void> {
    await this.#agent?.end("SIGTERM");
  }

  /** Undefined: it does not answer now. */
  async agentStatus(): Promise<AgentStatus | undefined> {
    await using client = new LocalApiClient({
      place: { socketPath: agentSocketIn(this.agentFolder) },
      methods: agentMethods,
      unreachable: "api.unreachable",
      peer: "the agent",
    });
    return await client.call("status", {}, signal).catch(() => undefined);
  }

  /** Waits until the agent says so; answers what it said. */
  async agentUntil(what: string, isSo: (status: AgentStatus) => boolean): Promise<AgentStatus> {
    let last: AgentStatus | undefined;
    const said = until(what, async () => {
      last = await this.agentStatus();
      return last !== undefined && isSo(last) ? last : undefined;
    });
    return await said.catch((error: unknown) => {
      throw new Error(`the agent says ${JSON.stringify(last) ?? "nothing"}; ${this.#agent?.errors ?? ""}`, {
        cause: error,
      });
    });
  }

  /** A pass that began after now has become a moment. */
  async nextPoint(): Promise<NonNullable<AgentStatus["point"]>> {
    const from = Date.now();
    const isNew = ({ point }: AgentStatus): boolean => (point?.instantMs ?? 0) > from;
    const { point } = await this.agentUntil("a pass that is a moment", isNew);
    if (point === null) throw new Error("it has a point");
    return point;
  }

  desk(): VaultDesk {
    return connectDesk(join(this.folder, "vd"));
  }

  /** The vault's content of the volume at the last moment not after the time; null: at the last. */
  async content(
    volume: string,
    atMs: number | null,
  ): Promise<{ readonly at: number; readonly bytes: Buffer }> {
    await using desk = this.desk();
    const moment = await desk.moment(group, atMs, signal);
    return { at: moment.at, bytes: await readAt(desk, volume, moment) };
  }
}

async function readAt(desk: VaultDesk, volume: string, moment: DiskMoment): Promise<Buffer> {
  const { uri, sizeBytes } = await desk.serve(group, volume, moment, signal);
  const { address, exportName } = parseNbdUri(uri);
  const ports = { clock: systemClock, random: systemRandom, log: silentLog };
  await using disk = await openNbdClient({ ...ports, address, exportName }, signal);
  return await disk.read(0, sizeBytes, signal);
}

/** A TCP line that can be cut: what is under way is reset, what comes is refused. */
export class Network implements AsyncDisposable {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #up = true;
  /** From the agent to the vault. */
  carriedBytes = 0;

  private constructor(target: number) {
    this.#server = createServer((near) => {
      if (!this.#up) return void near.destroy();
      const far = connect(target, "127.0.0.1");
      near.on("data", (chunk: Buffer) => (this.carriedBytes += chunk.length));
      for (const socket of [near, far]) {
        this.#sockets.add(socket);
        socket.on("error", () => {});
        socket.on("close", () => {
          this.#sockets.delete(socket);
          near.destroy();
          far.destroy();
        });
      }
      near.pipe(far);
      far.pipe(near);
    });
  }

  static async open(target: number): Promise<Network> {
    const network = new Network(target);
    await new Promise<void>((resolve) => void network.#server.listen(0, "127.0.0.1", resolve));
    return network;
  }

  get port(): number {
    const address = this.#server.address();
    if (address === null || typeof address === "string") throw new Error("the network is closed");
    return address.port;
  }

  cut(): void {
    this.#up = false;
    for (const socket of this.#sockets) socket.destroy();
  }

  mend(): void {
    this.#up = true;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.cut();
    await new Promise<void>((resolve) => void this.#server.close(() => resolve()));
  }
}

class Process {
  readonly ended: Promise<{ readonly code: number | null; readonly errors: string }>;
  readonly #kill: (name: NodeJS.Signals) => void;
  readonly #errors: () => string;

  private constructor(
    ended: Promise<{ readonly code: number | null; readonly errors: string }>,
    kill: (name: NodeJS.Signals) => void,
    errors: () => string,
  ) {
    this.ended = ended;
    this.#kill = kill;
    this.#errors = errors;
  }

  /** The end of what it wrote to its log. */
  get errors(): string {
    return this.#errors();
  }

  /** Ready when it has said so. */
  static async start(folder: string, args: readonly string[]): Promise<Process> {
    const child = spawn(program, args, {
      cwd: folder,
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, UNDERSTUDY_LOG_LEVEL: "info" },
    });
    let errors = "";
    child.stderr
      .setEncoding("utf8")
      .on("data", (chunk: string) => (errors = (errors + chunk).slice(-20_000)));
    const ended = new Promise<{ code: number | null; errors: string }>((resolve) => {
      child.once("close", (code) => resolve({ code, errors }));
    });
    const said = new Promise<boolean>((resolve) => {
      createInterface({ input: child.stdout }).once("line", () => resolve(true));
    });
    const isReady = await Promise.race([said, ended.then(() => false)]);
    if (!isReady) throw new Error(`understudy ${args.join(" ")} ended before it was ready:\n${errors}`);
    return new Process(
      ended,
      (name) => void child.kill(name),
      () => errors,
    );
  }

  async end(name: NodeJS.Signals): Promise<void> {
    this.#kill(name);
    await this.ended;
  }
}

export async function until<T>(
  what: string,
  probe: () => Promise<T | undefined> | T | undefined,
): Promise<T> {
  const deadline = Date.now() + 150_000;
  for (;;) {
    const found = await probe();
    if (found !== undefined) return found;
    if (Date.now() > deadline) throw new Error(`waited 150 s in vain for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
