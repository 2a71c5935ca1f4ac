// The API under hostile bytes: raw noise, and requests changed at random, with no token, a wrong one, a witness's and the
// operator's. Nothing crashes, no answer is a 5xx, and what was not proven changes nothing. FUZZ_RUNS sets the number of
// inputs (bounded by 15 s unless it is given), FUZZ_SEED repeats a run.
import assert from "node:assert/strict";
import { connect, type AddressInfo } from "node:net";
import { test } from "node:test";
import { openApiFixture, operatorToken, witnessToken } from "#api/api.fixture.ts";

const given = process.env["FUZZ_RUNS"];
const runs = Number(given ?? 20_000);
const limitMs = given === undefined ? 15_000 : Number.POSITIVE_INFINITY;
const seed = Number(process.env["FUZZ_SEED"] ?? Math.floor(Math.random() * 2 ** 31));

/** mulberry32 */
function seeded(from: number): (below: number) => number {
  let state = from >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296) * below);
  };
}

type Draw = (below: number) => number;

function pick<T>(draw: Draw, from: readonly T[]): T {
  const one = from[draw(from.length)];
  if (one === undefined) throw new Error("nothing to pick from");
  return one;
}

const paths = [
  "/v1/environments/shop/runs",
  "/v1/witness/notices",
  "/v1/environments/shop",
  "/v1/environments/shop/journal?limit=5&before=2",
  "/v1/environments/shop/events?after=1&limit=2",
  "/v1/runs?environment=shop",
  "/v1/runs/failover-1",
  "/metrics",
  "/healthz",
  "/../v1//runs/./x",
];
const bodies = [
  '{"kind":"failover","reason":"fuzz","force":false}',
  '{"notices":[{"probe":"web","code":"cloud.api_unreachable","raised":true,"detail":"","at":1}]}',
  "",
  "[[[[[[[[[[[[[[[[",
  '{"kind":"drill","reason":"\\ud800","__proto__":{"force":true},"constructor":{"prototype":1}}',
];
const tokens = [
  "",
  "Bearer ",
  `Bearer ${operatorToken.slice(1)}`,
  `Bearer ${witnessToken}0`,
  "Bearer \u00ff\u0000",
  "Basic b3BlcmF0b3I6",
];

function mutate(draw: Draw, text: string): Buffer {
  const bytes = Buffer.from(text, "utf8");
  for (let left = draw(4); left > 0 && bytes.length > 0; left -= 1) bytes[draw(bytes.length)] = draw(256);
  return draw(6) === 0 ? bytes.subarray(0, draw(bytes.length + 1)) : bytes;
}

/** Mutations of the head could by chance send a right token whole; of the path and the body they cannot. */
function requestOf(draw: Draw, token: string): Buffer {
  // Now and then a request that is in order, but for its token: without them nothing would get as far as a handler.
  const whole = draw(10) === 0;
  const [firstPath = "", secondPath = ""] = paths;
  const [firstBody = "", secondBody = ""] = bodies;
  const asMeant = draw(2) === 0 ? [firstPath, firstBody] : [secondPath, secondBody];
  const path = whole
    ? (asMeant[0] ?? "")
    : mutate(draw, pick(draw, paths))
        .toString("latin1")
        .replaceAll(/[\s\0]/gu, "%00");
  const body = whole ? Buffer.from(asMeant[1] ?? "") : mutate(draw, pick(draw, bodies));
  const method = whole
    ? "POST"
    : pick(draw, ["GET", "POST", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"]);
  const type = whole
    ? "application/json"
    : pick(draw, ["application/json", "application/json; charset=utf-7", "text/plain", ""]);
  const length = !whole && draw(12) === 0 ? draw(200) : body.length;
  const head = [
    `${method} ${path} HTTP/1.1`,
    "host: x",
    "connection: close",
    `content-length: ${length}`,
    ...(type === "" ? [] : [`content-type: ${type}`]),
    ...(token === "" ? [] : [`authorization: ${token}`]),
    "",
    "",
  ].join("\r\n");
  return Buffer.concat([Buffer.from(head, "latin1"), body]);
}

function noise(draw: Draw): Buffer {
  const bytes = Buffer.alloc(1 + draw(300));
  for (let at = 0; at < bytes.length; at += 1) bytes[at] = draw(256);
  return Buffer.concat([bytes, Buffer.from("\r\n\r\n")]);
}

/** Sends the bytes, ends its side, and resolves with what came back. */
function exchange(port: number, bytes: Buffer): Promise<string> {
  return new Promise((resolve) => {
    let got = "";
    const socket = connect({ port, host: "127.0.0.1" }, () => socket.end(bytes));
    socket.setEncoding("latin1");
    socket.on("data", (chunk: string) => {
      got += chunk;
    });
    socket.on("error", () => resolve(got));
    socket.on("close", () => resolve(got));
  });
}

test(`hostile requests, seed ${seed}`, { timeout: limitMs === 15_000 ? 60_000 : 3_600_000 }, async (t) => {
  const fixture = await openApiFixture();
  t.after(() => fixture.app.close());
  await fixture.app.listen({ host: "127.0.0.1", port: 0 });
  const { port } = fixture.app.server.address() as AddressInfo;
  const draw = seeded(seed);
  const begun = performance.now();
  let sent = 0;
  const answers = new Map<string, number>();
  async function lane(): Promise<void> {
    while (sent < runs && performance.now() - begun < limitMs) {
      sent += 1;
      const kind = draw(10);
      const right = kind >= 7 ? pick(draw, [operatorToken, witnessToken]) : undefined;
      const bytes =
        kind === 0 ? noise(draw) : requestOf(draw, right ? `Bearer ${right}` : pick(draw, tokens));
      const answer = await exchange(port, bytes);
      const status = /^HTTP\/1\.1 (\d{3})/u.exec(answer)?.[1] ?? "none";
      answers.set(status, (answers.get(status) ?? 0) + 1);
      assert.doesNotMatch(status, /^5/u, `${bytes.toString("latin1")}\n${answer}`);
      if (right === undefined && status.startsWith("2")) {
        const open = /^(GET|HEAD) \/(healthz|v1\/openapi\.json)/u.test(bytes.toString("latin1"));
        assert.ok(open, `answered without a proof: ${bytes.toString("latin1")}`);
      }
    }
  }
  await Promise.all(Array.from({ length: 32 }, lane));
  assert.ok(sent >= Math.min(runs, 1_000), `only ${sent} inputs were sent`);
  // The fuzz reaches the handlers too, or its silence would prove nothing.
  assert.ok((answers.get("202") ?? 0) > 0 && (answers.get("401") ?? 0) > 0, JSON.stringify([...answers]));
  assert.equal(fixture.started.length, answers.get("202"), "each change has its proven caller's answer");
  assert.ok(fixture.started.every(({ by }) => by === "operator"));
  const health = await fetch(`http://127.0.0.1:${port}/healthz`);
  assert.equal(health.status, 200);
});
