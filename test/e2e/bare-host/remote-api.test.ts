// Calls between machines when the other one is gone, and when strangers are many.
import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { z } from "zod";
import { silentLog } from "#kernel/log.ts";
import { readCertificates } from "#main/host-place.ts";
import { LocalApiClient } from "#wire/local-api/local-api-client.ts";
import { serveRemoteApi } from "#wire/local-api/local-api-server.ts";
import { certify } from "./machines-apart.ts";

const methods = {
  answer: { input: z.strictObject({}), output: z.literal(42) },
  ponder: { input: z.strictObject({}), output: z.null() },
};

async function served(t: TestContext) {
  const folder = mkdtempSync(join(tmpdir(), "understudy-remote-api-"));
  t.after(() => rmSync(folder, { recursive: true }));
  certify(folder, ["control", "metal"]);
  const api = await serveRemoteApi({
    listen: { host: "127.0.0.1", port: 0 },
    certificates: readCertificates(join(folder, "metal"), "server"),
    callers: ["control"],
    methods,
    handlers: { answer: async () => 42 as const, ponder: () => new Promise<null>(() => {}) },
    log: silentLog,
  });
  t.after(() => api[Symbol.asyncDispose]());
  const clientTo = (port: number): LocalApiClient<typeof methods> => {
    const certificates = readCertificates(join(folder, "control"), "client");
    const client = new LocalApiClient({
      place: { host: "127.0.0.1", port, certificates },
      methods,
      peer: "the other machine",
      unreachable: "api.unreachable",
      lookEveryMs: 200,
    });
    t.after(() => client[Symbol.asyncDispose]());
    return client;
  };
  return { port: api.port, clientTo };
}

/** A way to the port that can be cut without a word: what is open stays open, and carries nothing any more. */
async function wayTo(t: TestContext, port: number) {
  const sockets: Socket[] = [];
  let isCut = false;
  const server = createServer((near) => {
    sockets.push(near.on("error", () => {}));
    if (isCut) return;
    const far = connect(port, "127.0.0.1");
    sockets.push(far.on("error", () => {}));
    near.on("data", (bytes) => void (isCut || far.write(bytes)));
    far.on("data", (bytes) => void (isCut || near.write(bytes)));
    near.on("close", () => far.destroy());
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  const address = server.address();
  assert.ok(address !== null && typeof address === "object");
  return { port: address.port, cut: () => (isCut = true) };
}

test("a call to a machine that is gone without a word ends, and one that takes long does not", async (t) => {
  const { port, clientTo } = await served(t);
  const way = await wayTo(t, port);
  const client = clientTo(way.port);
  assert.equal(await client.call("answer", {}, t.signal), 42);
  const long = client.call("ponder", {}, t.signal);
  const first = await Promise.race([long.catch((error: unknown) => error), pause(1_500)]);
  assert.equal(first, "paused", "it is waited for while a connection can be made");
  way.cut();
  await assert.rejects(long, { code: "api.unreachable", outcome: "unknown" });
});

test("strangers who open connections and say nothing keep nobody out", async (t) => {
  const { port, clientTo } = await served(t);
  const strangers = Array.from({ length: 2_000 }, () =>
    connect({ host: "127.0.0.1", port, localAddress: "127.0.0.2" }).on("error", () => {}),
  );
  t.after(() => strangers.forEach((socket) => socket.destroy()));
  await pause(500);
  assert.equal(await clientTo(port).call("answer", {}, t.signal), 42);
  // Who has left makes room.
  for (const socket of strangers) socket.destroy();
  await pause(200);
  const late = connect({ host: "127.0.0.1", port, localAddress: "127.0.0.2" }).on("error", () => {});
  t.after(() => late.destroy());
  await once(late, "connect");
  const closed = once(late, "close").then(() => "closed");
  assert.equal(await Promise.race([closed, pause(300)]), "paused");
});

function pause(ms: number): Promise<"paused"> {
  return new Promise((resolve) => void setTimeout(() => resolve("paused"), ms));
}
