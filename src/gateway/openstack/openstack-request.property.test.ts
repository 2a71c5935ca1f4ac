import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import { readRequest } from "./openstack-request.ts";
import { isPlainPath, serviceRoot } from "./service-paths.ts";
import { withoutSecrets } from "./journal-body.ts";

function post(
  path: string,
  body: string,
  headers: Record<string, string> = {},
): ReturnType<typeof readRequest> {
  return readRequest("compute", {
    method: "POST",
    target: `/compute/v2.1${path}`,
    headers: { "content-type": "application/json", ...headers },
    body: Buffer.from(body),
  });
}

const id = "d7a8bb86-a63f-44e1-806f-32c048d11786";

test("what only reads is a read, and in doubt it is a change", () => {
  const isRead = (body: string): boolean | undefined => {
    const reading = post(`/servers/${id}/action`, body);
    return reading.ok ? reading.request.readOnly : undefined;
  };
  assert.equal(isRead('{"os-getConsoleOutput": {"length": 5}}'), true);
  assert.equal(isRead('{"os-stop": null}'), false);
  assert.equal(isRead('{"os-getConsoleOutput": {}, "os-stop": null}'), false);
  assert.equal(isRead(""), false);
  assert.equal(isRead('{"os-getConsoleOutput": {}, "__proto__": {}}'), undefined);
});

test("paths that servers read in different ways are not forwarded", () => {
  for (const path of [
    "/compute/v2.1/servers/../flavors",
    "/compute/v2.1/servers/%2e%2E/flavors",
    "/compute/v2.1/servers%2F1/action",
    "/compute/v2.1//servers",
    "/compute/v2.1/servers/a\\b",
    "/compute/v2.1/servers/{project}",
    "/compute/v2.1/servers/%zz",
    "/compute/v2.1/servers/a b",
    "/compute/v2.1/servers/é",
    "/compute/v2.1/servers/1;x=2",
  ]) {
    assert.equal(isPlainPath(path), false, path);
  }
  for (const path of [
    "/compute/v2.1/",
    "/compute/v2.1/os-keypairs/a%20key",
    `/networking/v2.0/networks/${id}/tags/a=b`,
  ]) {
    assert.equal(isPlainPath(path), true, path);
  }
});

test("bodies that are no JSON in UTF-8 are refused", () => {
  for (const body of ["{", "\ufeff{}", '{"a": NaN}', "[".repeat(200) + "]".repeat(200)]) {
    const reading = post("/servers", body);
    assert.equal(reading.ok ? undefined : reading.refusal.status, 400, body.slice(0, 20));
  }
  const utf16 = readRequest("compute", {
    method: "POST",
    target: "/compute/v2.1/servers",
    headers: {},
    body: Buffer.from('{"server": {}}', "utf16le"),
  });
  assert.equal(utf16.ok, false);
  const image = post("/servers", "data", { "content-type": "application/octet-stream" });
  assert.equal(image.ok ? undefined : image.refusal.status, 415);
});

test("headers that carry rights do not go on", () => {
  const reading = post("/servers", "{}", {
    "x-service-token": "t",
    "x-roles": "admin",
    "x-project-id": "p",
    "x-http-method-override": "DELETE",
    "openstack-api-version": "compute 2.79",
  });
  assert.deepEqual(reading.ok && reading.request.headers, [
    "content-type",
    "application/json",
    "openstack-api-version",
    "compute 2.79",
  ]);
});

test("any target and body is read or refused, never thrown at", () => {
  const text = fc.oneof(
    fc.webPath(),
    fc.string({ unit: "binary", maxLength: 60 }),
    fc.constantFrom(`/servers/${id}/action`, "/servers", "/os-keypairs/x", "/%00", "/../.."),
  );
  fc.assert(
    fc.property(
      fc.constantFrom("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE"),
      text,
      fc.oneof(
        fc.json().map((body) => Buffer.from(body)),
        fc.uint8Array({ maxLength: 60 }).map((it) => Buffer.from(it)),
      ),
      (method, path, body) => {
        const reading = readRequest("compute", { method, target: `/compute/v2.1${path}`, headers: {}, body });
        if (reading.ok && reading.request.readOnly) assert.match(method, /^(?:GET|HEAD|POST)$/);
        if (!reading.ok) assert.ok(reading.refusal.status >= 400 && reading.refusal.status < 500);
      },
    ),
    { numRuns: 20_000 },
  );
});

test("secrets stay out of the journal; the user's own text and data stay in", () => {
  const body = {
    server: {
      name: "web",
      adminPass: "x",
      user_data: "aGk=",
      metadata: { db_password: "kept" },
      nested: [{ secret: "x", private_key: "x", ok: 1 }],
    },
  };
  assert.deepEqual(withoutSecrets(body), {
    server: { name: "web", user_data: "aGk=", metadata: { db_password: "kept" }, nested: [{ ok: 1 }] },
  });
  assert.deepEqual(withoutSecrets({ changePassword: { adminPass: "x" } }), { changePassword: {} });
});

test("an endpoint's own address is what stands before version and project", () => {
  for (const [endpoint, root] of [
    ["http://h:8774/v2.1", "http://h:8774/"],
    ["http://h:8774/v2.1/0123456789abcdef0123456789abcdef", "http://h:8774/"],
    ["https://h/volume/v3/0123/", "https://h/volume"],
    ["https://h:9696", "https://h:9696/"],
    ["https://h/networking/v2.0/", "https://h/networking"],
    ["https://h/image", "https://h/image"],
  ] as const) {
    assert.equal(serviceRoot(endpoint)?.href, root, endpoint);
  }
  assert.equal(serviceRoot("ftp://h/"), undefined);
  assert.equal(serviceRoot("h"), undefined);
});
