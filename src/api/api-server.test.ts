import assert from "node:assert/strict";
import { connect, type AddressInfo } from "node:net";
import { after, before, beforeEach, describe, test } from "node:test";
import { createAuthenticator } from "#api/api-auth.ts";
import { openApiFixture, operatorToken, tokens, witnessToken, type ApiFixture } from "#api/api.fixture.ts";
import { isOperational } from "#kernel/errors.ts";
import { Secret } from "#kernel/secret.ts";

type Role = "operator" | "witness" | "open" | "either";

interface Expectation {
  readonly may: Role;
  /** A request that succeeds. */
  readonly url: string;
  readonly payload?: object;
  readonly status?: number;
}

const notice = { probe: "web", code: "cloud.api_unreachable", raised: true, detail: "", at: 1 };

/** Every route there is. One that is missing here fails the first test. */
const expectations: Readonly<Record<string, Expectation>> = {
  "GET /healthz": { may: "open", url: "/healthz" },
  "GET /v1/openapi.json": { may: "open", url: "/v1/openapi.json" },
  "GET /metrics": { may: "operator", url: "/metrics" },
  "GET /v1/environments": { may: "operator", url: "/v1/environments" },
  "GET /v1/environments/:environment": { may: "operator", url: "/v1/environments/shop" },
  "GET /v1/environments/:environment/resources": { may: "operator", url: "/v1/environments/shop/resources" },
  "GET /v1/environments/:environment/journal": { may: "operator", url: "/v1/environments/shop/journal" },
  "GET /v1/environments/:environment/pairings": { may: "operator", url: "/v1/environments/shop/pairings" },
  "GET /v1/environments/:environment/gaps": { may: "operator", url: "/v1/environments/shop/gaps" },
  "GET /v1/environments/:environment/points": { may: "operator", url: "/v1/environments/shop/points" },
  "GET /v1/environments/:environment/events": { may: "operator", url: "/v1/environments/shop/events" },
  "POST /v1/environments/:environment/runs": {
    may: "operator",
    url: "/v1/environments/shop/runs",
    payload: { kind: "failover", reason: "test" },
    status: 202,
  },
  "GET /v1/environments/:environment/points/:point/evidence": {
    may: "operator",
    url: "/v1/environments/shop/points/point-1/evidence",
  },
  "POST /v1/environments/:environment/points": {
    may: "operator",
    url: "/v1/environments/shop/points",
    payload: { consistency: "application" },
    status: 201,
  },
  "GET /v1/runs": { may: "operator", url: "/v1/runs?environment=shop" },
  "POST /v1/runs/:run/cancel": { may: "operator", url: "/v1/runs/failover-1/cancel", status: 202 },
  "GET /v1/runs/:run": { may: "operator", url: "/v1/runs/failover-1" },
  "GET /v1/witness/probes": { may: "witness", url: "/v1/witness/probes" },
  "POST /v1/witness/notices": {
    may: "witness",
    url: "/v1/witness/notices",
    payload: { notices: [notice] },
    status: 204,
  },
};

interface ErrorBody {
  readonly error: { readonly code: string; readonly message: string; readonly requestId: string };
}

let fixture: ApiFixture;

before(async () => {
  fixture = await openApiFixture();
  await fixture.app.listen({ host: "127.0.0.1", port: 0 });
});
after(() => fixture.app.close());
beforeEach(() => {
  fixture.failure = undefined;
});

/** Fastify's own list of its routes, as `METHOD /path`, HEAD routes left out: each is its GET route's shadow. */
function routesOf({ app }: ApiFixture): string[] {
  const routes: string[] = [];
  const path: string[] = [];
  for (const line of app.printRoutes({ commonPrefix: false }).split("\n")) {
    const match = /^([│├└─\s]*)(\S.*?) \(([A-Z, ]+)\)$/u.exec(line) ?? /^([│├└─\s]*)(\S.*)$/u.exec(line);
    if (match === null) continue;
    const depth = (match[1] ?? "").length / 4;
    path.length = Math.max(0, depth - 1);
    path.push(match[2] ?? "");
    for (const method of (match[3] ?? "").split(", ").filter((name) => name !== "" && name !== "HEAD"))
      routes.push(`${method} ${path.join("")}`);
  }
  return routes.toSorted();
}

interface Answer {
  readonly status: number;
  readonly body: string;
}

async function call(key: string, token: string | undefined, expected: Expectation): Promise<Answer> {
  const answer = await fixture.app.inject({
    method: key.split(" ", 1)[0] as "GET",
    url: expected.url,
    ...(token === undefined ? {} : { headers: { authorization: token } }),
    ...(expected.payload === undefined ? {} : { payload: expected.payload }),
  });
  return { status: answer.statusCode, body: answer.body };
}

