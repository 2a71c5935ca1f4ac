import assert from "node:assert/strict";
import { test } from "node:test";
import { openstackOperation, openstackResourceIds } from "./openstack-operation.ts";

const a = "0a795c15-6609-4623-b4c9-4c2f2a7112d4";
const b = "d7a8bb86-a63f-44e1-806f-32c048d11786";
const project = "d1e68e41fb854c34a1e4fdfe62afd5a3";

void test("service, operation and ids of a request", () => {
  const cases: [string, string, unknown, string, string, boolean][] = [
    ["POST", "/v2.1/servers", {}, "compute", "POST /servers", false],
    ["POST", `/v2.1/${project}/servers`, {}, "compute", "POST /servers", false],
    ["GET", "/compute/v2.1/servers/detail?limit=1", undefined, "compute", "GET /servers/detail", true],
    ["DELETE", `/v2.1/servers/${a}`, undefined, "compute", "DELETE /servers/{id}", false],
    [
      "POST",
      `/v2.1/servers/${a}/action`,
      { "os-stop": null },
      "compute",
      "POST /servers/{id}/action os-stop",
      false,
    ],
    [
      "POST",
      `/v2.1/servers/${a}/action`,
      { "os-getConsoleOutput": {} },
      "compute",
      "POST /servers/{id}/action os-getConsoleOutput",
      true,
    ],
    ["POST", `/v2.1/servers/${a}/action`, undefined, "compute", "POST /servers/{id}/action", false],
    ["DELETE", "/v2.1/os-keypairs/my%20key", undefined, "compute", "DELETE /os-keypairs/{key}", false],
    [
      "PUT",
      `/v2.0/routers/${a}/add_router_interface`,
      {},
      "network",
      "PUT /routers/{id}/add_router_interface",
      false,
    ],
    ["POST", `/v3/${project}/volumes`, {}, "volume", "POST /volumes", false],
    ["POST", "/v3/volumes", {}, "volume", "POST /volumes", false],
    ["POST", "/v3/auth/tokens", {}, "identity", "POST /auth/tokens", true],
    ["GET", "/v3", undefined, "identity", "GET /", true],
    ["PATCH", `/v2/images/${a}`, [], "image", "PATCH /images/{id}", false],
    ["POST", "/network/v2.0/qos/policies", {}, "network", "POST /qos/policies", false],
  ];
  for (const [method, path, body, service, operation, readOnly] of cases) {
    const found = openstackOperation(method, path, body);
    assert.deepEqual([found.service, found.operation, found.readOnly], [service, operation, readOnly], path);
  }
  assert.deepEqual(openstackOperation("DELETE", "/v2.1/os-keypairs/my%20key").params, ["my key"]);
});

void test("a name that is in no route table does not grow with its ids", () => {
  const { operation } = openstackOperation("PUT", `/v2.0/lbaas/pools/${a}/members/${b}`, {});
  assert.equal(operation, "PUT /lbaas/pools/{id}/members/{id}");
});

void test("what a request writes and reads", () => {
  const server = {
    flavorRef: "f",
    imageRef: a,
    networks: [{ uuid: b }],
    security_groups: [{ name: "web" }],
    metadata: { port_id: a },
  };
  assert.deepEqual(openstackResourceIds("POST", "/v2.1/servers", { server }), {
    written: [],
    read: ["f", a, b, "web"],
  });
  assert.deepEqual(openstackResourceIds("PUT", `/v2.0/floatingips/${a}`, { floatingip: { port_id: b } }), {
    written: [a, b],
    read: [],
  });
  assert.deepEqual(openstackResourceIds("DELETE", `/v2.1/servers/${a}/os-volume_attachments/${b}`), {
    written: [a, b],
    read: [],
  });
  assert.deepEqual(openstackResourceIds("GET", `/v2.1/servers/${a}`), { written: [], read: [a] });
  assert.deepEqual(openstackResourceIds("PUT", `/v2.0/networks/${a}/tags/${b}`).written, [a]);
});
