import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { Agent } from "node:http";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, it } from "node:test";
import { isOperational } from "#kernel/errors.ts";
import type { Backend } from "#traffic/traffic-switch.ts";
import { Forwarder } from "./forwarder.ts";
import { ask, never, openForwarder, openOrigin } from "./forwarder.fixture.ts";
import { fileForwarderState } from "./forwarder-state.ts";

const originProgram = `
const server = require("node:http").createServer((request, response) => {
  request.resume();
  request.on("end", () => response.end(process.argv[1]));
}).listen(0, "127.0.0.1", () => console.log(server.address().port));
`;

async function spawnOrigin(id: string): Promise<{ readonly backend: Backend; readonly child: ChildProcess }> {
  const child = spawn(process.execPath, ["-e", originProgram, id], { stdio: ["ignore", "pipe", "inherit"] });
  const [line] = (await once(child.stdout, "data")) as [Buffer];
  return { child, backend: { id, host: "127.0.0.1", port: Number(line.toString()) } };
}

interface Load {
  readonly requests: () => number;
  readonly failures: readonly { readonly method: string; readonly what: string }[];
  stop(): Promise<void>;
}

/** Clients in a closed loop, with kept-alive connections and without, of both kinds of methods. */
function startLoad(forwarder: Forwarder): Load {
  const agent = new Agent({ keepAlive: true });
  const failures: { method: string; what: string }[] = [];
  const state = { on: true, requests: 0 };
  const client = async (method: string, kept: boolean): Promise<void> => {
    while (state.on) {
      state.requests += 1;
      const body = method === "POST" ? { body: "x" } : {};
      await ask(forwarder.address, { method, ...body, ...(kept ? { agent } : {}) }).then(
        ({ status }) => {
          if (status !== 200) failures.push({ method, what: String(status) });
        },
        (error: unknown) => failures.push({ method, what: String(error) }),
      );
    }
  };
  const clients = ["GET", "POST"].flatMap((method) =>
    [true, false].flatMap((kept) => [client(method, kept), client(method, kept)]),
  );
  return {
    requests: () => state.requests,
    failures,
    async stop() {
      state.on = false;
      await Promise.all(clients);
      agent.destroy();
    },
  };
}

async function more(load: Load, count: number): Promise<void> {
  const goal = load.requests() + count;
  while (load.requests() < goal) await new Promise((resolve) => setTimeout(resolve, 2));
}

void describe("forwarder, under load", { timeout: 60_000 }, () => {
  void it("loses no request at a planned switch", async () => {
    await using a = await openOrigin("a");
    await using b = await openOrigin("b");
    await using forwarder = await openForwarder();
    const route = forwarder.switchOf("web");
    await route.apply({ epoch: 0, backends: [a.backend] }, never);
    const load = startLoad(forwarder);
    for (let round = 1; round <= 30; round += 1) {
      await route.apply({ epoch: round, backends: [round % 2 === 0 ? a.backend : b.backend] }, never);
      await more(load, 30);
    }
    await load.stop();
    assert.deepEqual(load.failures, []);
    assert.equal(forwarder.counters()[0]?.failures, 0);
  });

  void it("loses only what may not be repeated when a backend is killed", async () => {
    const victim = await spawnOrigin("victim");
    await using heir = await openOrigin("heir");
    await using forwarder = await openForwarder();
    await forwarder.switchOf("web").apply({ epoch: 1, backends: [victim.backend, heir.backend] }, never);
    const load = startLoad(forwarder);
    await more(load, 300);
    victim.child.kill("SIGKILL");
    await once(victim.child, "exit");
    const atKill = load.failures.length;
    await more(load, 500);
    await load.stop();
    assert.deepEqual(
      load.failures.filter((failure) => failure.method !== "POST"),
      [],
    );
    // At most one POST a client was under way with the victim.
    assert.ok(load.failures.length <= 4, JSON.stringify({ atKill, failures: load.failures }));
  });
});

void describe("a forwarder's state", { timeout: 30_000 }, () => {
  void it("brings back the last target and its epoch after a restart, and is never taken for empty when damaged", async () => {
    const folder = await mkdtemp(join(tmpdir(), "understudy-forwarder-"));
    const path = join(folder, "state.json");
    const config = {
      listen: { host: "127.0.0.1", port: 0 },
      mode: "http" as const,
      routes: [{ name: "web" }, { name: "other", match: { hosts: ["o"] } }],
    };
    try {
      await using a = await openOrigin("a");
      const first = await Forwarder.open(config, { state: fileForwarderState(path) });
      await first.switchOf("web").apply({ epoch: 4, backends: [a.backend] }, never);
      await first.switchOf("other").apply({ epoch: 2, backends: [a.backend] }, never);
      await first.close();
      const second = await Forwarder.open(config, { state: fileForwarderState(path) });
      assert.equal((await ask(second.address)).body, "a");
      await assert.rejects(
        second.switchOf("web").apply({ epoch: 3, backends: [a.backend] }, never),
        (error) => isOperational(error, "state.fenced"),
      );
      await rm(folder, { recursive: true });
      const heir = { ...a.backend, id: "heir" };
      await assert.rejects(
        second.switchOf("web").apply({ epoch: 5, backends: [heir] }, never),
        (error) => isOperational(error, "store.failing") && error.outcome === "not_applied",
      );
      assert.deepEqual((await second.switchOf("web").read(never)).backends, [a.backend]);
      await second.close();
      const damaged = join(tmpdir(), `understudy-forwarder-${process.pid}.json`);
      await writeFile(damaged, '{"version":1,"routes":[["web",');
      await assert.rejects(Forwarder.open(config, { state: fileForwarderState(damaged) }), (error) =>
        isOperational(error, "store.failing"),
      );
      assert.match(await readFile(damaged, "utf8"), /routes/);
      await rm(damaged);
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  });
});
