import assert from "node:assert/strict";
import { test } from "node:test";
import type { OpenstackService } from "./keystone.ts";
import { decodeOpenstackError, encodeOpenstackError } from "./openstack-errors.ts";
import { errorFixtures } from "./recorded.fixture.ts";

const recorded = new Map(errorFixtures().map((one) => [one.name, one]));

function decoded(name: string): { code: string; message: string } {
  const fixture = recorded.get(name);
  assert.ok(fixture, name);
  const { code, message } = decodeOpenstackError(fixture.status, fixture.body);
  return { code, message };
}

void test("what each real service says is read", () => {
  assert.deepEqual(decoded("wrong password"), {
    code: "Unauthorized",
    message: "The request you have made requires authentication.",
  });
  assert.deepEqual(decoded("server quota"), {
    code: "forbidden",
    message: "Quota exceeded for instances: Requested 1, but already used 2 of 0 instances",
  });
  assert.equal(decoded("network quota").code, "OverQuota");
  assert.equal(decoded("volume quota").code, "overLimit");
  assert.equal(decoded("rule duplicate").code, "SecurityGroupRuleExists");
  const image = "No image found with ID 7bb6db96-e1f6-4f7f-aef5-01ab7ab03b9e";
  assert.deepEqual(decoded("image not found"), { code: "Not Found", message: image });
  assert.deepEqual(decoded("image not found html"), { code: "HTTP 404", message: image });
});

void test("no recorded error is left without code and words", () => {
  for (const [name, { status, body }] of recorded) {
    const error = decodeOpenstackError(status, body);
    assert.ok(error.code !== "" && error.message.length > 3, name);
    assert.doesNotMatch(error.message, /[<>{]br|"message"/, name);
  }
});

void test("plain text as WebOb writes it without an Accept", () => {
  const text = "404 Not Found\n\nNo image found with ID nope\n\n   ";
  assert.equal(decodeOpenstackError(404, text).message, "No image found with ID nope");
});

void test("what is encoded is what the service wrote", () => {
  for (const name of ["compute not found", "network not found", "volumev3 not found", "rule duplicate"]) {
    const { service, status, body } = recorded.get(name) as NonNullable<ReturnType<typeof recorded.get>>;
    const again = encodeOpenstackError(service, decodeOpenstackError(status, body));
    assert.deepEqual(JSON.parse(again.body), JSON.parse(body), name);
  }
  const html = recorded.get("image not found html");
  assert.ok(html);
  const again = encodeOpenstackError("image", decodeOpenstackError(404, html.body));
  assert.deepEqual(again, { contentType: html.contentType, body: html.body });
  const json = recorded.get("image not found");
  assert.ok(json);
  const error = decodeOpenstackError(404, json.body);
  const flat = encodeOpenstackError("image", error, undefined, "application/json");
  assert.deepEqual(JSON.parse(flat.body), JSON.parse(json.body));
});

void test("each service's errors survive both ways", () => {
  const services: OpenstackService[] = ["identity", "compute", "network", "image", "volume"];
  for (const service of services) {
    for (const status of [400, 401, 403, 404, 409, 413, 429, 500, 503]) {
      const message = "a <b> & 'c' went wrong";
      const { body } = encodeOpenstackError(service, { status, code: "NetworkNotFound", message });
      const error = decodeOpenstackError(status, body);
      assert.equal(error.message, message, `${service} ${status}`);
      if (service === "network" && status !== 401) assert.equal(error.code, "NetworkNotFound");
    }
  }
});
