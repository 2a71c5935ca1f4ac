/**
 * Instance metadata (IMDSv2) on each server's own loopback address: the address tells which server asks. Source: EC2 user
 * guide, "Use the Instance Metadata Service to access instance metadata".
 */
import { randomBytes } from "node:crypto";
import http from "node:http";
import net, { type AddressInfo } from "node:net";
import type { ServerLaunch } from "#devcloud/core/compute.ts";
import type { Clock } from "#kernel/clock.ts";

const MAX_TTL_SECONDS = 21_600;
const MAX_TOKENS = 1000;

interface Served {
  server: ServerLaunch;
  readonly listener: net.Server;
}

export class MetadataService {
  readonly #clock: Clock;
  readonly #served = new Map<string, Served>();
  readonly #byAddress = new Map<string, string>();
  /** Token, then the server it is for and when it ends. */
  readonly #tokens = new Map<string, { readonly id: string; readonly until: number }>();
  readonly #http: http.Server;

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#http = http.createServer({ requestTimeout: 10_000 }, (request, response) => {
      request.resume();
      const { status, body } = this.#answer(request);
      response.writeHead(status, { "content-type": "text/plain" }).end(body);
    });
  }

  /** The endpoint's URL. */
  async serve(server: ServerLaunch): Promise<string> {
    this.withdraw(server.id);
    const listener = net.createServer((socket) => this.#http.emit("connection", socket));
    await new Promise<void>((resolve, reject) => {
      listener.once("error", reject);
      listener.listen(0, server.address, () => {
        listener.off("error", reject);
        resolve();
      });
    });
    this.#served.set(server.id, { server, listener });
    this.#byAddress.set(server.address, server.id);
    return `http://${server.address}:${(listener.address() as AddressInfo).port}`;
  }

  update(server: ServerLaunch): void {
    const served = this.#served.get(server.id);
    if (served !== undefined) served.server = server;
  }

  withdraw(id: string): void {
    const served = this.#served.get(id);
    if (served === undefined) return;
    this.#served.delete(id);
    this.#byAddress.delete(served.server.address);
    for (const [token, held] of this.#tokens) if (held.id === id) this.#tokens.delete(token);
    served.listener.close();
  }

  close(): void {
    for (const id of this.#served.keys()) this.withdraw(id);
    this.#http.closeAllConnections();
  }

  #answer(request: http.IncomingMessage): { status: number; body: string } {
    const id = this.#byAddress.get(request.socket.localAddress ?? "") ?? "";
    const served = this.#served.get(id);
    if (served === undefined) return { status: 404, body: "" };
    const path = (request.url ?? "").split("?", 1)[0] ?? "";
    if (path === "/latest/api/token") return this.#issue(request, id);
    if (request.method !== "GET") return { status: 405, body: "" };
    const token = request.headers["x-aws-ec2-metadata-token"];
    const held = typeof token === "string" ? this.#tokens.get(token) : undefined;
    if (held === undefined || held.id !== id || held.until < this.#clock.now()) {
      return { status: 401, body: "" };
    }
    const found = metadataOf(served.server, path.replace(/\/$/, ""));
    return found === undefined ? { status: 404, body: "" } : { status: 200, body: found };
  }

  #issue(request: http.IncomingMessage, id: string): { status: number; body: string } {
    const ttl = Number(request.headers["x-aws-ec2-metadata-token-ttl-seconds"]);
    if (request.method !== "PUT") return { status: 405, body: "" };
    if (!Number.isInteger(ttl) || ttl < 1 || ttl > MAX_TTL_SECONDS) return { status: 400, body: "" };
    const token = randomBytes(24).toString("base64url");
    if (this.#tokens.size >= MAX_TOKENS) {
      const oldest = this.#tokens.keys().next().value;
      if (oldest !== undefined) this.#tokens.delete(oldest);
    }
    this.#tokens.set(token, { id, until: this.#clock.now() + ttl * 1000 });
    return { status: 200, body: token };
  }
}

function metadataOf(server: ServerLaunch, path: string): string | undefined {
  if (path === "/latest/user-data") {
    return server.userData === null ? undefined : Buffer.from(server.userData, "base64").toString("utf8");
  }
  if (path === "/latest/dynamic/instance-identity/document") {
    return JSON.stringify({
      instanceId: server.id,
      imageId: server.imageId,
      instanceType: server.type,
      region: server.region,
      availabilityZone: server.zone,
      privateIp: server.privateIp,
    });
  }
  const root = "/latest/meta-data";
  if (path !== root && !path.startsWith(`${root}/`)) return undefined;
  const leaves = leavesOf(server);
  const name = path.slice(root.length + 1);
  const leaf = leaves.get(name);
  if (leaf !== undefined) return leaf;
  const below = new Set<string>();
  const prefix = name === "" ? "" : `${name}/`;
  for (const key of leaves.keys()) {
    if (!key.startsWith(prefix)) continue;
    const [first = "", rest] = key.slice(prefix.length).split("/", 2);
    below.add(rest === undefined ? first : `${first}/`);
  }
  return below.size === 0 ? undefined : [...below].join("\n");
}

function leavesOf(server: ServerLaunch): Map<string, string> {
  const leaves = new Map<string, string>([
    ["ami-id", server.imageId],
    ["hostname", server.name],
    ["instance-id", server.id],
    ["instance-type", server.type],
    ["local-hostname", server.name],
    ["mac", server.macs[0] ?? ""],
    ["placement/availability-zone", server.zone],
    ["placement/region", server.region],
    ["security-groups", server.groupNames.join("\n")],
  ]);
  if (server.privateIp !== null) leaves.set("local-ipv4", server.privateIp);
  if (server.publicIp !== null) leaves.set("public-ipv4", server.publicIp);
  if (server.publicKey !== null) leaves.set("public-keys/0/openssh-key", server.publicKey);
  for (const [key, value] of Object.entries(server.tags)) leaves.set(`tags/instance/${key}`, value);
  return leaves;
}
