// Peers that mean harm, against a server in a process of its own: it stays up, serves others meanwhile, and its memory has a bound.
import assert from "node:assert/strict";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { type Socket, connect } from "node:net";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { assertSameBytes } from "#kernel/same-bytes.fixture.ts";
import { type NbdClient, openNbdClient } from "#nbd/nbd-client.ts";
import { encodeClientFlags, encodeInfoRequest, encodeOption } from "#wire/nbd/handshake.ts";
import { nbdCommand, nbdOption } from "#wire/nbd/protocol.ts";
import { encodeRequest } from "#wire/nbd/transmission.ts";
import { startPeer } from "../traffic/peer-process.ts";
import { isListening, ports, workFolder } from "./nbd-peers.ts";

const mebibyte = 1024 * 1024;

function residentBytes(pid: number): number {
  return Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) * 1024;
}

async function attacked(
  context: TestContext,
  attack: (path: string, honest: NbdClient) => Promise<void>,
): Promise<{ before: number; after: number }> {
  const folder = workFolder();
  context.after(() => folder[Symbol.dispose]());
  const path = folder.file("s");
  const script = join(import.meta.dirname, "hostile-server.ts");
  await using peer = await startPeer(process.execPath, [script, path], () => isListening(path));
  const options = { address: { kind: "unix", path }, exportName: "disk", ...ports, reconnectMs: 0 } as const;
  await using honest = await openNbdClient(options);
  await honest.write(0, Buffer.alloc(mebibyte, 1));
  const before = residentBytes(peer.pid);
  await attack(path, honest);
  assertSameBytes(await honest.read(0, mebibyte), Buffer.alloc(mebibyte, 1));
  return { before, after: residentBytes(peer.pid) };
}

function open(path: string): Socket {
  const socket = connect({ path });
  socket.on("error", () => {});
  return socket;
}

/** In the transmission phase, with simple replies. */
async function transmitting(path: string): Promise<Socket> {
  const socket = open(path);
  socket.write(
    Buffer.concat([encodeClientFlags(3), encodeOption(nbdOption.exportName, Buffer.from("disk"))]),
  );
  let received = 0;
  while (received < 28) received += ((await once(socket, "data")) as [Buffer])[0].length;
  socket.pause();
  return socket;
}

const read = (cookieLow: number, length: number): Buffer =>
  encodeRequest({ command: nbdCommand.read, flags: 0, cookieHigh: 0, cookieLow, offset: 0, length });

test("slow peers in every place of the handshake do not keep others out", async (context) => {
  await attacked(context, async (path, honest) => {
    const hello = Buffer.concat([
      encodeClientFlags(3),
      encodeOption(nbdOption.go, encodeInfoRequest({ exportName: "disk", infos: [] })),
    ]);
    const sockets = Array.from({ length: 15 }, () => open(path));
    // Each says a little more than the one before, and then no more.
    for (const [index, socket] of sockets.entries()) socket.write(hello.subarray(0, index));
    const closed = Promise.all(sockets.map((socket) => once(socket.resume(), "close")));
    assert.deepEqual(await honest.read(0, 10), Buffer.alloc(10, 1));
    await closed;
    // The places are free again: all of them.
    const again = await Promise.all(Array.from({ length: 15 }, () => transmitting(path)));
    for (const socket of again) socket.destroy();
  });
});

test("readers that ask for ever and never read an answer cost what the limit says", async (context) => {
  const { before, after } = await attacked(context, async (path, honest) => {
    const sockets = await Promise.all(Array.from({ length: 4 }, () => transmitting(path)));
    const requests = Buffer.concat(Array.from({ length: 2_000 }, (_, index) => read(index, 4 * mebibyte)));
    // As much as the server takes: until its socket is full, and stays full while others are served.
    for (const socket of sockets) {
      let room = true;
      for (let count = 0; room && count < 200; count += 1) room = socket.write(requests);
      assert.equal(room, false);
    }
    for (let count = 0; count < 20; count += 1) await honest.read(0, mebibyte);
    for (const socket of sockets) assert.ok(socket.writableLength > 0, "the server does not read on");
    for (const socket of sockets) socket.destroy();
  });
  // Four connections of 32 MiB, with as much again for what sockets and the collector have not let go of.
  assert.ok(after - before < 4 * 32 * 2 * mebibyte, `grew by ${(after - before) / mebibyte} MiB`);
});

test("writers that announce much and send little cost nothing that lasts", async (context) => {
  const { before, after } = await attacked(context, async (path, honest) => {
    for (let round = 0; round < 8; round += 1) {
      const sockets = await Promise.all(Array.from({ length: 8 }, () => transmitting(path)));
      for (const socket of sockets)
        socket.write(
          encodeRequest({
            command: nbdCommand.write,
            flags: 0,
            cookieHigh: 0,
            cookieLow: 1,
            offset: 0,
            length: 32 * mebibyte,
          }),
        );
      await honest.read(0, 4_096);
      const closed = Promise.all(sockets.map((socket) => once(socket, "close")));
      for (const socket of sockets) socket.end(Buffer.alloc(100)).resume();
      await closed;
    }
  });
  assert.ok(after - before < 300 * mebibyte, `grew by ${(after - before) / mebibyte} MiB`);
});

test("a flood of small requests, of unknown commands and of oversize ones leaves others their turn", async (context) => {
  await attacked(context, async (path, honest) => {
    const flood = await transmitting(path);
    const small = Buffer.concat(Array.from({ length: 5_000 }, (_, index) => read(index, index % 2)));
    const odd = Buffer.concat(
      Array.from({ length: 5_000 }, (_, index) =>
        encodeRequest({
          command: 9 + index,
          flags: index & 0xffff,
          cookieHigh: 0,
          cookieLow: index,
          offset: 2 ** 52,
          length: 0xffffffff,
        }),
      ),
    );
    flood.setMaxListeners(0);
    const pump = async (): Promise<void> => {
      while (!flood.destroyed) {
        if (!flood.write(small) || !flood.write(odd))
          await Promise.race([once(flood, "drain"), once(flood, "close")]);
      }
    };
    flood.resume();
    const pumping = pump();
    let slowest = 0;
    for (let count = 0; count < 100; count += 1) {
      const start = performance.now();
      await honest.read(0, 4_096);
      slowest = Math.max(slowest, performance.now() - start);
    }
    flood.destroy();
    await pumping;
    assert.ok(slowest < 2_000, `an honest read took ${slowest} ms`);
    const oversize = await transmitting(path);
    oversize.write(
      encodeRequest({
        command: nbdCommand.write,
        flags: 0,
        cookieHigh: 0,
        cookieLow: 1,
        offset: 0,
        length: 33 * mebibyte,
      }),
    );
    await once(oversize.resume(), "close");
  });
});
