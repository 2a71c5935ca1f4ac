import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type RequestListener } from "node:http";
import { type AddressInfo, createServer as createTcpServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { codesOf, runProbe, type Probe, type ProbeCheck } from "#health/probe.ts";

async function listening(server: Server): Promise<number> {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return (server.address() as AddressInfo).port;
}

async function withHttp(
  answer: RequestListener,
  look: (url: string, port: number) => Promise<void>,
): Promise<void> {
  const server = createServer(answer);
  const port = await listening(server);
  try {
    await look(`http://127.0.0.1:${port}/`, port);
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

function probe(check: ProbeCheck, timeoutMs = 2000): Probe {
  return { name: "p", everyMs: 1000, timeoutMs, check };
}

const forever = new AbortController().signal;

test("an application that answers as it should passes", async () => {
  await withHttp(
    (_, answer) => answer.end("welcome to the shop"),
    async (url) => {
      const check = { type: "http", url, status: 200, contains: "the shop" } as const;
      assert.deepEqual(await runProbe(probe(check), forever), { ok: true });
    },
  );
});

test("another status, and an answer without the words, is a failing application", async () => {
  await withHttp(
    (request, answer) => {
      answer.statusCode = request.url === "/broken" ? 503 : 200;
      answer.end("sorry");
    },
    async (url) => {
      assert.deepEqual(await runProbe(probe({ type: "http", url: `${url}broken`, status: 200 }), forever), {
        ok: false,
        code: "application.failing",
        detail: "answered 503, expected 200",
      });
      const check = { type: "http", url, status: 200, contains: "the shop" } as const;
      const missing = await runProbe(probe(check), forever);
      assert.equal(missing.ok ? "" : missing.code, "application.failing");
    },
  );
});

test("an answer without an end is read to its bound and no further", async () => {
  const chunk = Buffer.alloc(16 * 1024, "a");
  let sent = 0;
  await withHttp(
    (_, answer) => {
      const more = (): void => {
        while (!answer.destroyed && answer.write(chunk)) sent += chunk.length;
      };
      answer.on("drain", more);
      answer.write("the shop");
      more();
    },
    async (url) => {
      const check = { type: "http", url, status: 200, contains: "the shop" } as const;
      assert.deepEqual(await runProbe(probe(check), forever), { ok: true });
    },
  );
  assert.ok(sent < 64 * 1024 * 1024, `${sent} bytes were sent`);
});

test("a server that takes the connection and says nothing is unresponsive when the time is over", async () => {
  const held = createTcpServer();
  const port = await listening(held);
  held.on("connection", (socket) => socket.on("error", () => {}));
  const url = `http://127.0.0.1:${port}/`;
  assert.deepEqual(await runProbe(probe({ type: "http", url, status: 200 }, 150), forever), {
    ok: false,
    code: "application.unresponsive",
    detail: "no answer within 150 ms",
  });
  assert.deepEqual(await runProbe(probe({ type: "cloud_api", url }, 150), forever), {
    ok: false,
    code: "cloud.api_unreachable",
    detail: "no answer within 150 ms",
  });
  assert.deepEqual(await runProbe(probe({ type: "tcp", host: "127.0.0.1", port }), forever), { ok: true });
  held.close();
});

test("a port at which nobody listens is unresponsive, with the reason", async () => {
  const server = createTcpServer();
  const port = await listening(server);
  server.close();
  await once(server, "close");
  for (const check of [
    { type: "tcp", host: "127.0.0.1", port },
    { type: "http", url: `http://127.0.0.1:${port}/`, status: 200 },
  ] as const) {
    const result = await runProbe(probe(check), forever);
    assert.equal(result.ok ? "" : result.code, "application.unresponsive");
    assert.match(result.ok ? "" : result.detail, /ECONNREFUSED/);
  }
});

test("a cloud that refuses us is alive; one that answers with server errors is failing", async () => {
  let status = 403;
  await withHttp(
    (_, answer) => {
      answer.statusCode = status;
      answer.end();
    },
    async (url) => {
      assert.deepEqual(await runProbe(probe({ type: "cloud_api", url }), forever), { ok: true });
      status = 503;
      assert.deepEqual(await runProbe(probe({ type: "cloud_api", url }), forever), {
        ok: false,
        code: "cloud.api_failing",
        detail: "answered 503",
      });
    },
  );
});

test("the caller's signal is no finding", async () => {
  const held = createTcpServer((socket) => socket.on("error", () => {}));
  const port = await listening(held);
  const stop = new AbortController();
  const looking = runProbe(
    probe({ type: "http", url: `http://127.0.0.1:${port}/`, status: 200 }, 10_000),
    stop.signal,
  );
  await once(held, "connection");
  stop.abort(new Error("the witness ends"));
  await assert.rejects(looking, /the witness ends/);
  held.close();
});

test("a passing probe clears every code that it may have raised", () => {
  assert.deepEqual(codesOf({ type: "tcp", host: "h", port: 1 }), [
    "application.unresponsive",
    "application.failing",
  ]);
  assert.deepEqual(codesOf({ type: "cloud_api", url: "http://h" }), [
    "cloud.api_unreachable",
    "cloud.api_failing",
  ]);
});

test("a bare host is alive when somebody listens on its socket, and not when nobody does", async () => {
  const folder = mkdtempSync(join(tmpdir(), "probe-"));
  const path = join(folder, "host.sock");
  const check = { type: "cloud_api", url: `unix:${path}` } as const;
  const server = createTcpServer().listen(path);
  try {
    await once(server, "listening");
    assert.deepEqual(await runProbe(probe(check), forever), { ok: true });
    server.close();
    await once(server, "close");
    const seen = await runProbe(probe(check), forever);
    assert.ok(!seen.ok);
    assert.equal(seen.code, "cloud.api_unreachable");
    assert.match(seen.detail, /nothing answers on .*host\.sock/u);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
