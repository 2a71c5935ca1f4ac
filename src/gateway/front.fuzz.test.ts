// The HTTP front under hostile bytes: raw noise, and requests that were signed and then changed. Nothing that was not proven
// reaches the cloud, nothing crashes, nothing is kept. FUZZ_RUNS sets the number of inputs, FUZZ_SEED repeats a run.
import assert from "node:assert/strict";
import { connect } from "node:net";
import { test } from "node:test";
import { type Fixture, signedForm, startFakeCloud, startFixture, upstreams } from "./gateway.fixture.ts";

const runs = Number(process.env["FUZZ_RUNS"] ?? 20_000);
const seed = Number(process.env["FUZZ_SEED"] ?? Math.floor(Math.random() * 2 ** 31));
/** Inputs sent on connections side by side. */
const lanes = 64;

/** mulberry32 */
function seeded(from: number): () => number {
  let state = from >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}

type Draw = (below: number) => number;

/** Ends what noise left open: no head is this long, and it is no HTTP after one that is whole. */
const closing = Buffer.alloc(64);

/** Sends the bytes and resolves with what came back when the other side has closed. */
function exchange(port: number, ...bytes: readonly Buffer[]): Promise<string> {
  return new Promise((resolve) => {
    let got = "";
    const socket = connect({ port, host: "127.0.0.1" }, () => {
      for (const some of bytes) socket.write(some);
    });
    socket.setEncoding("latin1");
    socket.on("data", (chunk: string) => {
      got += chunk;
      // As a client does that has its answer: it does not wait for the rest of its own request to be taken.
      if (!got.startsWith("HTTP/1.1 100 ") || got.length > 100) socket.end();
    });
    socket.on("error", () => resolve(got));
    socket.on("close", () => resolve(got));
  });
}

function httpOf(headers: Readonly<Record<string, string>>, body: string): Buffer {
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  const head = `POST / HTTP/1.1\r\n${lines.join("")}connection: close\r\ncontent-length: ${body.length}\r\n\r\n`;
  return Buffer.from(head + body, "latin1");
}

const fragments = [
  "GET / HTTP/1.1\r\n",
  "POST / HTTP/1.1\r\n",
  "POST /?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=00 HTTP/1.1\r\n",
  "host: x\r\n",
  "content-length: 10\r\n",
  "content-length: -1\r\n",
  "content-length: 99999999999999999999\r\n",
  "transfer-encoding: chunked\r\n",
  "transfer-encoding: chunked, identity\r\n",
  "authorization: AWS4-HMAC-SHA256 Credential=A/20260101/eu-west-1/ec2/aws4_request, SignedHeaders=host, Signature=0\r\n",
  "authorization: AWS4-HMAC-SHA256 \r\n",
  "__proto__: 1\r\n",
  "x-amz-date: 20260101T000000Z\r\n",
  "expect: 100-continue\r\n",
  "upgrade: h2c\r\nconnection: upgrade\r\n",
  "\r\n",
  "\r\n\r\n",
  "0\r\n\r\n",
  "ffffffff\r\n",
  "Action=RunInstances&MinCount=1",
  "Action=%41&Action=%",
  "\0\0\0",
];

function noise(draw: Draw): Buffer {
  const parts = Array.from({ length: 1 + draw(12) }, () => {
    if (draw(4) > 0) return Buffer.from(fragments[draw(fragments.length)] ?? "", "latin1");
    return Buffer.from(Array.from({ length: draw(40) }, () => draw(256)));
  });
  return Buffer.concat(parts);
}

/** One to three bytes changed, dropped, doubled or added, anywhere. */
function mutated(bytes: Buffer, draw: Draw): Buffer {
  let changed = bytes;
  for (let edits = 1 + draw(3); edits > 0; edits -= 1) {
    const at = draw(changed.length + 1);
    const from = at + draw(3);
    const insert = Buffer.from(Array.from({ length: draw(3) }, () => draw(256)));
    changed = Buffer.concat([changed.subarray(0, at), insert, changed.subarray(from)]);
  }
  return changed;
}

async function fuzz(fixture: Fixture, inputs: () => readonly Buffer[], count: number): Promise<void> {
  let next = 0;
  await Promise.all(
    Array.from({ length: lanes }, async () => {
      while (next < count) {
        next += 1;
        const got = await exchange(fixture.gateway.port, ...inputs());
        assert.ok(
          got === "" || got.startsWith("HTTP/1.1 "),
          `an answer that is not HTTP: ${got.slice(0, 80)}`,
        );
      }
    }),
  );
}

test("raw noise and mutated requests: no crash, nothing unproven is forwarded, memory is bounded", async (t) => {
  t.diagnostic(`FUZZ_SEED=${seed} FUZZ_RUNS=${runs}`);
  const random = seeded(seed);
  const draw: Draw = (below) => Math.floor(random() * below);
  const cloud = await startFakeCloud(t);
  const fixture = await startFixture(t, {
    services: upstreams(cloud.endpoint),
    limits: { requestTimeoutMs: 300 },
  });
  const { gateway, key } = fixture;
  const body =
    "Action=RunInstances&Version=2016-11-15&ImageId=ami-1&MinCount=1&MaxCount=1&ClientToken=signed";
  const valid = httpOf(signedForm(gateway.address, key, body), body);
  assert.match(await exchange(gateway.port, valid), /^HTTP\/1\.1 200 /);
  assert.equal(cloud.received.length, 1);
  const after = (): number => process.memoryUsage().rss;
  const half = Math.floor(runs / 2);
  await fuzz(fixture, () => [noise(draw), closing], half);
  const settled = after();
  await fuzz(fixture, () => [mutated(valid, draw)], runs - half);
  // What got through is what was signed, parameter for parameter: only unsigned headers may have been touched.
  const signed = [...new URLSearchParams(body)].toString();
  for (const { parameters } of cloud.received) assert.equal([...parameters].toString(), signed);
  const stats = gateway.stats();
  assert.deepEqual([stats.problems.internal ?? 0, stats.open, stats.changesInProgress], [0, 0, 0]);
  assert.equal(stats.bufferedBodyBytes, 0);
  assert.ok(after() - settled < 256 * 1024 * 1024, "memory grows with the number of inputs");
  assert.equal((await fixture.call({ Action: "DescribeInstances" })).status, 200, "it still serves");
});
