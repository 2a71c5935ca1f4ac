// The peer: a proxy of Node's http server and an undici pool that forwards and does nothing else.
import { createServer } from "node:http";
import { pipeline } from "node:stream";
import { Pool } from "undici";
import { announce } from "./announce.ts";

const pool = new Pool(process.argv[2] ?? "", { connections: 64, pipelining: 1 });

const server = createServer((request, response) => {
  const { host: _host, connection: _connection, ...headers } = request.headers;
  pool.stream(
    { method: request.method as "POST", path: request.url ?? "/", headers, body: request },
    ({ statusCode, headers: answered }) => {
      response.writeHead(statusCode, answered);
      return response;
    },
    (error) => {
      if (error !== null) pipeline(request, response, () => response.destroy());
    },
  );
});
server.keepAliveTimeout = 75_000;
await announce(server);
process.on("SIGTERM", () => process.exit(0));
