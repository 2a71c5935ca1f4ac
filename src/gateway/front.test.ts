import assert from "node:assert/strict";
import { type Socket, connect } from "node:net";
import { type TestContext, test } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import { Pool } from "undici";
import {
  type Fixture,
  type FixtureOptions,
  type FakeCloud,
  errorReply,
  shop,
  signedForm,
  startFakeCloud,
  startFixture,
  upstreams,
  until,
} from "./gateway.fixture.ts";

async function both(
  t: TestContext,
  options: Partial<FixtureOptions> = {},
): Promise<{ cloud: FakeCloud; fixture: Fixture }> {
  const cloud = await startFakeCloud(t);
  return { cloud, fixture: await startFixture(t, { services: upstreams(cloud.endpoint), ...options }) };
}

/** Sends raw bytes and reads until the other side closes. */
function raw(fixture: Fixture, send: (socket: Socket) => void): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect(fixture.gateway.port, "127.0.0.1", () => send(socket));
    let got = "";
    socket.setEncoding("latin1");
    socket.on("data", (chunk: string) => {
      got += chunk;
    });
    socket.on("error", () => resolve(got));
    socket.on("close", () => resolve(got));
  });
}

const headOf = (length: number | "chunked"): string =>
  `POST / HTTP/1.1\r\nhost: x\r\nauthorization: AWS4-HMAC-SHA256 Credential=UKIAAAAAAAAAAAAAAAAA/20260101/eu-west-1/ec2/aws4_request\r\n${length === "chunked" ? "transfer-encoding: chunked" : `content-length: ${length}`}\r\n`;

test("a body of 10 MB is refused by its announced length, and its sender sees the answer", async (t) => {
  const { cloud, fixture } = await both(t);
  const body = "x".repeat(10_000_000);
  const answer = await fixture.call({}, { body });
  assert.deepEqual([answer.status, answer.code], [413, "RequestEntityTooLarge"]);
  assert.match(answer.text, /1048576 bytes/);
  assert.equal(fixture.gateway.stats().bufferedBodyBytes, 0);
  assert.equal(cloud.received.length, 0);
});

test("a body without a length is read up to the limit and not further", async (t) => {
  const { fixture } = await both(t);
  const got = await raw(fixture, (socket) => {
    socket.write(`${headOf("chunked")}\r\n`);
    const chunk = `10000\r\n${"x".repeat(65_536)}\r\n`;
    for (let sent = 0; sent < 20; sent += 1) socket.write(chunk);
    socket.write("0\r\n\r\n");
  });
  assert.match(got, /^HTTP\/1\.1 413 /);
  assert.match(got, /<Code>RequestEntityTooLarge<\/Code>/);
  assert.equal(fixture.gateway.stats().bufferedBodyBytes, 0);
});

test("Expect: 100-continue: the head alone decides whether the body is wanted", async (t) => {
  const { fixture } = await both(t);
  const refused = await raw(fixture, (socket) => {
    socket.write(`POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n`);
    socket.on("data", () => socket.end());
  });
  assert.match(refused, /^HTTP\/1\.1 403 .*MissingAuthenticationToken/s);
  const wanted = await raw(fixture, (socket) => {
    socket.write(`${headOf(5)}expect: 100-continue\r\nconnection: close\r\n\r\n`);
    socket.once("data", () => socket.write("Acti="));
  });
  assert.match(wanted, /^HTTP\/1\.1 100 Continue\r\n\r\nHTTP\/1\.1 400 /);
});

test("all bodies together have a bound: the surplus is told to slow down", async (t) => {
  const { fixture } = await both(t, { limits: { bufferedBodyBytes: 100_000 } });
  const holding: Socket[] = [];
  const first = raw(fixture, (socket) => {
    holding.push(socket);
    socket.write(`${headOf(90_000)}\r\n${"x".repeat(80_000)}`);
  });
  await until(() => fixture.gateway.stats().bufferedBodyBytes === 80_000);
  const second = await raw(fixture, (socket) => {
    socket.write(`${headOf(50_000)}\r\n${"x".repeat(50_000)}`);
  });
  assert.match(second, /^HTTP\/1\.1 503 .*RequestLimitExceeded/s);
  holding[0]?.destroy();
  await first;
  await until(() => fixture.gateway.stats().bufferedBodyBytes === 0);
});

