// Sets the stage: two clouds, the control plane, two more witnesses, each a process of its own, and a shop's owner with a key.
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { EC2Client } from "@aws-sdk/client-ec2";
import { ControlRoom } from "./control-room.ts";
import { startActor, type Actor } from "./processes.ts";
import { ShopOwner, type Tier } from "./shop.ts";
import { readCloud, type CloudDump } from "./verify.ts";
import { freePorts } from "./free-ports.ts";

/** The image that devcloud's EC2 dialect has from the start. */
export const image = "ami-0a1b2c3d4e5f60001";

export interface Play {
  /** Everyone's data and logs. */
  readonly folder: string;
  readonly returnPolicy: "wait" | "swap" | "manual";
  /** As in understudy.yaml, e.g. `500ms`. */
  readonly probeEvery: string;
  readonly triggerFor: string;
}

export interface AccessKey {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
}

export interface Stage {
  readonly ports: Ports;
  readonly room: ControlRoom;
  readonly owner: ShopOwner;
  readonly gatewayUrl: string;
  readonly key: AccessKey;
  /** SIGKILL: its API, its servers, everything. */
  killEast(): Promise<void>;
  restartEast(): Promise<void>;
  readCloud(site: "east" | "west"): Promise<CloudDump>;
}

export async function setStage(play: Play): Promise<Stage> {
  const { folder } = play;
  const ports = await choosePorts();
  const [firstEast, west] = await Promise.all([startEast(folder, ports), startWest(folder, ports)]);
  let east = firstEast;
  writeConfig(play, ports, east, west);
  const key = JSON.parse(
    execFileSync(join(import.meta.dirname, "..", "bin", "understudy"), ["keys", "create", "shop", "--json"], {
      cwd: folder,
    }).toString(),
  ) as AccessKey;
  const engine = await startActor("engine", ["up", "--json"], folder, {
    EAST_KEY: String(east.ready["accessKeyId"]),
  });
  const api = String(engine.ready["api"]);
  const witness = (name: string): Promise<Actor> =>
    startActor(
      `witness-${name}`,
      ["witness", "--api", api, "--token-file", `./witness-${name}.token`],
      folder,
    );
  await Promise.all(["north", "south"].map(witness));
  const gatewayUrl = String(engine.ready["gateway"]);
  const ec2 = new EC2Client({ region: "us-east-1", endpoint: gatewayUrl, credentials: key, maxAttempts: 3 });
  const tiers: readonly Tier[] = [
    { name: "db", port: 8082, next: null },
    { name: "app", port: 8081, next: `http://127.0.0.1:${ports.db}/` },
    { name: "web", port: 8080, next: `http://127.0.0.1:${ports.app}/` },
  ];
  const token = readFileSync(join(folder, "understudy-data", "api-token"), "utf8").trim();
  return {
    ports,
    room: new ControlRoom(api, token),
    owner: new ShopOwner(ec2, tiers),
    gatewayUrl,
    key,
    killEast: () => east.kill(),
    restartEast: async () => {
      east = await startEast(folder, ports);
    },
    readCloud: (site) => readCloud(`http://127.0.0.1:${ports[site]}`, join(folder, site, "admin-token")),
  };
}

export interface Ports {
  readonly east: number;
  readonly west: number;
  readonly gateway: number;
  readonly api: number;
  readonly web: number;
  readonly app: number;
  readonly db: number;
}

async function choosePorts(): Promise<Ports> {
  const [east = 0, west = 0, gateway = 0, api = 0, web = 0, app = 0, db = 0] = await freePorts(7);
  return { east, west, gateway, api, web, app, db };
}

function startEast(folder: string, ports: Ports): Promise<Actor> {
  const args = ["devcloud", "up", "--dialect", "ec2", "--port", String(ports.east), "--data", "./east"];
  return startActor("east", [...args, "--address-base", "127.41.0.0/16"], folder);
}

function startWest(folder: string, ports: Ports): Promise<Actor> {
  const args = ["devcloud", "up", "--dialect", "openstack", "--port", String(ports.west), "--data", "./west"];
  return startActor("west", [...args, "--address-base", "127.42.0.0/16"], folder);
}

function writeConfig(play: Play, ports: Ports, east: Actor, west: Actor): void {
  const { folder } = play;
  for (const name of ["witness-north", "witness-south"]) {
    writeFileSync(join(folder, `${name}.token`), randomBytes(24).toString("hex"), { mode: 0o600 });
  }
  const forwarder = (port: number): string =>
    `{forwarder: {listen: "127.0.0.1:${port}", mode: http, drain: 1s}}`;
  writeFileSync(
    join(folder, "understudy.yaml"),
    `version: 1
data: ./understudy-data
listen: {gateway: "127.0.0.1:${ports.gateway}", api: "127.0.0.1:${ports.api}"}
sites:
  east:
    driver: ec2
    region: ${String(east.ready["region"])}
    endpoint: ${String(east.ready["endpoint"])}
    credentials: {accessKeyId: {env: EAST_KEY}, secretAccessKey: {file: ./east/secret-key}}
  west:
    driver: openstack
    authUrl: ${String(west.ready["endpoint"])}/identity/v3
    region: ${String(west.ready["region"])}
    project: understudy
    credentials: {username: ${String(west.ready["accessKeyId"])}, password: {file: ./west/secret-key}}
environments:
  shop:
    active: east
    standby: west
    reserve: {servers: {ratio: 0.2, minimumPerGroup: 1, groupBy: tier}}
    translate: {images: {${image}: understudy/guest}}
    traffic:
      - {name: web, select: {tier: web}, port: 8080, through: ${forwarder(ports.web)}}
      - {name: app, select: {tier: app}, port: 8081, through: ${forwarder(ports.app)}}
      - {name: db, select: {tier: db}, port: 8082, through: ${forwarder(ports.db)}}
    probes:
      - {name: shop, every: ${play.probeEvery}, timeout: 1500ms, check: {http: "http://127.0.0.1:${ports.web}/"}}
      - {name: cloud, every: ${play.probeEvery}, timeout: 1s, check: {cloudApi: active}}
    witnesses: [engine, {name: north, token: {file: ./witness-north.token}}, {name: south, token: {file: ./witness-south.token}}]
    failover:
      triggers: [{codes: [cloud.api_unreachable], witnesses: 2, for: ${play.triggerFor}}]
    return: {policy: ${play.returnPolicy}, stableFor: 2s}
`,
  );
}
