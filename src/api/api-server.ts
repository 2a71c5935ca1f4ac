/** The HTTP API of the control plane: authenticated, validated, described by OpenAPI; no decision is made here. */
import fastifySwagger from "@fastify/swagger";
import type { Socket } from "node:net";
import fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from "fastify";
import {
  hasZodFastifySchemaValidationErrors,
  jsonSchemaTransform,
  serializerCompiler,
  validatorCompiler,
  type ZodTypeProvider,
} from "fastify-type-provider-zod";
import { createAuthenticator, requireOperator, type ApiToken, type Caller } from "#api/api-auth.ts";
import { errorBody } from "#api/api-schemas.ts";
import { registerEnvironmentRoutes } from "#api/environment-routes.ts";
import { registerRunRoutes } from "#api/run-routes.ts";
import { registerWitnessRoutes } from "#api/witness-routes.ts";
import type { Probe } from "#health/probe.ts";
import { errorCodes, isOperational, OperationalError, type ErrorCode } from "#kernel/errors.ts";
import type { Log } from "#kernel/log.ts";
import type { ControlPlane } from "#takeover/control.ts";

const MAX_BODY_BYTES = 256 * 1024;

export interface ApiOptions {
  readonly listen: { readonly host: string; readonly port: number };
  readonly controlPlane: ControlPlane;
  readonly tokens: readonly ApiToken[];
  /** What the witnesses of an environment look at. */
  readonly probesOf: (environment: string) => readonly Probe[];
  /** Prometheus text, assembled by the composition root. */
  readonly metrics: () => Promise<string>;
  readonly version: string;
  readonly log: Log;
}

export interface Api {
  readonly address: { readonly host: string; readonly port: number };
  close(): Promise<void>;
}

declare module "fastify" {
  interface FastifyRequest {
    caller: Caller;
  }
}

/** Routes that answer without a token: they change nothing and say nothing about any environment. */
const openRoutes: ReadonlySet<string> = new Set(["/healthz", "/v1/openapi.json"]);

function createInstance(log: Log): FastifyInstance {
  return fastify({
    // What fails before a route is found (a URL that cannot be decoded) is answered like everything else.
    frameworkErrors: (error, request, reply) => {
      answerError(log, error, request, reply);
    },
    clientErrorHandler: refuseBrokenRequest,
    logger: false,
    bodyLimit: MAX_BODY_BYTES,
    requestTimeout: 60_000,
    forceCloseConnections: true,
    routerOptions: { ignoreTrailingSlash: true },
  });
}

/** Builds the server without listening, for tests and for printing the OpenAPI document. */
export async function buildApi(options: Omit<ApiOptions, "listen">): Promise<FastifyInstance> {
  const app = createInstance(options.log);
  app.setValidatorCompiler(validatorCompiler);
  app.setSerializerCompiler(serializerCompiler);
  const authenticate = createAuthenticator(options.tokens);
  app.addHook("onRoute", (route) => {
    const { schema } = route;
    if (schema?.hide === true) return;
    route.schema = { ...schema, response: { "4xx": errorBody, "5xx": errorBody } };
  });
  await app.register(fastifySwagger, {
    openapi: {
      openapi: "3.1.0",
      info: { title: "Understudy", version: options.version },
      components: { securitySchemes: { token: { type: "http", scheme: "bearer" } } },
      security: [{ token: [] }],
    },
    transform: jsonSchemaTransform,
  });
  app.decorateRequest("caller");
  app.addHook("onRequest", (request, _reply, done) => {
    const route = request.routeOptions.url;
    if (route === undefined || !openRoutes.has(route))
      request.caller = authenticate(request.headers.authorization);
    done();
  });
  app.setErrorHandler((error, request, reply) => answerError(options.log, error, request, reply));
  app.setNotFoundHandler((request, reply) =>
    answerError(
      options.log,
      new OperationalError("not_found", `there is no ${request.method} ${request.url}`),
      request,
      reply,
    ),
  );
  const typed = app.withTypeProvider<ZodTypeProvider>();
  typed.get("/healthz", { schema: { hide: true } }, () => ({ ok: true, version: options.version }));
  typed.get("/v1/openapi.json", { schema: { hide: true } }, () => app.swagger());
  typed.get("/metrics", { schema: { hide: true } }, async (request, reply) => {
    requireOperator(request.caller);
    const text = await options.metrics();
    return reply.type("text/plain; version=0.0.4").send(text);
  });
  registerEnvironmentRoutes(typed, options.controlPlane);
  registerRunRoutes(typed, options.controlPlane);
  registerWitnessRoutes(typed, options.controlPlane, options.probesOf);
  return app;
}

/** Errors: `port.in_use`, `port.forbidden`. */
export async function startApi(options: ApiOptions): Promise<Api> {
  const app = await buildApi(options);
  const { host, port } = options.listen;
  try {
    await app.listen({ host, port });
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    if (code === "EADDRINUSE") {
      throw new OperationalError(
        "port.in_use",
        `the API cannot listen on ${host}:${port}: another program does; stop it, or set listen.api in understudy.yaml`,
        { cause: error },
      );
    }
    if (code === "EACCES") {
      throw new OperationalError(
        "port.forbidden",
        `the API may not listen on ${host}:${port}: ports below 1024 need privileges`,
        {
          cause: error,
        },
      );
    }
    throw error;
  }
  const bound = app.server.address();
  return {
    address:
      bound === null || typeof bound === "string"
        ? { host, port }
        : { host: bound.address, port: bound.port },
    close: () => app.close(),
  };
}

/** What is not HTTP has no route and no reply object; the answer has the same form all the same. */
function refuseBrokenRequest(error: Error & { readonly code?: string }, socket: Socket): void {
  if (!socket.writable || error.code === "ECONNRESET") {
    socket.destroy();
    return;
  }
  const large = error.code === "HPE_HEADER_OVERFLOW";
  const status = large ? "431 Request Header Fields Too Large" : "400 Bad Request";
  const code: ErrorCode = large ? "input.too_large" : "input.invalid";
  const message = large ? "the request's headers are too large" : "this is not an HTTP request";
  const body = JSON.stringify({ error: { code, message, requestId: "none" } });
  const head = `HTTP/1.1 ${status}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n`;
  socket.end(head + body);
}

function answerError(log: Log, error: unknown, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  const { code, message } = describe(error);
  if (code === "internal")
    log.error({ err: error, url: request.routeOptions.url, requestId: request.id }, "request failed");
  return reply.status(errorCodes[code].http).send({ error: { code, message, requestId: request.id } });
}

function describe(error: unknown): { readonly code: ErrorCode; readonly message: string } {
  if (isOperational(error)) return { code: error.code, message: error.message };
  if (hasZodFastifySchemaValidationErrors(error)) {
    const where = error.validationContext ?? "body";
    const issues = error.validation.map(
      ({ instancePath, message }) =>
        `${where}${instancePath.replaceAll("/", ".")}: ${message ?? "this is not valid"}`,
    );
    return { code: "input.invalid", message: issues.join("; ") };
  }
  if (
    error instanceof Error &&
    "statusCode" in error &&
    typeof error.statusCode === "number" &&
    error.statusCode < 500
  ) {
    return { code: error.statusCode === 413 ? "input.too_large" : "input.invalid", message: error.message };
  }
  return { code: "internal", message: "an internal error; the log has the details under this request id" };
}
