import assert from "node:assert/strict";
import { test } from "node:test";
import { refusalOf } from "./aws-problem.ts";

test("tools of a cloud that the environment has left are told that it has moved, not to change the configuration", () => {
  const { code, status, message } = refusalOf({ kind: "no_upstream", environment: "shop", service: "ec2" });
  assert.equal(code, "UnsupportedOperation");
  assert.equal(status, 400);
  assert.match(message, /understudy status shop/u);
  assert.match(message, /after a failover to a cloud of another kind/u);
});