async function post(payload: unknown, more: Record<string, string> = {}): Promise<Answer & ErrorBody> {
  const answer = await fixture.app.inject({
    method: "POST",
    url: "/v1/environments/shop/runs",
    headers: { authorization: `Bearer ${operatorToken}`, "content-type": "application/json", ...more },
    payload: typeof payload === "string" ? payload : JSON.stringify(payload),
  });
  return { status: answer.statusCode, body: answer.body, ...answer.json<ErrorBody>() };
}

async function get(url: string): Promise<Answer & ErrorBody> {
  const headers = { authorization: `Bearer ${operatorToken}` };
  const answer = await fixture.app.inject({ method: "GET", url, headers });
  return { status: answer.statusCode, body: answer.body, ...answer.json<ErrorBody>() };
}

describe("who may do what", () => {
  test("every route of the server is expected here, and every expectation has its route", () => {
    assert.deepEqual(routesOf(fixture), Object.keys(expectations).toSorted());
  });

  for (const [key, expected] of Object.entries(expectations)) {
    test(`${key}: ${expected.may}`, async () => {
      const changes = (): number => fixture.started.length + fixture.posted.length + fixture.created.length;
      const before = changes();
      const codeOf = ({ body }: Answer): string => (JSON.parse(body) as ErrorBody).error.code;
      const anonymous = await call(key, undefined, expected);
      if (expected.may === "open") {
        assert.equal(anonymous.status, 200);
        return;
      }
      assert.equal(anonymous.status, 401);
      assert.equal(codeOf(anonymous), "auth.missing");
      for (const wrong of [
        "Bearer no-such-token-0123456789",
        `Bearer ${operatorToken}x`,
        `Bearer ${operatorToken.slice(0, -1)}`,
        `bearer ${operatorToken}`,
        `Basic ${operatorToken}`,
        operatorToken,
        "Bearer ",
        `Bearer ${operatorToken} ${witnessToken}`,
      ]) {
        const refused = await call(key, wrong, expected);
        assert.equal(refused.status, 401, wrong);
        assert.equal(codeOf(refused), "auth.invalid");
      }
      const other = expected.may === "operator" ? witnessToken : operatorToken;
      const forbidden = await call(key, `Bearer ${other}`, expected);
      assert.equal(forbidden.status, 403);
      assert.equal(codeOf(forbidden), "auth.forbidden");
      assert.equal(changes(), before, "a refused request changed something");
      const right = expected.may === "operator" ? operatorToken : witnessToken;
      assert.equal((await call(key, `Bearer ${right}`, expected)).status, expected.status ?? 200);
    });
  }

  test("what does not exist is told to those alone who may ask", async () => {
    const url = "/v1/nothing";
    assert.equal((await fixture.app.inject({ url })).statusCode, 401);
    assert.equal((await get(url)).status, 404);
    assert.equal(
      (await fixture.app.inject({ method: "DELETE", url: "/v1/environments/shop" })).statusCode,
      401,
    );
  });

  test("tokens that are weak, or shared by two callers, are refused at the start", () => {
    const weak = {
      caller: { role: "witness", name: "b", environment: "shop" },
      token: new Secret("short"),
    } as const;
    assert.throws(
      () => createAuthenticator([...tokens, weak]),
      (error) => isOperational(error, "config.invalid") && /witness "b" of "shop"/u.test(error.message),
    );
    const shared = { caller: weak.caller, token: new Secret(operatorToken) };
    assert.throws(
      () => createAuthenticator([...tokens, shared]),
      (error) =>
        isOperational(error, "config.invalid") && /the operator and witness "b"/u.test(error.message),
    );
  });
});

