// Sets the stage for real machines: two clouds whose servers are QEMU guests, the vault, the control plane, two more witnesses.
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { EC2Client } from "@aws-sdk/client-ec2";
import type { DiskHost } from "#cloud/disk-host.ts";
import { openHostClient } from "#hypervisor/host-api/host-client.ts";
import { ControlRoom } from "./control-room.ts";
import { type Actor, startActor } from "./processes.ts";
import { type AccessKey, image } from "./stage.ts";
import { type CloudDump, readCloud } from "./verify.ts";
import { freePorts } from "./free-ports.ts";

const understudy = join(import.meta.dirname, "..", "bin", "understudy");

export type Side = "east" | "west";

export interface MachineStage {
  readonly room: ControlRoom;
  readonly ec2: EC2Client;
  /** Where users reach the database, wherever it is. */
  readonly databaseUrl: string;
  /** Of one site, as a user of this machine sees it. */
  readCloud(side: Side): Promise<CloudDump>;
  host(side: Side): DiskHost;
  /** The end of what the site's guests printed; also when the site is gone. */
  consoles(side: Side): string;
  /** SIGKILL: its API, its agent, its guests. */
  killEast(): Promise<void>;
  restartEast(): Promise<void>;
  /** Runs `understudy ARGS --json` beside the configuration. */
  command(args: readonly string[]): unknown;
  /** Guests of every site, and whatever else was started below the folder. */
  endGuests(): void;
}

export interface MachineStageOptions {
  /** Loopback networks of the two sites: stages that stand at once have their own. */
  readonly addressBases?: Readonly<Record<Side, string>>;
  /** More of `protect`, as in understudy.yaml's flow style: `, consistency: application`. */
  readonly protect?: string;
  /** More of the environment, as in understudy.yaml: lines of four spaces and more. */
  readonly environment?: string;
}

export async function setMachineStage(
  folder: string,
  {
    addressBases = { east: "127.43.0.0/16", west: "127.44.0.0/16" },
    protect = "",
    environment = "",
  }: MachineStageOptions = {},
): Promise<MachineStage> {
  const [eastPort = 0, westPort = 0, gateway = 0, api = 0, users = 0] = await freePorts(5);
  const ports = { east: eastPort, west: westPort };
  const start = (side: Side): Promise<Actor> =>
    startActor(side, [...cloudArgs(side, addressBases[side]), "--port", String(ports[side])], folder);
  const [firstEast, west] = await Promise.all([start("east"), start("west")]);
  let east = firstEast;
  writeSecrets(folder);
  writeFileSync(
    join(folder, "understudy.yaml"),
    configOf({ east, west, gateway, api, users, protect, environment }),
  );
  const command = (args: readonly string[]): unknown =>
    JSON.parse(execFileSync(understudy, [...args, "--json"], { cwd: folder }).toString());
  command(["vault", "init"]);
  await startActor("vault", ["vault", "serve", "--json"], folder);
  const key = command(["keys", "create", "shop"]) as AccessKey;
  const engine = await startActor("engine", ["up", "--json"], folder, {
    EAST_KEY: String(east.ready["accessKeyId"]),
  });
  const witness = (name: string): Promise<Actor> =>
    startActor(
      `witness-${name}`,
      ["witness", "--api", String(engine.ready["api"]), "--token-file", `./witness-${name}.token`],
      folder,
    );
  await Promise.all(["north", "south"].map(witness));
  const token = readFileSync(join(folder, "understudy-data", "api-token"), "utf8").trim();
  const hosts = {
    east: openHostClient({ socketPath: join(folder, "east", "host.sock") }),
    west: openHostClient({ socketPath: join(folder, "west", "host.sock") }),
  };
  return {
    room: new ControlRoom(String(engine.ready["api"]), token),
    ec2: new EC2Client({
      region: "us-east-1",
      endpoint: String(engine.ready["gateway"]),
      credentials: key,
      maxAttempts: 3,
    }),
    databaseUrl: `http://127.0.0.1:${users}/`,
    readCloud: (side) => readCloud(`http://127.0.0.1:${ports[side]}`, join(folder, side, "admin-token")),
    host: (side) => hosts[side],
    consoles: (side) =>
      machinesOf(folder, side)
        .map((machine) => readIfAny(join(machine, "console.log")))
        .join(""),
    killEast: async () => {
      await east.kill();
      killGuests(folder, "east");
    },
    restartEast: async () => {
      east = await start("east");
    },
    command,
    endGuests: () => {
      for (const side of ["east", "west"] as const) killGuests(folder, side);
    },
  };
}

