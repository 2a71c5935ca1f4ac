/** Whatever comes from the network is answered: never a throw, never a 5xx that nobody injected. */
import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import { openCloud } from "#devcloud/core/open-cloud.ts";
import type { ApiRequest, ApiResponse, Dialect } from "#devcloud/core/dialect.ts";
import { SnapshotFiles } from "#devcloud/core/snapshot-files.ts";
import { Snapshots } from "#devcloud/core/snapshots.ts";
import { openNoCompute } from "#devcloud/compute/no-compute.ts";
import { silentLog } from "#kernel/log.ts";
import { Secret } from "#kernel/secret.ts";
import { openstackRoutes } from "./openstack-dialect.ts";
import { openstackKind } from "./openstack-kind.ts";

const { defaults } = openstackKind;
const account = { id: defaults.accountId, user: defaults.user, secret: new Secret("password") };
const cloud = openCloud({
  dataDir: null,
  ids: openstackKind.ids,
  catalog: openstackKind.catalog(defaults.region),
});
const snapshots = new Snapshots(cloud, new SnapshotFiles("/nowhere"), () => Promise.reject(), silentLog);
const dialect = await openstackKind.open(cloud, openNoCompute(), account, snapshots);
cloud.data.transact(() => dialect.bootstrap(cloud));

function request(method: string, target: string, body: string, token?: string): ApiRequest {
  const headers = token === undefined ? {} : { "x-auth-token": token };
  return { method, target, headers: { host: "cloud:1", ...headers }, body: Buffer.from(body) };
}

async function answer(asked: ApiRequest, to: Dialect = dialect): Promise<ApiResponse> {
  const opened = to.open(asked);
  return "turnedAway" in opened ? opened.turnedAway : opened.run(new AbortController().signal);
}

const domain = { id: "default" };
const login = {
  auth: {
    identity: {
      methods: ["password"],
      password: { user: { name: account.user, domain, password: "password" } },
    },
    scope: { project: { id: account.id } },
  },
};
const granted = await answer(request("POST", "/v3/auth/tokens", JSON.stringify(login)));
const token = granted.headers["x-subject-token"] ?? "";

const prefixes = {
  identity: "/identity",
  compute: "/compute/v2.1",
  network: "/networking/v2.0",
  image: "/image/v2",
  volume: `/volume/v3/${account.id}`,
} as const;

const segment = fc.oneof(
  fc.constantFrom("__proto__", "constructor", "1", "understudy", "networks", "public", "%zz", ".."),
  fc.string({ minLength: 1, maxLength: 12 }).map((text) => encodeURIComponent(text)),
);
const words = fc.constantFrom(
  "server",
  "network",
  "subnet",
  "port",
  "router",
  "floatingip",
  "volume",
  "tags",
);
const body = fc.oneof(
  fc.json(),
  fc.string(),
  fc.dictionary(words, fc.jsonValue()).map((value) => JSON.stringify(value)),
);
const query = fc.constantFrom(
  "",
  "?limit=2",
  "?limit=x",
  "?marker=x",
  "?name=a%24",
  "?metadata=x",
  "?tags=a,b",
  "?id=1",
);

test("every route answers anything below 500", async () => {
  assert.equal(granted.status, 201);
  const route = fc.constantFrom(...openstackRoutes);
  const parts = fc.array(segment, { minLength: 4, maxLength: 4 });
  await fc.assert(
    fc.asyncProperty(route, parts, query, body, async ({ service, method, path }, filled, asked, text) => {
      let next = 0;
      const place = path.replaceAll(/\{[^}]+\}/g, () => filled[next++] ?? "x");
      const given = await answer(request(method, `${prefixes[service]}${place}${asked}`, text, token));
      assert.ok(given.status < 500, `${method} ${path}: ${given.status} ${String(given.body)}`);
    }),
    { numRuns: 2000 },
  );
});

test("without a good token, nothing but versions and logins is answered", async () => {
  const route = fc.constantFrom(...openstackRoutes.filter(({ access }) => access !== "open"));
  const forged = fc.oneof(
    fc.constant(undefined),
    fc.string(),
    fc.nat(token.length - 1).map((at) => `${token.slice(0, at)}!${token.slice(at + 1)}`),
  );
  await fc.assert(
    fc.asyncProperty(route, forged, body, async ({ service, method, path }, bad, text) => {
      const given = await answer(request(method, `${prefixes[service]}${path}`, text, bad));
      assert.equal(given.status, 401);
    }),
    { numRuns: 1000 },
  );
});

test("any target and method is answered", async () => {
  await fc.assert(
    fc.asyncProperty(fc.string(), fc.string(), async (method, target) => {
      const given = await answer(request(method, `/${target}`, ""));
      assert.ok(given.status < 500);
    }),
  );
});
