/**
 * One project's access to one OpenStack: the token (cached, renewed before it expires, and once when a service no longer takes
 * it), the catalogue's addresses and Nova's negotiated microversion.
 */
import { OperationalError } from "#kernel/errors.ts";
import { Secret } from "#kernel/secret.ts";
import type { OpenstackService, TokenResponse } from "#wire/openstack/keystone.ts";
import { findEndpoint, tokenRequest, tokenResponseSchema } from "#wire/openstack/keystone.ts";
import { leastNovaVersion, negotiateNovaVersion, novaVersionSchema } from "#wire/openstack/nova.ts";
import { decodeBody } from "#wire/openstack/openstack-json.ts";
import { errorFromAnswer } from "./cloud-error.ts";
import type { FailedCall } from "./cloud-error.ts";
import type { HttpAnswer, HttpRequest } from "./http-client.ts";
import { HttpClient, abandonable, defaultHttpLimits } from "./http-client.ts";
import type { OpenstackCloudOptions } from "./openstack-options.ts";

/** A token is renewed when it would expire within this time. */
const renewBeforeMs = 120_000;
/** A renewed token is not asked for on behalf of one caller alone, so that it has a patience of its own. */
const sharedTimeoutMs = 90_000;

interface Grant {
  readonly token: Secret;
  readonly expiresAt: number;
  readonly body: TokenResponse["token"];
}

export interface SessionCall {
  readonly service: OpenstackService;
  readonly method: HttpRequest["method"];
  /** Below the service's base, e.g. `/servers/detail`. */
  readonly path: string;
  readonly query?: URLSearchParams;
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
  readonly signal: AbortSignal;
  readonly settled?: (end: Promise<unknown>) => void;
}

/** The version that each service's paths stand below, where its endpoint leaves it out. */
function basePath(service: OpenstackService, path: string, projectId: string): string {
  const trimmed = path.replace(/\/+$/, "");
  switch (service) {
    case "identity":
      return trimmed.endsWith("/v3") ? trimmed : `${trimmed}/v3`;
    case "compute":
      return /\/v2(\.\d+)?(\/|$)/.test(trimmed) ? trimmed : `${trimmed}/v2.1`;
    case "network":
      return trimmed.endsWith("/v2.0") ? trimmed : `${trimmed}/v2.0`;
    case "image":
      return trimmed.endsWith("/v2") ? trimmed : `${trimmed}/v2`;
    case "volume":
      return /\/v3(\/|$)/.test(trimmed) ? trimmed : `${trimmed}/v3/${projectId}`;
  }
}

function parseUrl(text: string, what: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url !== undefined && (url.protocol === "https:" || url.protocol === "http:")) return url;
  throw new OperationalError("config.invalid", `${what} is no http(s) address: ${text}`);
}

export class OpenstackSession {
  readonly #options: OpenstackCloudOptions;
  readonly #http: HttpClient;
  readonly #authUrl: URL;
  #grant: Promise<Grant> | undefined;
  #novaVersion: Promise<string> | undefined;
  #closed = false;

  constructor(options: OpenstackCloudOptions) {
    this.#options = options;
    this.#authUrl = parseUrl(options.authUrl, "authUrl");
    this.#authUrl.pathname = basePath("identity", this.#authUrl.pathname, "");
    this.#http = new HttpClient({ ...defaultHttpLimits, ...options.limits }, options.certificateAuthority);
  }

  get authUrl(): string {
    return this.#authUrl.href;
  }

  /** Who the token speaks for. */
  async identity(signal: AbortSignal): Promise<{ readonly projectId: string; readonly account: string }> {
    const { body } = await this.#currentGrant(signal);
    const projectId = body.project?.id ?? "";
    return { projectId, account: `${body.project?.name ?? "?"} (${projectId}) as ${body.user.name}` };
  }

  /** A new token whatever is cached: proves that the credentials are good now. */
  renew(): void {
    this.#grant = undefined;
  }

  /** Any answer below 300; a refusal is thrown as an operational error. */
  async request(call: SessionCall): Promise<HttpAnswer> {
    const first = await this.#attempt(call);
    if (first.status !== 401) return this.#checked(call, first);
    // Expired, revoked, or Keystone's keys were rotated: 401 is never after a change, so that it may be sent again.
    this.#grant = undefined;
    return this.#checked(call, await this.#attempt(call));
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#http.close();
  }

