import { CreateBucketCommand, S3Client } from "@aws-sdk/client-s3";
import assert from "node:assert/strict";
import { type IncomingMessage, type ServerResponse, createServer } from "node:http";
import { test } from "node:test";
import { isOperational } from "#kernel/errors.ts";
import { Secret } from "#kernel/secret.ts";
import type { BlobStorage } from "./blob-storage.ts";
import { openS3Storage } from "./s3-storage.ts";
import { storageConformance } from "./storage-conformance.ts";

/** A small S3 in this process, with conditional puts, and a fault before or after any request. */
async function startSmallS3(
  fault: (
    request: IncomingMessage,
    number: number,
  ) => "none" | "cut" | "cut after" | 500 | 503 | "html" | "silent" = () => "none",
): Promise<{
  endpoint: string;
  close: () => Promise<void>;
  objects: Map<string, Buffer>;
  requests: () => number;
}> {
  const objects = new Map<string, Buffer>();
  let requests = 0;
  const serve = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const body: Buffer[] = [];
    for await (const chunk of request) body.push(chunk as Buffer);
    requests += 1;
    const what = fault(request, requests);
    if (what === "silent") return;
    if (what === "cut") return void request.socket.destroy();
    if (what === "html")
      return void response.writeHead(500, { "content-type": "text/html" }).end("<html>oops");
    if (what === 500 || what === 503) return void response.writeHead(what).end("");
    const url = new URL(request.url ?? "/", "http://x");
    const key = decodeURIComponent(url.pathname).replace(/^\/bucket\/?/, "");
    const there = objects.get(key);
    const send = (
      status: number,
      headers: Record<string, string | number> = {},
      bytes: Buffer | string = "",
    ): void => {
      if (what === "cut after") request.socket.destroy();
      else response.writeHead(status, headers).end(bytes);
    };
    if (request.method === "PUT") {
      if (request.headers["if-none-match"] === "*" && there !== undefined) return send(412);
      objects.set(key, Buffer.concat(body));
      return send(200, { etag: '"x"' });
    }
    if (request.method === "DELETE") {
      objects.delete(key);
      return send(204);
    }
    if (url.searchParams.has("list-type"))
      return send(200, { "content-type": "application/xml" }, listing(objects, url));
    if (there === undefined) return send(404);
    if (request.method === "HEAD") return send(200, { "content-length": there.length });
    const range = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "");
    if (range === null) return send(200, { "content-length": there.length }, there);
    const [from, to] = [Number(range[1]), Math.min(Number(range[2]), there.length - 1)];
    if (from >= there.length) return send(416);
    return send(
      206,
      { "content-range": `bytes ${from}-${to}/${there.length}` },
      there.subarray(from, to + 1),
    );
  };
  const server = createServer((request, response) => void serve(request, response));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("no port");
  return {
    endpoint: `http://127.0.0.1:${address.port}`,
    objects,
    requests: () => requests,
    close: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

function listing(objects: ReadonlyMap<string, Buffer>, url: URL): string {
  const prefix = url.searchParams.get("prefix") ?? "";
  const after = url.searchParams.get("continuation-token") ?? "";
  const all = [...objects.keys()].filter((key) => key.startsWith(prefix) && key > after).sort();
  const page = all.slice(0, 1000);
  const rows = page.map(
    (key) =>
      `<Contents><Key>${key}</Key><Size>${objects.get(key)?.length}</Size><LastModified>${new Date().toISOString()}</LastModified></Contents>`,
  );
  const more = all.length > page.length;
  const next = more ? `<NextContinuationToken>${page.at(-1)}</NextContinuationToken>` : "";
  return `<?xml version="1.0"?><ListBucketResult><IsTruncated>${more}</IsTruncated>${next}${rows.join("")}</ListBucketResult>`;
}

const quick = {
  clock: { now: () => Date.now(), monotonicMs: () => performance.now(), sleep: async () => {} },
};
const open = (
  endpoint: string,
  more: { conditionalPut?: boolean; requestTimeoutMs?: number } = {},
): BlobStorage =>
  openS3Storage({
    bucket: "bucket",
    prefix: "some/where/",
    region: "us-east-1",
    endpoint,
    credentials: { accessKeyId: "test:tester", secretAccessKey: new Secret("testing") },
    conditionalPut: true,
    ...quick,
    ...more,
  });

storageConformance("s3, a small server with conditional puts", async () => {
  const server = await startSmallS3();
  return { storage: open(server.endpoint), dispose: server.close };
});

for (const fault of ["cut", "cut after", 500, 503, "html"] as const) {
  test(`s3: every third request ends in "${fault}", and all goes well all the same`, async () => {
    const server = await startSmallS3((_, number) => (number % 3 === 1 ? fault : "none"));
    try {
      const storage = open(server.endpoint);
      for (const name of ["a", "b", "c"])
        assert.equal(await storage.put(name, [Buffer.from(name)]), "stored");
      assert.equal((await storage.get("b")).toString(), "b");
      assert.deepEqual(
        (await Array.fromAsync(storage.list(""))).map(({ name }) => name),
        ["a", "b", "c"],
      );
      await storage.delete("b");
      assert.equal(server.objects.size, 2);
      await storage.close();
    } finally {
      await server.close();
    }
  });
}

test("s3: a store that stays away is vault.unreachable, with an honest outcome, after a few attempts", async () => {
  const server = await startSmallS3(() => "cut after");
  try {
    const storage = open(server.endpoint);
    await assert.rejects(
      storage.put("a", [Buffer.from("x")]),
      (error) => isOperational(error, "vault.unreachable") && error.outcome === "unknown",
    );
    assert.equal(server.requests() >= 5, true);
    assert.equal(server.objects.size, 1, "it arrived, and the caller was not told that it had not");
    await storage.close();
  } finally {
    await server.close();
  }
});

test("s3: a store that never answers is given up on in time", async () => {
  const server = await startSmallS3(() => "silent");
  try {
    const storage = open(server.endpoint, { requestTimeoutMs: 20 });
    await assert.rejects(storage.get("a"), (error) => isOperational(error, "vault.unreachable"));
    await storage.close();
  } finally {
    await server.close();
  }
});

/** A real server of another make, e.g. OpenStack Swift with s3api: `VAULT_S3_ENDPOINT=http://127.0.0.1:18480` (key `test:tester`, secret `testing`). */
const real = process.env["VAULT_S3_ENDPOINT"];
if (real === undefined) {
  test("s3, a real server", { skip: "VAULT_S3_ENDPOINT is not set" }, () => {});
} else {
  let number = 0;
  storageConformance(
    "s3, a real server without conditional puts",
    async () => {
      number += 1;
      const client = new S3Client({
        endpoint: real,
        region: "us-east-1",
        forcePathStyle: true,
        credentials: { accessKeyId: "test:tester", secretAccessKey: "testing" },
        requestChecksumCalculation: "WHEN_REQUIRED",
      });
      const bucket = `vault-${process.pid}-${number}`;
      await client.send(new CreateBucketCommand({ Bucket: bucket }));
      client.destroy();
      const storage = openS3Storage({
        bucket,
        prefix: "p/",
        region: "us-east-1",
        endpoint: real,
        credentials: { accessKeyId: "test:tester", secretAccessKey: new Secret("testing") },
        conditionalPut: false,
      });
      return { storage, dispose: async () => {} };
    },
    { exclusive: false },
  );
}
