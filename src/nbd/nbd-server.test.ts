import assert from "node:assert/strict";
import { once } from "node:events";
import { existsSync, mkdtempSync, rmSync, statSync } from "node:fs";
import { type Socket, connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { Worker } from "node:worker_threads";
import { systemClock } from "#kernel/clock.ts";
import { silentLog } from "#kernel/log.ts";
import { systemRandom } from "#kernel/random.ts";
import { Secret } from "#kernel/secret.ts";
import type { BlockDevice } from "#model/block-device.ts";
import { encodeClientFlags, encodeInfoRequest, encodeOption } from "#wire/nbd/handshake.ts";
import { nbdCommand, nbdError, nbdOption, simpleReplyBytes } from "#wire/nbd/protocol.ts";
import { encodeRequest } from "#wire/nbd/transmission.ts";
import { type ExportConnection, singleExport } from "./export-provider.ts";
import { MemoryDevice } from "./memory-device.ts";
import { openNbdClient } from "./nbd-client.ts";
import { type NbdServerOptions, startNbdServer } from "./nbd-server.ts";

const folder = mkdtempSync(join(tmpdir(), "understudy-nbd-"));
after(() => rmSync(folder, { recursive: true, force: true }));
let sockets = 0;
const freshPath = (): string => join(folder, `${(sockets += 1)}.sock`);
const sizeBytes = 1024 * 1024;

function serve(device: BlockDevice, options: Partial<NbdServerOptions> = {}) {
  const listen = { kind: "unix", path: freshPath() } as const;
  const base = { listen, provider: singleExport("disk", device), clock: systemClock, log: silentLog };
  return startNbdServer({ ...base, ...options });
}

const clientOf = (server: { address: NbdServerOptions["listen"] }) => ({
  address: server.address,
  exportName: "disk",
  clock: systemClock,
  random: systemRandom,
  log: silentLog,
});

/** A device whose writes end when the test says so. */
function gatedDevice() {
  const memory = new MemoryDevice({ sizeBytes });
  const gate = Promise.withResolvers<void>();
  const started = Promise.withResolvers<void>();
  let running = 0;
  let most = 0;
  let begun = 0;
  const device: BlockDevice = {
    sizeBytes,
    read: (offset, length) => memory.read(offset, length),
    extents: (offset, length) => memory.extents(offset, length),
    write: async (offset, data) => {
      running += 1;
      begun += 1;
      most = Math.max(most, running);
      started.resolve();
      await gate.promise;
      running -= 1;
      await memory.write(offset, data);
    },
    zero: (offset, length) => memory.zero(offset, length),
    trim: (offset, length) => memory.trim(offset, length),
    flush: () => memory.flush(),
    [Symbol.asyncDispose]: async () => {},
  };
  return {
    device,
    memory,
    open: () => gate.resolve(),
    started: started.promise,
    most: () => most,
    begun: () => begun,
  };
}

/** A connection in the transmission phase with simple replies, made by hand. */
async function rawConnection(
  path: string,
): Promise<{ socket: Socket; received: () => Buffer; until: (bytes: number) => Promise<void> }> {
  const socket = connect({ path, allowHalfOpen: true });
  socket.setMaxListeners(0);
  let received = Buffer.alloc(0);
  socket.on("error", () => {});
  socket.on("data", (chunk) => (received = Buffer.concat([received, chunk])));
  const until = async (bytes: number): Promise<void> => {
    while (received.length < bytes && !socket.destroyed && !socket.readableEnded)
      await Promise.race([once(socket, "data"), once(socket, "end")]);
  };
  socket.write(encodeClientFlags(3));
  socket.write(encodeOption(nbdOption.exportName, Buffer.from("disk")));
  await until(18 + 10);
  received = received.subarray(28);
  return { socket, received: () => received, until };
}

const write = (cookieLow: number, length = 4): Buffer =>
  Buffer.concat([
    encodeRequest({ command: nbdCommand.write, flags: 0, cookieHigh: 0, cookieLow, offset: 0, length }),
    Buffer.alloc(length, cookieLow),
  ]);

const replies = (bytes: Buffer): [cookie: number, error: number][] =>
  Array.from({ length: bytes.length / simpleReplyBytes }, (_, index) => [
    bytes.readUInt32BE(index * simpleReplyBytes + 12),
    bytes.readUInt32BE(index * simpleReplyBytes + 4),
  ]);

test("a shutdown lets what runs end, answers the rest ESHUTDOWN, and ends the connection", async () => {
  const { device, open, started, memory } = gatedDevice();
  const server = await serve(device);
  assert.ok(server.address.kind === "unix");
  const { path } = server.address;
  assert.equal(statSync(path).mode & 0o777, 0o600);
  const { socket, received, until } = await rawConnection(path);
  socket.write(write(1));
  await started;
  const closed = server.close();
  socket.write(write(2));
  await until(simpleReplyBytes);
  open();
  await once(socket, "end");
  assert.deepEqual(replies(received()), [
    [2, nbdError.ESHUTDOWN],
    [1, 0],
  ]);
  await closed;
  socket.destroy();
  assert.equal((await memory.read(0, 1))[0], 1);
  assert.equal(existsSync(path), false);
});

test("an export can wait for what its client has sent and nobody has looked at yet", async () => {
  const { device, open, started, begun } = gatedDevice();
  const attached = Promise.withResolvers<ExportConnection>();
  await using server = await serve(device, {
    provider: singleExport("disk", device, { attached: attached.resolve }),
    limits: { maxRequests: 1 },
  });
  assert.ok(server.address.kind === "unix");
  const { socket } = await rawConnection(server.address.path);
  const connection = await attached.promise;
  await connection.caughtUp(new AbortController().signal);
  socket.write(Buffer.concat([write(1), write(2), write(3)]));
  await started;
  const waiting = new AbortController();
  let isCaughtUp = false;
  const refused = assert.rejects(connection.caughtUp(waiting.signal), /no longer/u);
  const caughtUp = connection.caughtUp(new AbortController().signal).then(() => (isCaughtUp = true));
  for (let turn = 0; turn < 5; turn += 1) await new Promise((resolve) => void setImmediate(resolve));
  assert.deepEqual([isCaughtUp, begun()], [false, 1]);
  waiting.abort(new Error("no longer"));
  await refused;
  open();
  await caughtUp;
  assert.equal(begun(), 3);
  socket.destroy();
});

test("a client tries again elsewhere what a server that shuts down did not do", async () => {
  const { device, open, started } = gatedDevice();
  const server = await serve(device);
  const told = Promise.withResolvers<void>();
  const log = {
    ...silentLog,
    info: (_fields: object, message: string) => /shutting down/.test(message) && told.resolve(),
  };
  await using client = await openNbdClient({ ...clientOf(server), log });
  const first = client.write(0, Buffer.alloc(10, 1));
  await started;
  const closed = server.close();
  const second = client.write(10, Buffer.alloc(10, 2));
  await told.promise;
  open();
  await first;
  await closed;
  const device2 = new MemoryDevice({ sizeBytes });
  await using _next = await serve(device2, { listen: server.address });
  await second;
  assert.deepEqual(await device2.read(10, 10), Buffer.alloc(10, 2));
});

test("a write that was refused at its header stays refused, though the export grows before its last byte", async () => {
  const { device, open } = gatedDevice();
  open();
  let size = sizeBytes;
  let judged = (): void => {};
  Object.defineProperty(device, "sizeBytes", {
    get: () => {
      judged();
      return size;
    },
  });
  await using server = await serve(device);
  assert.ok(server.address.kind === "unix");
  const { socket, received, until } = await rawConnection(server.address.path);
  const seen = new Promise<void>((resolve) => (judged = resolve));
  const beyond = {
    command: nbdCommand.write,
    flags: 0,
    cookieHigh: 0,
    cookieLow: 7,
    offset: sizeBytes,
    length: 8,
  };
  socket.write(Buffer.concat([encodeRequest(beyond), Buffer.alloc(4)]));
  await seen;
  size = 2 * sizeBytes;
  socket.write(Buffer.alloc(4));
  await until(simpleReplyBytes);
  assert.deepEqual(replies(received()), [[7, nbdError.ENOSPC]]);
  socket.destroy();
});

test("no more requests run at once than the limit says, and none is lost", async () => {
  const { device, open, most, started } = gatedDevice();
  await using server = await serve(device, { limits: { maxRequests: 3 } });
  assert.ok(server.address.kind === "unix");
  const { socket, received, until } = await rawConnection(server.address.path);
  socket.write(Buffer.concat(Array.from({ length: 50 }, (_, index) => write(index + 1, 100))));
  await started;
  open();
  await until(50 * simpleReplyBytes);
  assert.deepEqual(
    replies(received()).map(([cookie]) => cookie),
    Array.from({ length: 50 }, (_, index) => index + 1),
  );
  assert.equal(most(), 3);
  socket.destroy();
});

test("half a connection: what was asked before the end is answered", async () => {
  await using server = await serve(new MemoryDevice({ sizeBytes }));
  assert.ok(server.address.kind === "unix");
  const { socket, received } = await rawConnection(server.address.path);
  socket.end(Buffer.concat([write(1), write(2)]));
  await once(socket, "end");
  assert.deepEqual(
    replies(received()).map(([cookie, error]) => [cookie, error]),
    [
      [1, 0],
      [2, 0],
    ],
  );
});

test("one connection too many is closed, and a place that is free is given again", async () => {
  await using server = await serve(new MemoryDevice({ sizeBytes }), { maxConnections: 1 });
  const first = await openNbdClient(clientOf(server));
  await assert.rejects(openNbdClient(clientOf(server)), { code: "nbd.unreachable" });
  await first[Symbol.asyncDispose]();
  while (server.connections > 0) await new Promise((resolve) => setImmediate(resolve));
  await using again = await openNbdClient(clientOf(server));
  assert.equal(again.sizeBytes, sizeBytes);
});

test("a peer that does not get on with its handshake is dropped, also in the middle of an option", async () => {
  await using server = await serve(new MemoryDevice({ sizeBytes }), { handshakeMs: 50 });
  assert.ok(server.address.kind === "unix");
  for (const said of [
    Buffer.alloc(0),
    encodeClientFlags(3),
    Buffer.concat([encodeClientFlags(3), encodeOption(7).subarray(0, 9)]),
  ]) {
    const socket = connect({ path: server.address.path });
    socket.resume();
    socket.write(said);
    await once(socket, "close");
  }
});

test("options beyond all measure end the connection", async () => {
  await using server = await serve(new MemoryDevice({ sizeBytes }));
  assert.ok(server.address.kind === "unix");
  const large = encodeOption(nbdOption.go, encodeInfoRequest({ exportName: "disk", infos: [] }));
  large.writeUInt32BE(0x7fffffff, 12);
  const many = Buffer.concat(Array.from({ length: 200 }, () => encodeOption(nbdOption.structuredReply)));
  for (const said of [large, many]) {
    const socket = connect({ path: server.address.path });
    socket.on("error", () => {});
    socket.resume();
    socket.write(Buffer.concat([encodeClientFlags(3), said]));
    await once(socket, "close");
  }
});

test("an address that is in use is refused; a socket left by a dead process is not in use", async () => {
  const device = new MemoryDevice({ sizeBytes });
  await using server = await serve(device);
  await assert.rejects(serve(device, { listen: server.address }), { code: "port.in_use" });
  const path = freshPath();
  const { execFileSync } = await import("node:child_process");
  const leave = `require("node:net").createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, "SIGKILL"))`;
  assert.throws(() => execFileSync(process.execPath, ["-e", leave], { stdio: "ignore" }));
  assert.ok(existsSync(path), "the dead process left its socket");
  await using again = await serve(device, { listen: { kind: "unix", path } });
  await using client = await openNbdClient(clientOf(again));
  assert.equal(client.sizeBytes, sizeBytes);
});

test("who may write is settled before anybody connects", async () => {
  const device = new MemoryDevice({ sizeBytes });
  const tcp = (host: string) => ({ listen: { kind: "tcp", host, port: 0 } }) as const;
  const certificate = { cert: "", key: new Secret("") };
  const refused: Partial<NbdServerOptions>[] = [
    tcp("127.0.0.1"),
    { ...tcp("0.0.0.0"), unauthenticated: "write-on-loopback" },
    { ...tcp("127.0.0.1"), tls: { mode: "required", certificate } },
    { ...tcp("127.0.0.1"), tls: { mode: "required" } },
    { tls: { mode: "required", certificate } },
  ];
  for (const options of refused) await assert.rejects(serve(device, options), { code: "config.invalid" });
  await using readable = await serve(device, { ...tcp("127.0.0.1"), unauthenticated: "read" });
  await using reader = await openNbdClient(clientOf(readable));
  assert.equal(reader.readOnly, true);
  await assert.rejects(reader.write(0, Buffer.alloc(1)), { code: "auth.forbidden" });
  await using open = await serve(device, { ...tcp("127.0.0.1"), unauthenticated: "write-on-loopback" });
  await using writer = await openNbdClient(clientOf(open));
  await writer.write(0, Buffer.alloc(1));
  const tls = { mode: "optional", pskOf: () => undefined } as const;
  await using keyed = await serve(device, { ...tcp("127.0.0.1"), tls });
  await assert.rejects(openNbdClient(clientOf(keyed)), { code: "nbd.refused" });
});

test("a client that leaves in the middle of everything leaves nothing behind", async () => {
  const { device, open, started } = gatedDevice();
  await using server = await serve(device);
  assert.ok(server.address.kind === "unix");
  const { socket } = await rawConnection(server.address.path);
  socket.write(Buffer.concat([write(1), write(2).subarray(0, 30)]));
  await started;
  socket.destroy();
  open();
  while (server.connections > 0) await new Promise((resolve) => setImmediate(resolve));
});

test("a client asks for what is still there when a server is not one", async () => {
  const path = freshPath();
  const impostor = createServer((socket) => socket.end("HTTP/1.1 400 Bad Request\r\n\r\n")).listen(path);
  await once(impostor, "listening");
  await assert.rejects(openNbdClient(clientOf({ address: { kind: "unix", path } })), {
    code: "nbd.protocol",
  });
  impostor.close();
});

test("what is sent in the clear before TLS was agreed is not taken for what came over TLS", async () => {
  const tls = { mode: "required", pskOf: () => undefined } as const;
  await using server = await serve(new MemoryDevice({ sizeBytes }), { tls });
  assert.ok(server.address.kind === "unix");
  const socket = connect({ path: server.address.path });
  let received = 0;
  socket.on("error", () => {});
  socket.on("data", (chunk) => (received += chunk.length));
  const smuggled = encodeOption(nbdOption.exportName, Buffer.from("disk"));
  socket.write(Buffer.concat([encodeClientFlags(3), encodeOption(nbdOption.startTls), smuggled]));
  await once(socket, "close");
  assert.equal(received, 18, "nothing but the greeting");
});

test("a bug ends the process, and is no dropped connection", async () => {
  const thread = new Worker(new URL("./faulty-export.fixture.ts", import.meta.url));
  const died = once(thread, "error");
  const [address] = (await once(thread, "message")) as [NbdServerOptions["listen"]];
  const client = openNbdClient({ ...clientOf({ address }), reconnectMs: 0 });
  const refused = assert.rejects(client);
  const [error] = (await died) as [Error];
  assert.match(error.message, /a bug in opening an export/u);
  await refused;
});
