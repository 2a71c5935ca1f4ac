import assert from "node:assert/strict";
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { describe, it } from "node:test";
import { isOperational } from "#kernel/errors.ts";
import { Forwarder } from "./forwarder.ts";
import { memoryForwarderState } from "./forwarder-state.ts";
import { deadBackend, never, openForwarder, openTcpOrigin, rawTalk, until } from "./forwarder.fixture.ts";

async function firstBytes(socket: Socket): Promise<string> {
  const [chunk] = (await once(socket, "data")) as [Buffer];
  return chunk.toString();
}

void describe("forwarder, TCP", { timeout: 30_000 }, () => {
  void it("carries both directions and the half-close of each", async () => {
    // Answers only after the client has ended its side: works only if the end is carried and the way back stays open.
    await using origin = await openTcpOrigin("a", (socket) => {
      let size = 0;
      socket.on("data", (chunk: Buffer) => {
        size += chunk.length;
      });
      socket.on("end", () => socket.end(`got ${size}`));
    });
    await using forwarder = await openForwarder({}, { mode: "tcp" });
    await forwarder.switchOf("web").apply({ epoch: 1, backends: [origin.backend] }, never);
    const socket = connect({ port: forwarder.address.port, host: "127.0.0.1", allowHalfOpen: true });
    socket.end(Buffer.alloc(3_000_000));
    let text = "";
    socket.on("data", (chunk: Buffer) => {
      text += chunk.toString();
    });
    await once(socket, "end");
    assert.equal(text, "got 3000000");
    socket.destroy();
    await until(() => forwarder.counters()[0]?.active === 0);
  });

  void it("gives new connections to the new set, lets old ones go on, and cuts them at the drain limit", async () => {
    await using a = await openTcpOrigin("a", (socket) => socket.write("a"));
    await using b = await openTcpOrigin("b", (socket) => socket.write("b"));
    await using forwarder = await openForwarder({ drainMs: 200 }, { mode: "tcp" });
    const route = forwarder.switchOf("web");
    await route.apply({ epoch: 1, backends: [a.backend] }, never);
    const old = connect(forwarder.address.port, "127.0.0.1");
    assert.equal(await firstBytes(old), "a");
    const closed = once(old, "close");
    old.on("error", () => old.destroy());
    await route.apply({ epoch: 2, backends: [b.backend] }, never);
    const fresh = connect(forwarder.address.port, "127.0.0.1");
    assert.equal(await firstBytes(fresh), "b");
    assert.equal(old.destroyed, false);
    await closed;
    const left = forwarder.counters()[0];
    assert.deepEqual([left?.active, left?.failures], [1, 1]);
    fresh.destroy();
  });

  void it("goes on to another backend when one refuses, and closes when all do", async () => {
    await using a = await openTcpOrigin("a", (socket) => socket.end("a"));
    await using forwarder = await openForwarder({}, { mode: "tcp" });
    const route = forwarder.switchOf("web");
    await route.apply({ epoch: 1, backends: [await deadBackend("dead"), a.backend] }, never);
    for (let round = 0; round < 4; round += 1) assert.equal(await rawTalk(forwarder.address, "x"), "a");
    await route.apply({ epoch: 1, backends: [await deadBackend("dead")] }, never);
    assert.equal(await rawTalk(forwarder.address, "x"), "");
    assert.equal(forwarder.counters()[0]?.failures, 1);
  });

  void it("has one route, and says so", async () => {
    await assert.rejects(
      Forwarder.open(
        { listen: { host: "127.0.0.1", port: 0 }, mode: "tcp", routes: [{ name: "a" }, { name: "b" }] },
        { state: memoryForwarderState() },
      ),
      (error) => isOperational(error, "config.invalid"),
    );
  });

  void it("says who may not listen where", async () => {
    await using first = await openForwarder();
    await assert.rejects(
      openForwarder({}, { listen: { host: "127.0.0.1", port: first.address.port } }),
      (error) => isOperational(error, "port.in_use"),
    );
    await assert.rejects(openForwarder({}, { listen: { host: "192.0.2.1", port: 0 } }), (error) =>
      isOperational(error, "port.forbidden"),
    );
  });
});
