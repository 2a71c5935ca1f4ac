/**
 * OpenStack's REST APIs as a gateway dialect: a small Keystone of the gateway's own, and Nova, Neutron, Glance and Cinder of
 * the environment's cloud behind it, each below a prefix. Clients need nothing but OS_AUTH_URL and an access key.
 */
import type { Clock } from "#kernel/clock.ts";
import { OperationalError, isOperational } from "#kernel/errors.ts";
import type { EnvironmentId } from "#kernel/ids.ts";
import type { Random } from "#kernel/random.ts";
import type { Intent } from "#model/command.ts";
import type { OpenstackService } from "#wire/openstack/keystone.ts";
import type { OpenstackLookup } from "#wire/openstack/openstack-effect.ts";
import type { AccessKeyDirectory } from "#gateway/access-keys.ts";
import type {
  Answer,
  Authentication,
  Caller,
  Classified,
  Dialect,
  GatewayRequest,
  OutgoingRequest,
  Problem,
  RequestHead,
  Resolution,
  ResolveContext,
  SignedRequest,
  UpstreamName,
  UpstreamService,
  Upstreams,
} from "#gateway/dialect.ts";
import type { LockKeys } from "#gateway/resource-locks.ts";
import { type VerifiedToken, newTokenFacts, sealToken, verifyToken } from "./gateway-token.ts";
import {
  type Login,
  identityAnswer,
  isOwnProject,
  readLogin,
  tokenBody,
  versionAnswer,
} from "./identity-service.ts";
import { type OpenstackGrant, accessOf } from "./openstack-access.ts";
import { jsonAnswer, refusalOf, refuse, unauthorized } from "./openstack-answer.ts";
import { openstackCommand, outgoingOf } from "./openstack-command.ts";
import { readRequest } from "./openstack-request.ts";
import { resolveOpenstack } from "./openstack-resolve.ts";
import { openstackLocks, recordedRequest } from "./recorded-request.ts";
import { linkRewriter } from "./rewrite-links.ts";
import { projectPlace, servedPath, splitTarget } from "./service-paths.ts";

export interface OpenstackDialectOptions {
  readonly keys: AccessKeyDirectory;
  readonly clock: Clock;
  readonly random: Random;
  /** What is known of an environment before a command; see `openstackChanges`. Default: nothing. */
  readonly known?: (environment: EnvironmentId) => OpenstackLookup["known"];
  /** The gateway's address as clients see it, e.g. behind a TLS proxy. Default: `http://` and the request's Host. */
  readonly publicUrl?: string;
  /** Default 1 h. */
  readonly tokenLifetimeMs?: number;
  /** Bytes of a request body. Default 1 MiB. */
  readonly maxBodyBytes?: number;
}

/** For `services` with the one name `openstack`: its endpoint is Keystone's, its credentials `OpenstackUpstreamCredentials`. */
export function createOpenstackDialect(options: OpenstackDialectOptions): Dialect {
  return new OpenstackDialect(options);
}

/** A request's head, read. */
interface Heading {
  readonly service: OpenstackService;
  /** Below the service's prefix, without query. */
  readonly rest: string;
  readonly query: string;
  readonly base: string;
  readonly isLogin: boolean;
}

class OpenstackDialect implements Dialect {
  readonly name = "openstack";
  readonly services = ["openstack"] as const;
  readonly maxBodyBytes: number;
  readonly #options: OpenstackDialectOptions;

  constructor(options: OpenstackDialectOptions) {
    this.#options = options;
    this.maxBodyBytes = options.maxBodyBytes ?? 1024 * 1024;
  }

  accepts({ target, headers }: RequestHead): boolean {
    return headers["x-auth-token"] !== undefined || servedPath(splitTarget(target).path) !== undefined;
  }

  /** Whoever has no token is answered before its body is read, but for the request that asks for one. */
  admit(head: RequestHead): Answer | undefined | Promise<Answer | undefined> {
    const refreshing = this.#options.keys.refresh();
    return refreshing === undefined ? this.#admit(head) : refreshing.then(() => this.#admit(head));
  }