function cloudArgs(side: Side, base: string): readonly string[] {
  const dialect = side === "east" ? "ec2" : "openstack";
  return [
    "devcloud",
    "up",
    "--dialect",
    dialect,
    "--compute",
    "qemu",
    "--data",
    `./${side}`,
    "--address-base",
    base,
  ];
}

function machinesOf(folder: string, side: Side): readonly string[] {
  const machines = join(folder, side, "host", "machines");
  try {
    return readdirSync(machines).map((id) => join(machines, id));
  } catch {
    return [];
  }
}

/** As losing the host does: a guest has no time to say goodbye. */
function killGuests(folder: string, side: Side): void {
  for (const machine of machinesOf(folder, side)) {
    const pid = Number(readIfAny(join(machine, "qemu.pid")));
    if (!(pid > 0) || !readIfAny(`/proc/${pid}/cmdline`).includes(basename(machine))) continue;
    try {
      process.kill(pid, "SIGKILL");
    } catch {
      // It ended by itself.
    }
  }
}

function readIfAny(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

function writeSecrets(folder: string): void {
  for (const name of ["witness-north.token", "witness-south.token", "vault-passphrase"]) {
    writeFileSync(join(folder, name), randomBytes(24).toString("hex"), { mode: 0o600 });
  }
}

function configOf(parts: {
  readonly east: Actor;
  readonly west: Actor;
  readonly gateway: number;
  readonly api: number;
  readonly users: number;
  readonly protect: string;
  readonly environment: string;
}): string {
  const { east, west, gateway, api, users, protect, environment } = parts;
  return `version: 1
data: ./understudy-data
listen: {gateway: "127.0.0.1:${gateway}", api: "127.0.0.1:${api}"}
vault: {store: {folder: ./vault}, passphrase: {file: ./vault-passphrase}, data: ./vault-data, foldEvery: 10s}
sites:
  east:
    driver: ec2
    host: {socket: ./east/host.sock}
    region: ${String(east.ready["region"])}
    endpoint: ${String(east.ready["endpoint"])}
    credentials: {accessKeyId: {env: EAST_KEY}, secretAccessKey: {file: ./east/secret-key}}
  west:
    driver: openstack
    host: {socket: ./west/host.sock}
    authUrl: ${String(west.ready["endpoint"])}/identity
    region: ${String(west.ready["region"])}
    project: ${String(west.ready["accessKeyId"])}
    credentials: {username: ${String(west.ready["accessKeyId"])}, password: {file: ./west/secret-key}}
environments:
  shop:
    active: east
    standby: west
    protect: {volumes: {role: database}, pointsEvery: 10s${protect}}
    translate: {images: {${image}: understudy/guest}}
    traffic:
      - {name: database, select: {tier: db}, port: 8080, through: {forwarder: {listen: "127.0.0.1:${users}", mode: http, drain: 1s}}}
    probes:
      - {name: database, every: 500ms, timeout: 2s, check: {http: "http://127.0.0.1:${users}/cgi-bin/records"}}
      - {name: cloud, every: 500ms, timeout: 1s, check: {cloudApi: active}}
    witnesses: [engine, {name: north, token: {file: ./witness-north.token}}, {name: south, token: {file: ./witness-south.token}}]
    failover:
      triggers: [{codes: [cloud.api_unreachable], witnesses: 2, for: 2s}]
    return: {policy: manual}
${environment}`;
}
