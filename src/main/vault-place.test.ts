import assert from "node:assert/strict";
import { test } from "node:test";
import { isOperational } from "#kernel/errors.ts";
import { parseStoreName } from "#main/vault-place.ts";

test("a store on the command line is a folder, or a bucket with what it takes to reach it", () => {
  assert.equal(parseStoreName("/srv/vault"), undefined);
  assert.equal(parseStoreName("./s3"), undefined);
  assert.deepEqual(parseStoreName("s3://vaults"), {
    bucket: "vaults",
    prefix: "",
    endpoint: undefined,
    region: undefined,
    conditionalPut: true,
  });
  const full = "s3://vaults/shop/a/?endpoint=http://127.0.0.1:9000&region=eu-west-1&conditional-put=no";
  assert.deepEqual(parseStoreName(full), {
    bucket: "vaults",
    prefix: "shop/a/",
    endpoint: "http://127.0.0.1:9000",
    region: "eu-west-1",
    conditionalPut: false,
  });
});

test("what is no bucket's name is refused, and a secret has no place in it", () => {
  for (const text of [
    "s3://",
    "s3://vaults/?endpont=x",
    "s3://vaults/?endpoint=nowhere",
    "s3://id:secret@vaults/",
  ]) {
    assert.throws(
      () => parseStoreName(text),
      (error) => isOperational(error, "input.invalid"),
      text,
    );
  }
});