  #admit(head: RequestHead): Answer | undefined {
    const heading = this.#read(head);
    if ("status" in heading) return heading;
    if (heading.isLogin) return undefined;
    if (heading.service === "identity" && (head.method === "GET" || head.method === "HEAD")) {
      const answer = versionAnswer(heading.rest, heading.base);
      if (answer !== undefined) return answer;
    }
    return this.#token(head) === undefined ? unauthorized(heading.base) : undefined;
  }

  #read(head: RequestHead): Heading | Answer {
    const base = this.#baseOf(head);
    if (base === undefined) {
      return refuse("identity", { status: 400, message: "The Host header names no host." });
    }
    const { path, query } = splitTarget(head.target);
    const served = servedPath(path);
    if (served === undefined) {
      return refuse("identity", {
        status: 404,
        message: `This gateway serves OpenStack at ${base}/identity and the addresses in its catalogue. Set OS_AUTH_URL to ${base}/identity.`,
      });
    }
    const { service, rest } = served;
    const isLogin = service === "identity" && head.method === "POST" && /^\/v3\/auth\/tokens\/?$/.test(rest);
    return { service, rest, query, base, isLogin };
  }

  #baseOf({ headers }: RequestHead): string | undefined {
    if (this.#options.publicUrl !== undefined) return this.#options.publicUrl.replace(/\/+$/, "");
    const { host } = headers;
    const plain =
      typeof host === "string" && /^(?:\[[0-9a-f:.]{2,45}\]|[a-z0-9._-]{1,253})(?::\d{1,5})?$/i.test(host);
    return plain ? `http://${host}` : undefined;
  }

  #token({ headers }: RequestHead, name = "x-auth-token"): VerifiedToken | undefined {
    const text = headers[name];
    if (typeof text !== "string") return undefined;
    return verifyToken(this.#options.keys, text, this.#options.clock.now());
  }

  authenticate(request: GatewayRequest): Authentication {
    const heading = this.#read(request);
    if ("status" in heading) return { ok: false, answer: heading };
    if (heading.isLogin) return this.#login(request, heading);
    // Proven again: the key may have been disabled while the body came.
    const token = this.#token(request);
    if (token === undefined) return { ok: false, answer: unauthorized(heading.base) };
    const caller = callerOf(token);
    return {
      ok: true,
      caller,
      classify: (upstreams) => this.#classify(request, heading, token, caller, upstreams),
    };
  }

  #login(request: GatewayRequest, heading: Heading): Authentication {
    const { keys, clock } = this.#options;
    const reading = readLogin(keys, request.body, clock.now());
    if (!reading.ok) {
      const { status, message } = reading;
      const answer =
        status === 401 ? unauthorized(heading.base, message) : refuse("identity", { status, message });
      return { ok: false, answer };
    }
    const { login } = reading;
    return {
      ok: true,
      caller: callerOf(login),
      classify: (upstreams) => this.#issue(login, heading, upstreams),
    };
  }

  async #issue(login: Login, heading: Heading, upstreams: Upstreams): Promise<Classified> {
    const { key } = login;
    const upstream = upstreams.get("openstack");
    const grant = await grantOf(upstream);
    if (upstream === undefined || "kind" in grant) return this.#noGrant(grant, key.environment);
    if (login.project !== undefined && !isOwnProject(login.project, key, grant)) {
      const message = `The access key ${key.id} belongs to the project ${key.environment}, not to the one asked for.`;
      return answered(unauthorized(heading.base, message));
    }
    const { clock, random, tokenLifetimeMs = 3_600_000 } = this.#options;
    const now = clock.now();
    const lifetime =
      login.until === undefined ? tokenLifetimeMs : Math.min(tokenLifetimeMs, login.until - now);
    const facts = newTokenFacts(now, Math.ceil(lifetime / 1000) * 1000, random);
    const view = { key, facts, methods: [login.method], grant, region: upstream.region, base: heading.base };
    const headers = [
      "x-subject-token",
      sealToken(key, facts),
      "vary",
      "X-Auth-Token",
      "cache-control",
      "no-store",
    ];
    return answered(jsonAnswer(201, tokenBody(view), headers));
  }

  async #classify(
    request: GatewayRequest,
    heading: Heading,
    token: VerifiedToken,
    caller: Caller,
    upstreams: Upstreams,
  ): Promise<Classified> {
    const { service, base } = heading;
    if (service === "identity") return this.#identity(request, heading, token, upstreams);
    const reading = readRequest(service, request);
    if (!reading.ok) return answered(refuse(service, reading.refusal));
    const grant = await grantOf(upstreams.get("openstack"));
    if ("kind" in grant) return this.#noGrant(grant, caller.environment, service);
    if (!grant.roots.has(service)) {
      const problem = { kind: "no_upstream", environment: caller.environment, service } as const;
      return answered(refuse(service, refusalOf(problem)));
    }
    const edit = linkRewriter(grant.roots, base);
    const { request: read } = reading;
    // A console reads nothing of the API, but hands over the server.
    if (/remote-consoles| os-get\w+Console$/.test(read.operation) && caller.rights !== "change") {
      const { operation } = read;
      return answered(
        refuse(service, refusalOf({ kind: "forbidden", operation, principal: caller.principal })),
      );
    }
    if (read.readOnly) {
      const outgoing = outgoingOf(read, request.body);
      return { kind: "read", service: "openstack", operation: read.operation, outgoing, edit };
    }
    const known = this.#options.known?.(caller.environment);
    return { kind: "change", command: openstackCommand(read, request.body, edit, known) };
  }

  async #identity(
    request: GatewayRequest,
    heading: Heading,
    token: VerifiedToken,
    upstreams: Upstreams,
  ): Promise<Classified> {
    const { rest, base } = heading;
    const upstream = upstreams.get("openstack");
    const grant = await grantOf(upstream);
    if (upstream === undefined || "kind" in grant) return this.#noGrant(grant, token.key.environment);
    const subject = this.#token(request, "x-subject-token");
    const question = {
      method: request.method,
      rest,
      query: new URLSearchParams(heading.query),
      subject: subject?.key.environment === token.key.environment ? subject : undefined,
      token,
      grant,
      region: upstream.region,
      base,
    };
    return answered(identityAnswer(question));
  }

  #noGrant(
    why: OpenstackGrant | Problem,
    environment: string,
    service: OpenstackService = "identity",
  ): Classified {
    const problem = "kind" in why ? why : ({ kind: "no_upstream", environment, service } as const);
    // Told in the caller's terms: which environment it is.
    return answered(refuse(service, refusalOf({ ...problem, environment } as Problem)));
  }

  sign(
    _service: UpstreamName,
    request: OutgoingRequest,
    upstream: UpstreamService,
  ): SignedRequest | Promise<SignedRequest> {
    const grant = accessOf(upstream).grant();
    return grant instanceof Promise ? grant.then((late) => signed(request, late)) : signed(request, grant);
  }

  outlived(status: number, request: SignedRequest, upstream: UpstreamService): boolean {
    if (status !== 401) return false;
    const at = request.headers.indexOf("x-auth-token");
    accessOf(upstream).reject(request.headers[at + 1] ?? "");
    return true;
  }

  locksOf(intent: Intent): LockKeys {
    const recorded = recordedRequest(intent);
    if (recorded === undefined) return { shared: [], exclusive: [] };
    return openstackLocks(recorded.method, recorded.path, recorded.body);
  }

  resolve(intent: Intent, context: ResolveContext): Promise<Resolution> {
    return resolveOpenstack(intent, context, this.#options.known?.(intent.environment));
  }

  renderProblem(problem: Problem, head: RequestHead): Answer {
    const service = servedPath(splitTarget(head.target).path)?.service ?? "identity";
    return refuse(service, refusalOf(problem));
  }
}

