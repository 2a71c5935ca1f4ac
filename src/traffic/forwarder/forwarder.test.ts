import assert from "node:assert/strict";
import { once } from "node:events";
import { Agent, type IncomingMessage, request } from "node:http";
import { connect, type Socket } from "node:net";
import { describe, it } from "node:test";
import { isOperational } from "#kernel/errors.ts";
import { ask, deadBackend, never, openForwarder, openOrigin, rawTalk, until } from "./forwarder.fixture.ts";

const limit = { timeout: 20_000 };

void describe("forwarder, HTTP", limit, () => {
  void it("answers 503 and names the route before its first switch", async () => {
    await using forwarder = await openForwarder();
    const answer = await ask(forwarder.address);
    assert.equal(answer.status, 503);
    assert.match(answer.body, /route web/);
    assert.equal(answer.headers["retry-after"], "1");
  });

  void it("forwards method, path, body, Host and repeated fields, and drops hop-by-hop fields both ways", async () => {
    await using origin = await openOrigin("a", (incoming, response) => {
      const chunks: Buffer[] = [];
      incoming.on("data", (chunk: Buffer) => chunks.push(chunk));
      incoming.on("end", () => {
        response.writeHead(201, [
          ["Set-Cookie", "a=1"],
          ["Set-Cookie", "b=2"],
          ["Connection", "x-secret"],
          ["X-Secret", "hop"],
          ["X-Kept", "yes"],
        ] as unknown as string[]);
        response.end(
          JSON.stringify({
            method: incoming.method,
            url: incoming.url,
            raw: incoming.rawHeaders,
            body: Buffer.concat(chunks).toString(),
          }),
        );
      });
    });
    await using forwarder = await openForwarder();
    await forwarder.switchOf("web").apply({ epoch: 1, backends: [origin.backend] }, never);
    const answer = await ask(forwarder.address, {
      method: "PATCH",
      path: "/a%20b?q=1",
      headers: {
        host: "shop.example",
        connection: "x-drop",
        "x-drop": "1",
        te: "trailers",
        "x-forwarded-for": "6.6.6.6",
        "x-forwarded-proto": "https",
        "x-two": ["1", "2"],
        "transfer-encoding": "chunked",
      },
      body: "hello",
    });
    assert.equal(answer.status, 201);
    assert.deepEqual(answer.headers["set-cookie"], ["a=1", "b=2"]);
    assert.equal(answer.headers["x-secret"], undefined);
    assert.equal(answer.headers["x-kept"], "yes");
    const seen = JSON.parse(answer.body) as { method: string; url: string; raw: string[]; body: string };
    assert.deepEqual([seen.method, seen.url, seen.body], ["PATCH", "/a%20b?q=1", "hello"]);
    const fields = new Map<string, string[]>();
    for (let index = 0; index < seen.raw.length; index += 2) {
      const name = (seen.raw[index] ?? "").toLowerCase();
      fields.set(name, [...(fields.get(name) ?? []), seen.raw[index + 1] ?? ""]);
    }
    assert.deepEqual(fields.get("host"), ["shop.example"]);
    assert.deepEqual(fields.get("x-two"), ["1", "2"]);
    assert.deepEqual(fields.get("x-forwarded-for"), ["127.0.0.1"], "a client's own claim is not believed");
    assert.deepEqual(fields.get("x-forwarded-proto"), ["http"]);
    assert.equal(fields.has("x-drop"), false);
    assert.equal(fields.has("te"), false);
    assert.deepEqual(fields.get("transfer-encoding"), ["chunked"]);
  });

  void it("sends the next request of a kept-alive connection to the new set", async () => {
    await using a = await openOrigin("a");
    await using b = await openOrigin("b");
    await using forwarder = await openForwarder();
    const route = forwarder.switchOf("web");
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    await route.apply({ epoch: 1, backends: [a.backend] }, never);
    assert.equal((await ask(forwarder.address, { agent })).body, "a");
    await route.apply({ epoch: 2, backends: [b.backend] }, never);
    assert.equal((await ask(forwarder.address, { agent })).body, "b");
    assert.deepEqual((await route.read(never)).backends, [b.backend]);
    agent.destroy();
    const [counters] = forwarder.counters();
    assert.equal(counters?.switches, 2);
    assert.equal(counters.requests, 2);
    assert.equal(counters.epoch, 2);
  });

  void it("lets an exchange under way finish on the removed backend, and cuts it at the drain limit", async () => {
    let finish = (): void => {};
    await using a = await openOrigin("a", (incoming, response) => {
      response.write("first ");
      if (incoming.url === "/short") finish = () => response.end("last");
    });
    await using b = await openOrigin("b");
    await using forwarder = await openForwarder({ drainMs: 200 });
    const route = forwarder.switchOf("web");
    await route.apply({ epoch: 1, backends: [a.backend] }, never);
    const short = ask(forwarder.address, { path: "/short" });
    const long = ask(forwarder.address, { path: "/long" }).catch((error: Error) => error);
    await until(() => forwarder.counters()[0]?.active === 2);
    await route.apply({ epoch: 1, backends: [b.backend] }, never);
    assert.equal((await ask(forwarder.address)).body, "b");
    finish();
    assert.equal((await short).body, "first last");
    assert.ok((await long) instanceof Error, "the client must see that the answer is not whole");
    await until(() => forwarder.counters()[0]?.active === 0);
    assert.deepEqual(
      forwarder.counters()[0]?.perBackend.map((one) => one.id),
      ["b"],
    );
  });

  void it("goes on to another backend when one refuses, whatever the method", async () => {
    const dead = await deadBackend("dead");
    await using a = await openOrigin("a");
    await using forwarder = await openForwarder();
    await forwarder.switchOf("web").apply({ epoch: 1, backends: [dead, a.backend] }, never);
    for (let round = 0; round < 6; round += 1) {
      const answer = await ask(forwarder.address, { method: "POST", body: "x".repeat(10_000) });
      assert.deepEqual([answer.status, answer.body], [200, "a"]);
    }
    const refused = forwarder.counters()[0]?.perBackend.find((one) => one.id === "dead");
    assert.equal(refused?.requests, 1, "put aside after the first refusal");
    assert.equal(refused.aside, true);
  });

  void it("repeats a GET whose connection broke, and never a POST", async () => {
    await using breaking = await openOrigin("breaking", (incoming) => incoming.socket.destroy());
    await using a = await openOrigin("a");
    await using forwarder = await openForwarder();
    await forwarder.switchOf("web").apply({ epoch: 1, backends: [breaking.backend, a.backend] }, never);
    const statuses = { GET: new Set<number>(), POST: new Set<number>() };
    for (const method of ["GET", "POST"] as const) {
      for (let round = 0; round < 4; round += 1)
        statuses[method].add((await ask(forwarder.address, { method })).status);
    }
    assert.deepEqual([...statuses.GET], [200]);
    assert.ok(statuses.POST.has(502));
  });

  void it("answers 502 when every backend refuses and 504 when none answers in time", async () => {
    await using silent = await openOrigin("silent", () => {});
    await using forwarder = await openForwarder({ firstByteMs: 100 });
    const route = forwarder.switchOf("web");
    await route.apply({ epoch: 1, backends: [await deadBackend("dead")] }, never);
    const refused = await ask(forwarder.address);
    assert.equal(refused.status, 502);
    assert.doesNotMatch(refused.body, /127\.0\.0\.1|ECONN/);
    await route.apply({ epoch: 1, backends: [silent.backend] }, never);
    assert.equal((await ask(forwarder.address)).status, 504);
    assert.equal(forwarder.counters()[0]?.active, 0);
  });

  void it("answers 408 when the request's body stops coming", async () => {
    await using a = await openOrigin("a");
    await using forwarder = await openForwarder({ firstByteMs: 100 });
    await forwarder.switchOf("web").apply({ epoch: 1, backends: [a.backend] }, never);
    const text = await rawTalk(
      forwarder.address,
      "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc",
    );
    assert.match(text, /^HTTP\/1\.1 408 /);
  });

  void it("tunnels an upgrade both ways, refuses one with the backend's own words, and cuts it at the drain limit", async () => {
    await using a = await openOrigin("a", (_incoming, response) => {
      response.statusCode = 403;
      response.end("no");
    });
    a.server.on("upgrade", (_incoming, socket) => {
      socket.write(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-A: 1\r\n\r\nhello",
      );
      socket.on("error", () => socket.destroy());
      socket.pipe(socket);
    });
    await using b = await openOrigin("b", (_incoming, response) => {
      response.statusCode = 403;
      response.end("no");
    });
    await using forwarder = await openForwarder({ drainMs: 100 });
    const route = forwarder.switchOf("web");
    await route.apply({ epoch: 1, backends: [a.backend] }, never);
    const upgrade = (): ReturnType<typeof request> =>
      request({
        ...forwarder.address,
        agent: false,
        headers: { connection: "Upgrade", upgrade: "websocket" },
      }).end();
    const outgoing = upgrade();
    const [answer, socket, head] = (await once(outgoing, "upgrade")) as [
      { headers: Record<string, string> },
      Socket,
      Buffer,
    ];
    assert.equal(answer.headers["x-a"], "1");
    let got = head.toString();
    socket.on("data", (chunk: Buffer) => {
      got += chunk.toString();
    });
    socket.write("world");
    await until(() => got === "helloworld");
    const closed = once(socket, "close");
    await route.apply({ epoch: 2, backends: [b.backend] }, never);
    await closed;
    await until(() => forwarder.counters()[0]?.active === 0);
    const refused = upgrade();
    const [response] = (await once(refused, "response")) as [IncomingMessage];
    assert.equal(response.statusCode, 403);
    response.resume();
    await once(response, "close");
  });

  void it("takes routes by host and path prefix, and redirects where told to", async () => {
    await using a = await openOrigin("a");
    await using b = await openOrigin("b");
    await using forwarder = await openForwarder(
      {},
      {
        routes: [
          { name: "api", match: { hosts: ["Shop.example"], pathPrefix: "/api" } },
          { name: "moved", match: { hosts: ["old.example"] }, redirect: { status: 307, scheme: "https" } },
          { name: "shop", match: { hosts: ["shop.example"] } },
        ],
      },
    );
    await forwarder.switchOf("api").apply({ epoch: 1, backends: [a.backend] }, never);
    await forwarder.switchOf("shop").apply({ epoch: 1, backends: [b.backend] }, never);
    await forwarder
      .switchOf("moved")
      .apply({ epoch: 1, backends: [{ id: "new", host: "new.example", port: 443 }] }, never);
    const to = async (host: string, path: string): Promise<string> =>
      (await ask(forwarder.address, { path, headers: { host } })).body;
    assert.equal(await to("shop.example:80", "/api?x"), "a");
    assert.equal(await to("shop.example", "/api/1"), "a");
    assert.equal(await to("SHOP.example", "/apiary"), "b");
    const moved = await ask(forwarder.address, { path: "/p?q=1", headers: { host: "old.example" } });
    assert.deepEqual([moved.status, moved.headers.location], [307, "https://new.example/p?q=1"]);
    assert.equal((await ask(forwarder.address, { headers: { host: "none.example" } })).status, 404);
  });

  void it("refuses fenced epochs, empty sets and unknown routes", async () => {
    await using a = await openOrigin("a");
    await using forwarder = await openForwarder();
    const route = forwarder.switchOf("web");
    await route.apply({ epoch: 5, backends: [a.backend] }, never);
    const dead = await deadBackend("dead");
    await assert.rejects(route.apply({ epoch: 4, backends: [dead] }, never), (error) =>
      isOperational(error, "state.fenced"),
    );
    await assert.rejects(route.apply({ epoch: 6, backends: [] }, never), (error) =>
      isOperational(error, "input.invalid"),
    );
    assert.throws(
      () => forwarder.switchOf("none"),
      (error) => isOperational(error, "not_found"),
    );
    assert.equal((await ask(forwarder.address)).body, "a");
  });

  void it("does not buffer for a client that does not read", async () => {
    let sent = 0;
    await using a = await openOrigin("a", (_incoming, response) => {
      const chunk = Buffer.alloc(65_536);
      const more = (): void => {
        while (sent < 200_000_000 && !response.destroyed) {
          sent += chunk.length;
          if (!response.write(chunk)) {
            response.once("drain", more);
            return;
          }
        }
        response.end();
      };
      more();
    });
    await using forwarder = await openForwarder({ idleMs: 300 });
    await forwarder.switchOf("web").apply({ epoch: 1, backends: [a.backend] }, never);
    const socket = connect(forwarder.address.port, "127.0.0.1");
    socket.pause();
    socket.on("error", () => socket.destroy());
    socket.write("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    await until(() => forwarder.counters()[0]?.active === 1);
    // The idle limit ends it: nothing moves while the client does not read.
    await until(() => forwarder.counters()[0]?.active === 0);
    assert.ok(sent < 50_000_000, `the backend could send ${sent} bytes`);
    socket.destroy();
  });
});