  async #attempt(call: SessionCall): Promise<HttpAnswer> {
    if (this.#closed) {
      throw new OperationalError("cloud.unreachable", "the connection to this OpenStack was closed");
    }
    const grant = await this.#currentGrant(call.signal);
    const url = this.#address(call.service, grant.body);
    url.pathname += call.path;
    if (call.query !== undefined) url.search = call.query.toString();
    const version =
      call.service === "compute"
        ? { "openstack-api-version": `compute ${await this.#novaVersionOf(call.signal)}` }
        : {};
    return this.#http.send(
      {
        method: call.method,
        url,
        headers: {
          accept: "application/json",
          "x-auth-token": grant.token.reveal(),
          ...(call.body === undefined ? {} : { "content-type": "application/json" }),
          ...version,
          ...call.headers,
        },
        ...(call.body === undefined ? {} : { body: JSON.stringify(call.body) }),
        signal: call.signal,
        change: call.method !== "GET",
      },
      call.settled,
    );
  }

  #checked(call: SessionCall, answer: HttpAnswer): HttpAnswer {
    if (answer.status < 300) return answer;
    const { service, method, path } = call;
    throw this.#refusal({ service, method, path, change: method !== "GET" }, answer);
  }

  #refusal(call: FailedCall, answer: HttpAnswer): OperationalError {
    return errorFromAnswer(call, answer, this.#options.clock.now());
  }

  #address(service: OpenstackService, token: TokenResponse["token"]): URL {
    if (service === "identity") return new URL(this.#authUrl);
    const { region, endpointOverrides, interface: name = "public" } = this.#options;
    const want = { interface: name, ...(region === undefined ? {} : { region }) };
    const found = endpointOverrides?.[service] ?? findEndpoint(token.catalog, service, want);
    if (found === undefined) {
      const where = region === undefined ? "" : ` in region ${region}`;
      throw new OperationalError(
        "cloud.unsupported",
        `the cloud's catalogue has no ${service} service${where} (${name} interface): check region and interface, or name its address under endpoints`,
      );
    }
    const url = parseUrl(found, `the ${service} endpoint`);
    url.pathname = basePath(service, url.pathname, token.project?.id ?? "");
    url.search = "";
    return url;
  }

  async #currentGrant(signal: AbortSignal): Promise<Grant> {
    const cached = this.#grant;
    if (cached !== undefined) {
      const grant = await abandonable(cached, signal, false);
      if (grant.expiresAt - renewBeforeMs > this.#options.clock.now()) return grant;
      if (this.#grant === cached) this.#grant = undefined;
    }
    const renewed = (this.#grant ??= this.#shared(this.#authenticate(), () => (this.#grant = undefined)));
    return abandonable(renewed, signal, false);
  }

  /** One request for all who wait; a failure is not kept. */
  #shared<T>(work: Promise<T>, forget: () => void): Promise<T> {
    work.catch(forget);
    return work;
  }

  async #authenticate(): Promise<Grant> {
    const { credentials, project, clock } = this.#options;
    const url = new URL(this.#authUrl);
    url.pathname += "/auth/tokens";
    const answer = await this.#http.send({
      method: "POST",
      url,
      headers: { accept: "application/json", "content-type": "application/json" },
      body: JSON.stringify(tokenRequest(credentials, project)),
      signal: AbortSignal.timeout(sharedTimeoutMs),
      change: false,
    });
    const call = { service: "identity", method: "POST", path: "/auth/tokens", change: false } as const;
    if (answer.status >= 300) throw this.#refusal(call, answer);
    const token = answer.headers.get("x-subject-token");
    const decoded = decodeBody(tokenResponseSchema, answer.text);
    if (token === undefined || !decoded.ok) {
      const reason = decoded.ok ? "no X-Subject-Token" : decoded.reason;
      throw new OperationalError(
        "cloud.protocol",
        `${url.origin} does not answer as Keystone v3 does: check authUrl`,
        { detail: reason },
      );
    }
    const body = decoded.value.token;
    if (body.project === undefined) {
      throw new OperationalError("config.missing", "the credentials have no project: name one for this site");
    }
    const expiresAt = Date.parse(body.expires_at);
    return {
      token: new Secret(token),
      expiresAt: Number.isNaN(expiresAt) ? clock.now() + 10 * renewBeforeMs : expiresAt,
      body,
    };
  }

  async #novaVersionOf(signal: AbortSignal): Promise<string> {
    this.#novaVersion ??= this.#shared(this.#negotiate(), () => (this.#novaVersion = undefined));
    return abandonable(this.#novaVersion, signal, false);
  }

  async #negotiate(): Promise<string> {
    const signal = AbortSignal.timeout(sharedTimeoutMs);
    const grant = await this.#currentGrant(signal);
    const url = this.#address("compute", grant.body);
    // The version document is at the versioned root, without the project that older endpoints end in.
    url.pathname = `${url.pathname.replace(/(\/v2(?:\.\d+)?)(\/.*)?$/, "$1")}/`;
    const headers = { accept: "application/json", "x-auth-token": grant.token.reveal() };
    const answer = await this.#http.send({ method: "GET", url, headers, signal, change: false });
    if (answer.status >= 400) {
      throw this.#refusal({ service: "compute", method: "GET", path: "/", change: false }, answer);
    }
    const decoded = decodeBody(novaVersionSchema, answer.text);
    const version = decoded.ok ? negotiateNovaVersion(decoded.value.version.version) : undefined;
    if (version !== undefined) return version;
    throw new OperationalError(
      "cloud.unsupported",
      `the cloud's compute service is older than microversion ${leastNovaVersion} (OpenStack Pike)`,
      { detail: decoded.ok ? decoded.value.version.version : decoded.reason },
    );
  }
}