function callerOf({ key }: Pick<VerifiedToken, "key">): Caller {
  return { principal: key.id, environment: key.environment, rights: key.rights };
}

function answered(answer: Answer): Classified {
  return { kind: "answer", answer };
}

async function grantOf(upstream: UpstreamService | undefined): Promise<OpenstackGrant | Problem> {
  if (upstream === undefined) return { kind: "no_upstream", environment: "", service: "openstack" };
  try {
    return await accessOf(upstream).grant();
  } catch (error) {
    if (isOperational(error)) return { kind: "unreachable", environment: "" };
    throw error;
  }
}

/** From the gateway's path to the cloud's: the service's own address, and its token. */
function signed(request: OutgoingRequest, grant: OpenstackGrant): SignedRequest {
  const { path, query } = splitTarget(request.path);
  const served = servedPath(path);
  const root = served === undefined ? undefined : grant.roots.get(served.service);
  if (served === undefined || root === undefined) {
    throw new OperationalError("cloud.unsupported", `the cloud has no service for ${path}`);
  }
  const rest = served.rest.replace(projectPlace, grant.project.id);
  const headers = ["host", root.host, ...request.headers, "x-auth-token", grant.token.reveal()];
  return {
    method: request.method,
    path: `${root.pathname.replace(/\/$/, "")}${rest === "" ? "/" : rest}${query}`,
    headers,
    body: request.body,
    origin: root.origin,
  };
}
