import assert from "node:assert/strict";
import { connect, type Socket } from "node:net";
import { describe, it } from "node:test";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import * as fc from "fast-check";
import type { Forwarder } from "./forwarder.ts";
import { ask, never, openForwarder, openOrigin, type Origin, rawTalk, until } from "./forwarder.fixture.ts";

const FUZZ_RUNS = Number(process.env["FUZZ_RUNS"] ?? 20_000);
const limit = { timeout: Math.max(120_000, FUZZ_RUNS * 3) };

async function openPair(
  limits: Parameters<typeof openForwarder>[0] = {},
): Promise<
  { readonly forwarder: Forwarder; readonly origin: Origin; readonly seen: string[] } & AsyncDisposable
> {
  const seen: string[] = [];
  const origin = await openOrigin("a", (incoming, response) => {
    seen.push(`${incoming.method} ${incoming.url}`);
    incoming.resume();
    incoming.on("end", () => response.end("a"));
  });
  const forwarder = await openForwarder(limits);
  await forwarder.switchOf("web").apply({ epoch: 1, backends: [origin.backend] }, never);
  return {
    forwarder,
    origin,
    seen,
    async [Symbol.asyncDispose]() {
      await forwarder.close();
      await origin[Symbol.asyncDispose]();
    },
  };
}

