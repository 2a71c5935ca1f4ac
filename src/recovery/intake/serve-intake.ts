/** The vault's intake for agents in guests: HTTPS, a key for each agent. What it may do is in `agent-intake`. */
import { mkdir } from "node:fs/promises";
import type { IncomingMessage, ServerResponse } from "node:http";
import { createServer, type Server } from "node:https";
import type { AddressInfo } from "node:net";
import type { z } from "zod";
import { errorCodes, isOperational, OperationalError } from "#kernel/errors.ts";
import type { Log } from "#kernel/log.ts";
import type { Secret } from "#kernel/secret.ts";
import {
  intakeCalls,
  leavesInput,
  leavesType,
  maxIntakeJsonBytes,
  partType,
} from "#wire/agent/intake-calls.ts";
import { maxPartBytes, passBlockBytes } from "#wire/agent/pass-part.ts";
import { encodeLocalError } from "#wire/local-api/local-api.ts";
import { AgentIntake, type AgentRights, type IntakePorts } from "./agent-intake.ts";
import { type AgentKey, createAgentAuthenticator } from "./agent-keys.ts";

export interface ServeIntakeOptions {
  readonly listen: { readonly host: string; readonly port: number };
  /** PEM. */
  readonly certificate: { readonly cert: string; readonly key: Secret };
  readonly agents: readonly AgentKey[];
  readonly ports: IntakePorts;
}

export interface ServedIntake extends AsyncDisposable {
  /** As bound. */
  readonly url: string;
}

/** A part may come through a thin pipe. */
const requestMs = 15 * 60_000;

/** Errors: `config.invalid` (certificate, keys), `port.in_use`, `port.forbidden`, `vault.damaged`. */
export async function serveIntake(options: ServeIntakeOptions): Promise<ServedIntake> {
  const { agents, ports, listen } = options;
  const authenticate = createAgentAuthenticator(agents);
  await mkdir(ports.folder, { recursive: true, mode: 0o700 });
  const intakes = new Map<string, AgentIntake>();
  for (const { rights } of agents) intakes.set(rights.name, await AgentIntake.open(rights, ports));
  const intakeOf = (rights: AgentRights): AgentIntake => {
    const intake = intakes.get(rights.name);
    if (intake === undefined) throw new Error(`agent ${rights.name} has no intake`);
    return intake;
  };
  const server = makeServer(options, (request, response) => {
    void answer(request, response, ports.log, () => intakeOf(authenticate(request.headers.authorization)));
  });
  const { port } = await listenOn(server, listen);
  const host = listen.host.includes(":") ? `[${listen.host}]` : listen.host;
  return {
    url: `https://${host}:${port}`,
    async [Symbol.asyncDispose]() {
      await new Promise<void>((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      });
      for (const intake of intakes.values()) await intake[Symbol.asyncDispose]();
    },
  };
}

function makeServer(
  { certificate: { cert, key } }: ServeIntakeOptions,
  handle: (request: IncomingMessage, response: ServerResponse) => void,
): Server {
  try {
    const tls = { cert, key: key.reveal(), minVersion: "TLSv1.2" } as const;
    const limits = { requestTimeout: requestMs, headersTimeout: 10_000, maxHeaderSize: 8192 };
    const server = createServer({ ...tls, ...limits }, handle);
    server.maxConnections = 1024;
    return server;
  } catch (cause) {
    throw new OperationalError(
      "config.invalid",
      `the intake's certificate and key do not work: ${cause instanceof Error ? cause.message : String(cause)}`,
      { cause },
    );
  }
}

function listenOn(
  server: Server,
  { host, port }: { readonly host: string; readonly port: number },
): Promise<AddressInfo> {
  return new Promise((resolve, reject) => {
    server.once("error", (error: NodeJS.ErrnoException) => {
      const code = error.code === "EACCES" ? "port.forbidden" : "port.in_use";
      reject(
        new OperationalError(code, `cannot listen on ${host}:${port}: ${error.message}`, { cause: error }),
      );
    });
    server.listen(port, host, () => resolve(server.address() as AddressInfo));
  });
}

async function answer(
  request: IncomingMessage,
  response: ServerResponse,
  log: Log,
  enter: () => AgentIntake,
): Promise<void> {
  try {
    // Before anything of the body is read: strangers cost nothing.
    const intake = enter();
    const { type, body } = await call(request, intake);
    send(response, 200, type, body);
  } catch (error) {
    const known = isOperational(error)
      ? error
      : new OperationalError("internal", "the vault failed: its log says why");
    if (!isOperational(error) && !request.destroyed) log.error({ err: error }, "an agent's call failed");
    const { http } = errorCodes[known.code];
    // What was not read of a refused body is not waited for.
    response.setHeader("connection", "close");
    const { detail: _detail, ...told } = encodeLocalError(known).error;
    send(response, http, "application/json", Buffer.from(JSON.stringify({ error: told })));
  }
}

interface Answer {
  readonly type: string;
  readonly body: Buffer;
}

async function call(request: IncomingMessage, intake: AgentIntake): Promise<Answer> {
  if (request.method !== "POST") throw new OperationalError("not_found", "the intake is called with POST");
  switch (request.url ?? "") {
    case "/v1/begin": {
      const { stream, after, volumes } = await readJson(request, intakeCalls.begin.input);
      return json({ ...(await intake.begin(stream, after, volumes)), blockBytes: passBlockBytes });
    }
    case "/v1/standing": {
      const { stream } = await readJson(request, intakeCalls.standing.input);
      return json(await intake.standing(stream));
    }
    case "/v1/leaves": {
      const { stream, volume, firstBlock, blocks } = await readJson(request, leavesInput);
      return { type: leavesType, body: await intake.leaves(stream, volume, firstBlock, blocks) };
    }
    case "/v1/part": {
      if (request.headers["content-type"] !== partType)
        throw new OperationalError("input.invalid", `a part comes as ${partType}`);
      return json(await intake.takePart(await readBody(request, maxPartBytes)));
    }
    default:
      throw new OperationalError("not_found", "the intake has no such call");
  }
}

function json(value: object): Answer {
  return { type: "application/json", body: Buffer.from(JSON.stringify(value)) };
}

async function readJson<S extends z.ZodType>(request: IncomingMessage, schema: S): Promise<z.output<S>> {
  const body = await readBody(request, maxIntakeJsonBytes);
  let value: unknown;
  try {
    value = JSON.parse(body.toString("utf8"));
  } catch {
    throw new OperationalError("input.invalid", "the call's body is not JSON");
  }
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw new OperationalError("input.invalid", `${issue?.path.join(".") ?? ""}: ${issue?.message ?? ""}`);
}

async function readBody(request: IncomingMessage, limit: number): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > limit) throw new OperationalError("input.too_large", `a call takes at most ${limit} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

function send(response: ServerResponse, status: number, type: string, body: Buffer): void {
  response.writeHead(status, { "content-type": type, "content-length": String(body.length) });
  response.end(body);
}
