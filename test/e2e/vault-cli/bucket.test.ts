/** The whole way with a store in a bucket: `VAULT_S3_ENDPOINT=http://127.0.0.1:18480` (key `test:tester`, secret `testing`), e.g. Swift with s3api. */
import assert from "node:assert/strict";
import { rmSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { CreateBucketCommand, S3Client } from "@aws-sdk/client-s3";
import { blockBytes, captureDisk, makeStage, momentNow, shipped, volume } from "./vault-stage.ts";

const endpoint = process.env["VAULT_S3_ENDPOINT"];
const keys = { accessKeyId: "test:tester", secretAccessKey: "testing" };
const sizeBytes = 4 * 1024 * 1024;

test(
  "a moment comes out of a bucket, with nothing but the bucket and the key",
  { skip: endpoint === undefined ? "VAULT_S3_ENDPOINT is not set" : false },
  async (t) => {
    const bucket = `vault-cli-${process.pid}`;
    const client = new S3Client({
      endpoint: endpoint ?? "",
      region: "us-east-1",
      forcePathStyle: true,
      credentials: keys,
    });
    await client.send(new CreateBucketCommand({ Bucket: bucket }));
    client.destroy();
    process.env["AWS_ACCESS_KEY_ID"] = keys.accessKeyId;
    process.env["AWS_SECRET_ACCESS_KEY"] = keys.secretAccessKey;
    const stage = makeStage(t, {
      store: `{s3: {bucket: ${bucket}, prefix: shop/, endpoint: "${endpoint ?? ""}", conditionalPut: false, accessKeyId: {env: AWS_ACCESS_KEY_ID}, secretAccessKey: {env: AWS_SECRET_ACCESS_KEY}}}`,
    });
    const init = await stage.vault("init");
    assert.equal(init.code, 0, init.stderr);
    const served = await stage.serve();
    const host = await captureDisk(served.desk, sizeBytes);
    await host.write(8192, Buffer.alloc(blockBytes, 0x61));
    const { at } = await momentNow(served.desk);
    await host.write(8192, Buffer.alloc(blockBytes, 0x62));
    await shipped(served.desk);
    await host[Symbol.asyncDispose]();
    await served.kill();
    rmSync(join(stage.folder, "vd"), { recursive: true });
    rmSync(join(stage.folder, "understudy.yaml"));
    const store = `s3://${bucket}/shop/?endpoint=${endpoint ?? ""}&conditional-put=no`;
    const bare = ["--store", store, "--passphrase-file", join(stage.folder, "phrase")];
    const cat = await stage.vault("cat", "--volume", volume, "--at", new Date(at).toISOString(), ...bare);
    assert.equal(cat.code, 0, cat.stderr);
    assert.deepEqual([cat.stdout.length, cat.stdout[8192], cat.stdout[0]], [sizeBytes, 0x61, 0x11]);
    const verified = await stage.vault("verify", ...bare);
    assert.equal(verified.code, 0, verified.stdout.toString());
  },
);
