import { type IncomingMessage, type ServerResponse, createServer } from "node:http";

/** A small S3 in this process, with conditional puts, and a fault before or after any request. */
export async function startSmallS3(
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