test("a sender that dribbles its head or its body is cut off", async (t) => {
  const { fixture } = await both(t, { limits: { requestTimeoutMs: 200 } });
  const slowHead = await raw(fixture, (socket) => socket.write("POST / HTTP/1.1\r\nhost:"));
  assert.match(slowHead, /^HTTP\/1\.1 408 /);
  const slowBody = await raw(fixture, (socket) => socket.write(`${headOf(100)}\r\nAction=`));
  assert.match(slowBody, /^HTTP\/1\.1 408 /);
  await until(() => fixture.gateway.stats().bufferedBodyBytes === 0);
});

test("headers beyond the limit, upgrades and what is not HTTP never get to a dialect", async (t) => {
  const { fixture } = await both(t);
  const large = await raw(fixture, (socket) =>
    socket.write(`GET / HTTP/1.1\r\nhost: x\r\nx: ${"y".repeat(20_000)}\r\n\r\n`),
  );
  assert.match(large, /^HTTP\/1\.1 431 /);
  const upgrade = await raw(fixture, (socket) =>
    socket.write("GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"),
  );
  assert.match(upgrade, /^HTTP\/1\.1 405 /);
  const noise = await raw(fixture, (socket) => socket.write("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n"));
  assert.match(noise, /^HTTP\/1\.1 400 /);
  assert.equal(fixture.gateway.stats().requests, 0);
});

test("a large answer passes at the reader's pace: what is not read is not held", async (t) => {
  const { cloud, fixture } = await both(t);
  // More than the kernel holds in the sockets on the way, which can be 10 MiB.
  const size = 64 * 1024 * 1024;
  let written = 0;
  cloud.reply = (_received, response) => {
    response.writeHead(200, { "content-length": size });
    const chunk = Buffer.alloc(65_536, "x");
    const more = (): void => {
      while (written < size) {
        written += chunk.length;
        if (!response.write(chunk)) {
          response.once("drain", more);
          return;
        }
      }
      response.end();
    };
    more();
  };
  const pool = new Pool(fixture.gateway.address, { connections: 1 });
  t.after(() => pool.destroy());
  const body = "Action=DescribeInstances&Version=2016-11-15";
  const headers = signedForm(fixture.gateway.address, fixture.key, body);
  const answer = await pool.request({ method: "POST", path: "/", headers, body });
  let before = -1;
  // The cloud stops being able to write long before the end, since nobody reads.
  while (written !== before) {
    before = written;
    for (let turns = 0; turns < 50; turns += 1) await turn();
  }
  assert.ok(written < size, `${written} bytes were taken from the cloud for a reader that reads nothing`);
  let got = 0;
  for await (const chunk of answer.body) got += (chunk as Buffer).length;
  assert.equal(got, size);
});

test("a reader that leaves ends the cloud's answer; a cloud that breaks off cuts the reader's", async (t) => {
  const { cloud, fixture } = await both(t);
  let cloudClosed = false;
  cloud.reply = (_received, response) => {
    response.on("close", () => {
      cloudClosed = true;
    });
    response.writeHead(200, { "content-length": 1_000 });
    response.write("part");
  };
  const control = new AbortController();
  const reading = fixture.call({ Action: "DescribeInstances" }, { signal: control.signal });
  await until(() => cloud.received.length === 1);
  control.abort();
  await assert.rejects(reading);
  await until(() => cloudClosed);
  cloud.reply = (_received, response) => {
    response.writeHead(200, { "content-length": 1_000 });
    response.write("part", () => response.destroy());
  };
  await assert.rejects(fixture.call({ Action: "DescribeInstances" }));
  assert.equal(fixture.gateway.stats().brokenReads, 2);
});

test("after the upstream moved, requests go to the new one, those under way end where they began", async (t) => {
  const { cloud, fixture } = await both(t);
  const other = await startFakeCloud(t);
  other.reply = errorReply(400, "FromTheOther");
  let finish = (): void => assert.fail("nothing was received");
  const reply = cloud.reply;
  cloud.reply = (received, response) => {
    finish = () => reply(received, response);
  };
  const first = fixture.call({ Action: "CreateVpc", CidrBlock: "10.0.0.0/16" });
  await until(() => cloud.received.length === 1);
  const moved = fixture.gateway.setUpstream(shop, upstreams(other.endpoint));
  assert.equal((await fixture.call({ Action: "DescribeVpcs" })).code, "FromTheOther");
  finish();
  assert.equal((await first).status, 200);
  await moved;
});
