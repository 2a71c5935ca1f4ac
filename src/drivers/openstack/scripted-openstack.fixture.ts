/** A small HTTP server that answers as a test says, with Keystone's part done. */
import { createServer } from "node:http";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { systemClock } from "#kernel/clock.ts";
import { silentLog } from "#kernel/log.ts";
import { Secret } from "#kernel/secret.ts";
import type { Cloud } from "#cloud/contract.ts";
import { openOpenstackCloud } from "./openstack-cloud.ts";
import type { OpenstackCloudOptions } from "./openstack-options.ts";

export interface ScriptedRequest {
  readonly method: string;
  /** Path and query. */
  readonly target: string;
  readonly token: string;
  readonly body: string;
}

export interface ScriptedAnswer {
  readonly status: number;
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
}

/** `undefined`: answered by the script itself, or not at all. */
export type Script = (
  request: ScriptedRequest,
  response: ServerResponse,
) => ScriptedAnswer | undefined | Promise<ScriptedAnswer | undefined>;

export interface ScriptedOpenstack extends AsyncDisposable {
  readonly cloud: Cloud;
  readonly requests: readonly ScriptedRequest[];
  readonly tokensIssued: () => number;
}

async function read(request: IncomingMessage): Promise<string> {
  let text = "";
  for await (const chunk of request.setEncoding("utf8")) text += chunk as string;
  return text;
}

export async function openScripted(
  script: Script,
  more: Partial<OpenstackCloudOptions> & { readonly tokenLifeMs?: number } = {},
): Promise<ScriptedOpenstack> {
  const requests: ScriptedRequest[] = [];
  let tokens = 0;
  const { tokenLifeMs = 3_600_000, ...options } = more;

  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const send = ({ status, body, headers }: ScriptedAnswer): void => {
      response.writeHead(status, { "content-type": "application/json", ...headers });
      response.end(body === undefined ? "" : typeof body === "string" ? body : JSON.stringify(body));
    };
    const target = request.url ?? "";
    const body = await read(request);
    const base = `http://127.0.0.1:${port}`;
    if (target === "/v3/auth/tokens") {
      tokens += 1;
      const expires_at = new Date(Date.now() + tokenLifeMs).toISOString();
      const endpoint = (url: string): object => ({ interface: "public", region: "one", url });
      const catalog = [
        { type: "compute", endpoints: [endpoint(`${base}/compute/v2.1`)] },
        { type: "network", endpoints: [endpoint(`${base}/network`)] },
        { type: "volumev3", endpoints: [endpoint(`${base}/volume/v3/p1`)] },
        { type: "image", endpoints: [endpoint(`${base}/image`)] },
      ];
      const token = {
        expires_at,
        user: { id: "u1", name: "ops" },
        project: { id: "p1", name: "shop" },
        catalog,
      };
      send({ status: 201, body: { token }, headers: { "x-subject-token": `token-${tokens}` } });
      return;
    }
    if (target === "/compute/v2.1/") {
      send({ status: 200, body: { version: { version: "2.93", min_version: "2.1" } } });
      return;
    }
    const token = String(request.headers["x-auth-token"]);
    const seen = { method: request.method ?? "", target, token, body };
    requests.push(seen);
    const scripted = await script(seen, response);
    if (scripted !== undefined) send(scripted);
  };
  const server = createServer((request, response) => {
    answer(request, response).catch((error: unknown) => response.destroy(error as Error));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  const cloud = openOpenstackCloud({
    authUrl: `http://127.0.0.1:${port}/v3`,
    credentials: { type: "password", user: { name: "ops" }, password: new Secret("secret-word") },
    project: { name: "shop" },
    clock: systemClock,
    log: silentLog,
    ...options,
  });
  return {
    cloud,
    requests,
    tokensIssued: () => tokens,
    async [Symbol.asyncDispose]() {
      await cloud.close();
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
