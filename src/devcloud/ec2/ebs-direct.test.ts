/** Whatever is asked is answered in the protocol's own words: never a throw. */
import assert from "node:assert/strict";
import { test } from "node:test";
import * as fc from "fast-check";
import { openNoCompute } from "#devcloud/compute/no-compute.ts";
import { openCloud } from "#devcloud/core/open-cloud.ts";
import { SnapshotFiles } from "#devcloud/core/snapshot-files.ts";
import { Snapshots } from "#devcloud/core/snapshots.ts";
import { silentLog } from "#kernel/log.ts";
import { EbsDirect } from "./ebs-direct.ts";
import { ec2Kind } from "./ec2-kind.ts";

const cloud = openCloud({ dataDir: null, ids: ec2Kind.ids, catalog: ec2Kind.catalog("us-east-1") });
const snapshots = new Snapshots(cloud, new SnapshotFiles("/nowhere"), () => Promise.reject(), silentLog);
const ebs = new EbsDirect({ cloud, compute: openNoCompute(), snapshots, accountId: "000000000000" });

async function ask(method: string, target: string) {
  const opened = ebs.open({ method, target, headers: {}, body: Buffer.alloc(0) });
  const answer = "turnedAway" in opened ? opened.turnedAway : await opened.run(new AbortController().signal);
  return { status: answer.status, body: JSON.parse(answer.body.toString()) as Record<string, unknown> };
}

void test("what is not there, or not well formed, is told apart", async () => {
  const gone = await ask("GET", "/snapshots/snap-0123456789abcdef0/blocks");
  assert.deepEqual([gone.status, gone.body["Reason"]], [404, "SNAPSHOT_NOT_FOUND"]);
  const malformed = await ask("GET", "/snapshots/snap-x/blocks?maxResults=100");
  assert.deepEqual([malformed.status, malformed.body["Reason"]], [400, "INVALID_SNAPSHOT_ID"]);
  assert.equal((await ask("PUT", "/snapshots/snap-x/blocks/1")).body["__type"], "UnknownOperationException");
});

void test("any target is answered", async () => {
  const part = fc.constantFrom(
    "snapshots",
    "blocks",
    "changedblocks",
    "snap-0123456789abcdef0",
    "%",
    "",
    "1",
    "//",
  );
  const target = fc.tuple(fc.array(part, { maxLength: 6 }), fc.string({ maxLength: 30 }));
  await fc.assert(
    fc.asyncProperty(fc.constantFrom("GET", "POST", "PUT"), target, async (method, [parts, query]) => {
      const { status } = await ask(method, `/${parts.join("/")}?${query}`);
      assert.ok(status >= 400 && status < 500);
    }),
  );
});