describe("what is sent wrong", () => {
  test("each mistake is named, and starts nothing", async () => {
    const before = fixture.started.length;
    const mistakes: readonly [unknown, number, string, RegExp][] = [
      ["{", 400, "input.invalid", /JSON/iu],
      ["", 400, "input.invalid", /body|empty/iu],
      ["null", 400, "input.invalid", /body/u],
      ["[]", 400, "input.invalid", /body/u],
      [{ reason: "x" }, 400, "input.invalid", /kind/u],
      [{ kind: "explode", reason: "x" }, 400, "input.invalid", /kind.*failover/u],
      [{ kind: "failover", reason: "" }, 400, "input.invalid", /reason/u],
      [{ kind: "failover", reason: "x".repeat(501) }, 400, "input.invalid", /reason/u],
      [{ kind: "failover", reason: "x", froce: true }, 400, "input.invalid", /froce/u],
      [{ kind: "failover", reason: "x", force: "yes" }, 400, "input.invalid", /force/u],
      ['{"kind":"failover","reason":"x","__proto__":{"force":true}}', 400, "input.invalid", /JSON/u],
      [{ kind: "failover", reason: "x".repeat(300_000) }, 413, "input.too_large", /large/u],
    ];
    for (const [payload, status, code, says] of mistakes) {
      const answer = await post(payload);
      assert.equal(answer.status, status, answer.body);
      assert.equal(answer.error.code, code);
      assert.match(answer.error.message, says);
      assert.match(answer.error.requestId, /./u);
    }
    const form = await post("kind=failover", { "content-type": "application/x-www-form-urlencoded" });
    assert.equal(form.error.code, "input.invalid");
    assert.equal(fixture.started.length, before);
  });

  test("a query is checked like a body", async () => {
    for (const [query, says] of [
      ["journal?limit=0", /limit/u],
      ["journal?limit=many", /limit/u],
      ["journal?limit=1001", /limit/u],
      ["journal?limti=5", /limti/u],
      ["events?waitMs=99999999", /waitMs/u],
      ["events?after=-1", /after/u],
      ["events?after=1&after=2", /after/u],
    ] as const) {
      const answer = await get(`/v1/environments/shop/${query}`);
      assert.equal(answer.status, 400, query);
      assert.match(answer.error.message, says);
      assert.match(answer.error.message, /querystring/u);
    }
  });

  test("odd names and paths lead nowhere", async () => {
    for (const name of [
      "..%2f..%2fetc%2fpasswd",
      "%2e%2e",
      "__proto__",
      "constructor",
      "shop%00",
      "shop%20",
      "SHOP",
      "x".repeat(41),
      "x".repeat(3000),
      "%zz",
      "%ff",
    ]) {
      for (const url of [
        `/v1/environments/${name}`,
        `/v1/environments/${name}/journal`,
        `/v1/runs/${name}`,
      ]) {
        const answer = await get(url);
        assert.ok(answer.status >= 400 && answer.status < 500, `${url}: ${answer.status}`);
        assert.match(answer.error.code, /^(input\.invalid|not_found|input\.too_large)$/u);
        assert.match(answer.error.requestId, /./u);
      }
    }
    assert.equal((await get("/v1/runs?environment=nowhere")).status, 404);
  });

  test("an error that nobody foresaw says nothing of its cause", async () => {
    fixture.failure = new Error("the secret is hunter2");
    const answer = await get("/v1/environments/shop");
    assert.equal(answer.status, 500);
    assert.equal(answer.error.code, "internal");
    assert.doesNotMatch(answer.body, /hunter2/u);
  });

  test("what is no HTTP gets an error of the same form", async () => {
    const { port } = fixture.app.server.address() as AddressInfo;
    const answer = await new Promise<string>((resolve, reject) => {
      let got = "";
      const socket = connect(port, "127.0.0.1", () => socket.write("\0\0 nonsense\r\n\r\n"));
      socket.setEncoding("utf8").on("data", (text: string) => (got += text));
      socket.on("error", reject).on("close", () => resolve(got));
    });
    assert.match(answer, /^HTTP\/1\.1 400 /u);
    assert.equal((JSON.parse(answer.split("\r\n\r\n")[1] ?? "") as ErrorBody).error.code, "input.invalid");
  });
});

test("a long poll ends when its client goes", async () => {
  const { port } = fixture.app.server.address() as AddressInfo;
  const gone = new AbortController();
  const polling = fetch(`http://127.0.0.1:${port}/v1/environments/shop/events?waitMs=30000`, {
    headers: { authorization: `Bearer ${operatorToken}` },
    signal: gone.signal,
  });
  while (fixture.waiting.now === 0) await new Promise((resolve) => setImmediate(resolve));
  gone.abort();
  await assert.rejects(polling);
  while (fixture.waiting.now > 0) await new Promise((resolve) => setImmediate(resolve));
  assert.equal(fixture.waiting.gone, 1);
});

test("the OpenAPI document lists every route that is not an operator's tool", async () => {
  const document = (await fixture.app.inject({ url: "/v1/openapi.json" })).json<{
    openapi: string;
    paths: Record<
      string,
      Record<
        string,
        { summary?: string; parameters?: { name: string; in: string }[]; responses: Record<string, object> }
      >
    >;
    components: { securitySchemes: object };
    security: object[];
  }>();
  assert.match(document.openapi, /^3\.1\./u);
  assert.deepEqual(document.security, [{ token: [] }]);
  const described = Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.keys(methods).map((method) => `${method.toUpperCase()} ${path.replaceAll(/\{(\w+)\}/gu, ":$1")}`),
  );
  const hidden = ["GET /healthz", "GET /metrics", "GET /v1/openapi.json"];
  assert.deepEqual(
    described.toSorted(),
    routesOf(fixture).filter((route) => !hidden.includes(route)),
  );
  for (const [path, methods] of Object.entries(document.paths)) {
    for (const { summary, parameters, responses } of Object.values(methods)) {
      assert.deepEqual(Object.keys(responses), ["4XX", "5XX"], path);
      assert.match(JSON.stringify(responses["4XX"]), /requestId/u);
      assert.ok(summary, `${path} has a summary`);
      const inPath = [...path.matchAll(/\{(\w+)\}/gu)].map((match) => match[1]);
      const named = (parameters ?? []).filter((one) => one.in === "path").map(({ name }) => name);
      assert.deepEqual(named, inPath, path);
    }
  }
});