/** What is reachable, in bytes. */
function heldBytes(): number {
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc") as () => void;
  collect();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

/** Writes and takes no notice of what comes back; resolves when the connection is over. */
function pour(port: number, bytes: Buffer): Promise<void> {
  return new Promise((resolve) => {
    const socket = connect({ port, host: "127.0.0.1" }, () => socket.end(bytes));
    socket.on("error", () => socket.destroy());
    socket.on("data", () => undefined);
    socket.on("close", () => resolve());
    socket.setTimeout(2_000, () => socket.destroy());
  });
}

void describe("forwarder, hostile input", limit, () => {
  void it("lets no smuggled request through", async () => {
    await using pair = await openPair({ headMs: 300, firstByteMs: 300, keepAliveMs: 300 });
    const smuggled = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
    const head = "POST /front HTTP/1.1\r\nHost: x\r\n";
    const hostile = [
      `${head}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n${smuggled}`,
      `${head}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n${smuggled}`,
      `${head}Content-Length: 0\r\nContent-Length: 44\r\n\r\n${smuggled}`,
      `${head}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n${smuggled}`,
      `${head}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n${smuggled}`,
      `${head}Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n${smuggled}`,
      `${head}Transfer-Encoding: identity\r\nContent-Length: 3\r\n\r\nabc${smuggled}`,
      `${head}X: y\nContent-Length: 0\r\n\r\n${smuggled}`,
      `${head}Foo: bar\r\n Content-Length: 44\r\nContent-Length : 0\r\n\r\n${smuggled}`,
      `POST /front HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n${smuggled}`,
      `GET /front HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n${smuggled}`,
      `GET /front HTTP/1.1\r\n\r\n${smuggled}`,
      `GET /front HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 44\r\n\r\n${smuggled}`,
      `CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: x\r\n\r\n${smuggled}`,
      `${head}Transfer-Encoding: chunked\r\n\r\n5;a\nb\r\nhello\r\n0\r\n\r\n${smuggled}`,
      `${head}Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n${smuggled}`,
    ];
    for (const bytes of hostile) {
      const answer = await rawTalk(pair.forwarder.address, Buffer.from(bytes, "latin1"));
      assert.match(answer, /^HTTP\/1\.1 (4\d\d|5\d\d) /, JSON.stringify(bytes));
    }
    assert.deepEqual(
      pair.seen.filter((line) => line.includes("smuggled")),
      [],
    );
    assert.equal((await ask(pair.forwarder.address)).body, "a");
  });

  void it("bounds heads in size and in time", async () => {
    await using pair = await openPair({ headMs: 200, headerBytes: 8_192 });
    const huge = `GET / HTTP/1.1\r\nHost: x\r\nX: ${"y".repeat(100_000)}\r\n\r\n`;
    assert.match(await rawTalk(pair.forwarder.address, huge), /^HTTP\/1\.1 431 /);
    assert.match(
      await rawTalk(pair.forwarder.address, "GET / HTTP/1.1\r\nHost: x\r\nX: "),
      /^HTTP\/1\.1 408 /,
    );
    // A connection that sends nothing at all is closed too.
    await rawTalk(pair.forwarder.address, "");
    assert.equal((await ask(pair.forwarder.address)).body, "a");
  });

  void it("bounds connections, and the requests that one connection has under way", async () => {
    await using origin = await openOrigin("a", () => {});
    await using forwarder = await openForwarder({ connections: 20 });
    await forwarder.switchOf("web").apply({ epoch: 1, backends: [origin.backend] }, never);
    const piled = await rawTalk(forwarder.address, "GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(1_000));
    assert.equal(piled, "");
    assert.ok((forwarder.counters()[0]?.requests ?? 0) <= 16);
    const sockets: Socket[] = [];
    let refused = 0;
    for (let index = 0; index < 40; index += 1) {
      const socket = connect(forwarder.address.port, "127.0.0.1");
      socket.on("error", () => socket.destroy());
      socket.on("data", () => undefined);
      socket.on("close", () => {
        refused += 1;
      });
      sockets.push(socket);
    }
    await until(() => refused === 20);
    for (const socket of sockets) socket.destroy();
  });

  void it("releases everything when clients go away in the middle", async () => {
    await using origin = await openOrigin("a", (_incoming, response) => response.write("begun"));
    await using forwarder = await openForwarder();
    await forwarder.switchOf("web").apply({ epoch: 1, backends: [origin.backend] }, never);
    for (let index = 0; index < 50; index += 1) {
      const socket = connect(forwarder.address.port, "127.0.0.1");
      socket.on("error", () => socket.destroy());
      socket.write(
        `${index % 2 === 0 ? "GET" : "POST"} / HTTP/1.1\r\nHost: x\r\nContent-Length: ${index % 3}\r\n\r\n`,
      );
      socket.on("data", () => socket.destroy());
      if (index % 5 === 0) socket.end();
    }
    await until(() => (forwarder.counters()[0]?.requests ?? 0) >= 40);
    await until(() => forwarder.counters()[0]?.active === 0);
    await until(() => forwarder.counters()[0]?.perBackend[0]?.active === 0);
  });

  void it(`survives ${FUZZ_RUNS} raw inputs with bounded memory, and serves on`, async () => {
    await using pair = await openPair({ headMs: 500, firstByteMs: 500, idleMs: 500, keepAliveMs: 500 });
    const { port } = pair.forwarder.address;
    const token = fc.constantFrom(
      "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
      "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
      "GET / HTTP/1.1\r\n",
      "POST /x HTTP/1.1\r\n",
      "Host: x\r\n",
      "Content-Length: 5\r\n",
      "Transfer-Encoding: chunked\r\n",
      "Connection: Upgrade\r\nUpgrade: websocket\r\n",
      "Connection: close\r\n",
      "Expect: 100-continue\r\n",
      "\r\n",
      "5\r\nhello\r\n",
      "0\r\n\r\n",
      "hello",
      "\n",
      "\r",
      ":",
      " ",
      "HTTP/1.0",
      "OPTIONS * HTTP/1.1\r\n",
      "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
      "\0",
      "\u00ff",
    );
    const input = fc.oneof(
      {
        weight: 3,
        arbitrary: fc.array(token, { maxLength: 12 }).map((parts) => Buffer.from(parts.join(""), "latin1")),
      },
      { weight: 1, arbitrary: fc.uint8Array({ maxLength: 400 }).map((bytes) => Buffer.from(bytes)) },
    );
    const seed = Number(process.env["FUZZ_SEED"] ?? Date.now() % 1_000_000_007);
    let requests = 0;
    const pourAll = async (numRuns: number): Promise<void> => {
      const inputs = fc.sample(input, { numRuns, seed: seed + numRuns });
      const worker = async (): Promise<void> => {
        for (let bytes = inputs.pop(); bytes !== undefined; bytes = inputs.pop()) await pour(port, bytes);
      };
      await Promise.all(Array.from({ length: 64 }, worker));
      await until(() => pair.forwarder.counters()[0]?.active === 0);
      requests += pair.seen.splice(0).length;
    };
    // What stays is measured, not what was not collected yet: after the first inputs everything that is made once is there.
    await pourAll(Math.min(2000, FUZZ_RUNS));
    const before = heldBytes();
    const batch = 20_000;
    for (let left = FUZZ_RUNS - 2000; left > 0; left -= batch) await pourAll(Math.min(batch, left));
    const after = heldBytes();
    assert.ok(after - before < 20_000_000, `${before} -> ${after} bytes held`);
    assert.ok(requests > 0, "some inputs are requests");
    assert.equal((await ask(pair.forwarder.address)).body, "a");
  });
});
