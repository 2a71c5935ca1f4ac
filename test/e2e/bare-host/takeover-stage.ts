// A cloud with real guests in the east, a bare host in the west, a vault and the control plane: all processes of their own. The west is on
// another machine as far as it can tell: control plane and vault are reached over TLS alone.
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { EC2Client } from "@aws-sdk/client-ec2";
import type { DiskHost } from "#cloud/disk-host.ts";
import { openHostClient } from "#hypervisor/host-api/host-client.ts";
import { ControlRoom } from "../../../demo/control-room.ts";
import { type Actor, startActor } from "../../../demo/processes.ts";
import { type AccessKey, image } from "../../../demo/stage.ts";
import { HostUnderTest } from "./host-under-test.ts";
import { freePorts } from "../../../demo/free-ports.ts";

const understudy = new URL("../../../bin/understudy", import.meta.url).pathname;

export class TakeoverStage implements AsyncDisposable {
  readonly folder = mkdtempSync(join(tmpdir(), "understudy-bare-host-"));
  readonly #actors: Actor[] = [];
  #vault: Actor | undefined;
  #east: Actor | undefined;
  #room: ControlRoom | undefined;
  #ec2: EC2Client | undefined;
  #west: HostUnderTest | undefined;
  #ports: readonly number[] = [];

  static async set(): Promise<TakeoverStage> {
    const stage = new TakeoverStage();
    try {
      await stage.#set();
      return stage;
    } catch (error) {
      await stage[Symbol.asyncDispose]();
      throw error;
    }
  }

  get room(): ControlRoom {
    return this.#room ?? missing();
  }

  get ec2(): EC2Client {
    return this.#ec2 ?? missing();
  }

  get west(): HostUnderTest {
    return this.#west ?? missing();
  }

  urlOf(route: "database" | "web"): string {
    return `http://127.0.0.1:${this.#ports[route === "database" ? 3 : 4]}/`;
  }

  diskHost(side: "east" | "west"): DiskHost {
    return openHostClient({
      socketPath: side === "west" ? this.west.socket : join(this.folder, "east", "host.sock"),
    });
  }

  consolesOf(machines: string): string {
    const folder = join(this.folder, machines);
    return readdirSync(folder)
      .map((id) => readIfAny(join(folder, id, "console.log")))
      .join("");
  }

  command(args: readonly string[]): unknown {
    return JSON.parse(execFileSync(understudy, [...args, "--json"], { cwd: this.folder }).toString());
  }

  /** As a power cut does: its API, its agent, its guests. */
  async killEast(): Promise<void> {
    await this.#east?.kill();
    this.#endGuests("east/host/machines");
  }

  async startEast(): Promise<void> {
    const args = ["devcloud", "up", "--dialect", "ec2", "--compute", "qemu", "--data", "./east"];
    const place = ["--address-base", "127.64.0.0/16", "--port", String(this.#ports[0])];
    this.#east = await startActor("east", [...args, ...place], this.folder);
  }

  async startVault(): Promise<void> {
    this.#vault = await startActor("vault", ["vault", "serve", "--json"], this.folder);
  }

  async killVault(): Promise<void> {
    await this.#vault?.kill();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ec2?.destroy();
    for (const actor of this.#actors.toReversed()) await actor.stop();
    await this.#vault?.stop();
    await this.#east?.stop();
    this.#endGuests("east/host/machines");
    await this.#west?.[Symbol.asyncDispose]();
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 10 });
  }

  async #set(): Promise<void> {
    this.#ports = await freePorts(8);
    await this.startEast();
    // It removes the folder that it is given, so that it has one of its own.
    this.#west = await HostUnderTest.open({
      addresses: "127.65.0.0/24",
      apart: { api: this.#ports[5] ?? 0, disks: this.#ports[6] ?? 0 },
    });
    await this.#west.start();
    writeFileSync(join(this.folder, "vault-passphrase"), randomBytes(24).toString("hex"), { mode: 0o600 });
    writeFileSync(join(this.folder, "understudy.yaml"), this.#config());
    this.command(["vault", "init"]);
    await this.startVault();
    const key = this.command(["keys", "create", "shop"]) as AccessKey;
    const engine = await startActor("engine", ["up", "--json"], this.folder, {
      EAST_KEY: String(this.#east?.ready["accessKeyId"]),
    });
    this.#actors.push(engine);
    const token = readFileSync(join(this.folder, "understudy-data", "api-token"), "utf8").trim();
    this.#room = new ControlRoom(String(engine.ready["api"]), token);
    this.#ec2 = new EC2Client({
      region: "us-east-1",
      endpoint: String(engine.ready["gateway"]),
      credentials: key,
      maxAttempts: 3,
    });
  }

  #endGuests(machines: string): void {
    const folder = join(this.folder, machines);
    for (const id of existsSync(folder) ? readdirSync(folder) : []) {
      const pid = Number(readIfAny(join(folder, id, "qemu.pid")));
      if (!(pid > 0) || !readIfAny(`/proc/${pid}/cmdline`).includes(id)) continue;
      try {
        process.kill(pid, "SIGKILL");
      } catch {
        // It ended by itself.
      }
    }
  }

  #config(): string {
    const [, gateway, api, database, web, , , nbd] = this.#ports;
    const hosts = `{listen: "127.0.0.1:${nbd}", certificates: ${this.west.certificates}/control, callers: [metal]}`;
    const route = (name: string, tier: string, port: number | undefined): string =>
      `{name: ${name}, select: {tier: ${tier}}, port: 8080, through: {forwarder: {listen: "127.0.0.1:${port}", mode: http, drain: 1s}}}`;
    return `version: 1
data: ./understudy-data
listen: {gateway: "127.0.0.1:${gateway}", api: "127.0.0.1:${api}"}
vault: {store: {folder: ./vault}, passphrase: {file: ./vault-passphrase}, data: ./vault-data, foldEvery: 10s, hosts: ${hosts}}
sites:
  east:
    driver: ec2
    host: {socket: ./east/host.sock}
    region: ${String(this.#east?.ready["region"])}
    endpoint: ${String(this.#east?.ready["endpoint"])}
    credentials: {accessKeyId: {env: EAST_KEY}, secretAccessKey: {file: ./east/secret-key}}
${this.west.siteYaml("control")}environments:
  shop:
    active: east
    standby: metal
    protect: {volumes: {role: database}, pointsEvery: 10s}
    reserve: {servers: {ratio: 0.3, minimumPerGroup: 1, groupBy: tier}}
    translate: {images: {${image}: small}, types: {t3.micro: small}}
    traffic: [${route("database", "db", database)}, ${route("web", "web", web)}]
    probes:
      - {name: cloud, every: 500ms, timeout: 2s, check: {cloudApi: active}}
    # A person's: a busy machine's slow answers begin none.
    failover: {triggers: []}
    return: {policy: manual}
`;
  }
}

function missing(): never {
  throw new Error("the stage is not set");
}

function readIfAny(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}
