import assert from "node:assert/strict";
import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { Agent, createServer, request, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { describe, it } from "node:test";
import { isOperational } from "#kernel/errors.ts";
import { silentLog } from "#kernel/log.ts";
import { memoryEpochRecord } from "#traffic/epoch-record.ts";
import { askHaproxy, type HaproxySocket } from "#traffic/haproxy/haproxy-socket.ts";
import { HaproxySwitch, type HaproxySwitchConfig } from "#traffic/haproxy/haproxy-switch.ts";
import { addressOf, type Backend } from "#traffic/traffic-switch.ts";
import { trafficSwitchConformance } from "#traffic/traffic-switch.conformance.ts";
import { needs, startPeer, temporaryFolder } from "./peer-process.ts";
import { freePorts } from "../../../demo/free-ports.ts";

const options = needs({ haproxy: "haproxy" });
const live = new AbortController().signal;

interface World extends AsyncDisposable {
  readonly port: number;
  readonly socket: HaproxySocket;
  readonly userSocket: HaproxySocket;
  readonly origins: readonly { readonly server: Server; readonly backend: Backend }[];
  readonly route: (config?: Partial<HaproxySwitchConfig>) => HaproxySwitch;
}

async function openWorld(slots: number): Promise<World> {
  const stack = new AsyncDisposableStack();
  const folder = stack.use(await temporaryFolder());
  const [port = 0, tcpPort = 0] = await freePorts(2);
  const path = join(folder.path, "admin.sock");
  const userPath = join(folder.path, "user.sock");
  await writeFile(
    join(folder.path, "haproxy.cfg"),
    `global
  stats socket ${path} mode 600 level admin
  stats socket ${userPath} mode 600 level user
  stats socket ipv4@127.0.0.1:${tcpPort} level admin
defaults
  mode http
  timeout connect 500ms
  timeout client 10s
  timeout server 10s
frontend users
  bind 127.0.0.1:${port}
  default_backend web
backend web
  balance roundrobin
  server-template slot ${slots} 127.0.0.1:1 disabled
`,
  );
  const socket = { path };
  const ready = (): Promise<boolean> =>
    askHaproxy(socket, "show info", 500, live).then(
      () => true,
      () => false,
    );
  stack.use(await startPeer("haproxy", ["-db", "-f", join(folder.path, "haproxy.cfg")], ready));
  const origins = await Promise.all(
    ["a", "b", "c"].map(async (id) => {
      const server = createServer((incoming, response) => {
        incoming.resume();
        incoming.on("end", () => {
          if (incoming.url === "/hang") response.write("begun");
          else response.end(id);
        });
      }).listen(0, "127.0.0.1");
      await once(server, "listening");
      return { server, backend: { id, host: "127.0.0.1", port: (server.address() as AddressInfo).port } };
    }),
  );
  stack.defer(async () => {
    for (const { server } of origins) {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    }
  });
  return {
    port,
    socket,
    userSocket: { path: userPath },
    origins,
    route: (config) =>
      stack.use(
        new HaproxySwitch(
          { socket: { host: "127.0.0.1", port: tcpPort }, backend: "web", ...config },
          { epochs: memoryEpochRecord(), log: silentLog },
        ),
      ),
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}

function get(
  port: number,
  path = "/",
  agent: Agent | false = false,
): Promise<{ status: number; body: string }> {
  return new Promise((resolve, reject) => {
    const outgoing = request({ host: "127.0.0.1", port, path, agent }, (answer) => {
      let body = "";
      answer.on("data", (chunk: Buffer) => {
        body += chunk.toString();
      });
      answer.on("error", reject);
      answer.on("end", () => resolve({ status: answer.statusCode ?? 0, body }));
    });
    outgoing.on("error", reject);
    outgoing.end();
  });
}

trafficSwitchConformance(
  "haproxy",
  async () => {
    const world = await openWorld(4);
    const [a, b, c] = world.origins.map((origin) => origin.backend);
    const [dead = 1] = await freePorts(1);
    assert.ok(a !== undefined && b !== undefined && c !== undefined);
    return {
      route: world.route(),
      backends: [a, b, c, { id: "d", host: "127.0.0.1", port: dead }],
      async servedBy() {
        const seen = new Set<string>();
        for (let round = 0; round < 12; round += 1) seen.add((await get(world.port)).body);
        return [a, b, c]
          .filter((one) => seen.has(one.id))
          .map(addressOf)
          .sort();
      },
      unreachable: world.route({ socket: { path: "/nonexistent/haproxy.sock" } }),
      stranger: world.route({ socket: world.userSocket }),
      [Symbol.asyncDispose]: () => world[Symbol.asyncDispose](),
    };
  },
  options,
);

void describe("HAProxy's runtime API", { timeout: 60_000, ...options }, () => {
  void it("loses no request when the set is switched under load", async () => {
    await using world = await openWorld(2);
    const [a, b] = world.origins.map((origin) => origin.backend);
    assert.ok(a !== undefined && b !== undefined);
    const route = world.route();
    await route.apply({ epoch: 1, backends: [a] }, live);
    const load = { on: true };
    const failures: unknown[] = [];
    let requests = 0;
    const client = async (agent: Agent | false): Promise<void> => {
      while (load.on) {
        requests += 1;
        await get(world.port, "/", agent).then(
          ({ status }) => {
            if (status !== 200) failures.push(status);
          },
          (error: unknown) => failures.push(error),
        );
      }
    };
    const agent = new Agent({ keepAlive: true });
    const clients = [client(agent), client(agent), client(false), client(false)];
    for (let round = 0; round < 30; round += 1)
      await route
        .apply({ epoch: 1 + round, backends: [round % 2 === 0 ? b : a] }, live)
        .catch((error: unknown) => failures.push(error));
    load.on = false;
    await Promise.all(clients);
    agent.destroy();
    assert.deepEqual(failures, []);
    assert.ok(requests > 30);
  });

  void it("says how many servers are needed when there are too few, and reuses slots in place when there are enough", async () => {
    await using world = await openWorld(2);
    const [a, b, c] = world.origins.map((origin) => origin.backend);
    assert.ok(a !== undefined && b !== undefined && c !== undefined);
    const route = world.route();
    await assert.rejects(
      route.apply({ epoch: 1, backends: [a, b, c] }, live),
      (error) =>
        isOperational(error, "traffic.refused") && /has 2 servers and 3 are needed/.test(error.message),
    );
    await route.apply({ epoch: 1, backends: [a, b] }, live);
    await route.apply({ epoch: 1, backends: [c, { ...a, weight: 3 }] }, live);
    const weights = new Map(
      (await route.read(live)).backends.map((one) => [addressOf(one), one.weight ?? 1]),
    );
    assert.deepEqual(
      weights,
      new Map([
        [addressOf(a), 3],
        [addressOf(c), 1],
      ]),
    );
  });

  void it("cuts what is under way with a removed server when its drain limit is over", async () => {
    await using world = await openWorld(2);
    const [a, b] = world.origins.map((origin) => origin.backend);
    assert.ok(a !== undefined && b !== undefined);
    const route = world.route({ drainMs: 0 });
    await route.apply({ epoch: 1, backends: [a] }, live);
    const hanging = get(world.port, "/hang").then(
      () => "whole",
      () => "cut",
    );
    await once(world.origins[0]?.server ?? assert.fail(), "request");
    await route.apply({ epoch: 2, backends: [b] }, live);
    assert.equal(await hanging, "cut");
  });

  void it("names a backend that haproxy.cfg does not have", async () => {
    await using world = await openWorld(1);
    await assert.rejects(
      world.route({ backend: "nosuch" }).read(live),
      (error) => isOperational(error, "traffic.refused") && error.message.includes("nosuch"),
    );
  });

  void it("shows after a restart of HAProxy that the target is not in force any more", async () => {
    await using world = await openWorld(2);
    const [a] = world.origins.map((origin) => origin.backend);
    assert.ok(a !== undefined);
    const route = world.route();
    assert.deepEqual((await route.read(live)).backends, [], "a fresh HAProxy has its slots out of service");
    await route.apply({ epoch: 1, backends: [a] }, live);
    assert.deepEqual((await route.read(live)).backends.map(addressOf), [addressOf(a)]);
  });
});
