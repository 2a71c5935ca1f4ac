import assert from "node:assert/strict";
import { test } from "node:test";
import { AwsProtocolError } from "#wire/aws/aws-protocol-error.ts";
import { formOf } from "./aws-form.ts";

function form(method: string, target: string, text = ""): string {
  return formOf({ method, target, headers: {}, body: Buffer.from(text) }).toString();
}

void test("parameters come from the query or from the body", () => {
  const signed = "/?Action=DescribeVpcs&X-Amz-Signature=ab";
  assert.equal(form("GET", signed), "Action=DescribeVpcs");
  assert.equal(form("POST", signed), "Action=DescribeVpcs", "as boto3 presigns");
  assert.equal(form("POST", "/", "Action=DescribeVpcs"), "Action=DescribeVpcs");
  assert.equal(form("POST", "/?X-Amz-Signature=ab", "Action=DescribeVpcs"), "Action=DescribeVpcs");
});

void test("and never from both, since the server behind us might take the other one", () => {
  for (const method of ["GET", "POST"]) {
    assert.throws(
      () => form(method, "/?Action=DescribeVpcs", "Action=DeleteVpc"),
      (error) => error instanceof AwsProtocolError && error.code === "MalformedQueryString",
      method,
    );
  }
});
