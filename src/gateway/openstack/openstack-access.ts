/**
 * The gateway's own access to an OpenStack: the cloud's token and the addresses of its services, got from the real Keystone
 * with the real credentials, kept, and renewed before it ends. One request to Keystone serves all who wait.
 */
import { Agent } from "undici";
import type { Clock } from "#kernel/clock.ts";
import { OperationalError } from "#kernel/errors.ts";
import { invariant } from "#kernel/invariant.ts";
import { Secret } from "#kernel/secret.ts";
import type { OpenstackCredentials, OpenstackService, ScopedRef } from "#wire/openstack/keystone.ts";
import { findEndpoint, tokenRequest, tokenResponseSchema } from "#wire/openstack/keystone.ts";
import { decodeOpenstackError } from "#wire/openstack/openstack-errors.ts";
import { decodeBody, maxBodyLength } from "#wire/openstack/openstack-json.ts";
import type { UpstreamCredentials, UpstreamService } from "#gateway/dialect.ts";
import { type ServiceRoots, forwardedServices, serviceRoot } from "./service-paths.ts";

/** What the cloud granted, good for at least a minute when it is handed out. */
export interface OpenstackGrant {
  readonly token: Secret;
  readonly project: { readonly id: string; readonly name: string };
  /** Where the services answer, without version and project. */
  readonly roots: ServiceRoots;
}

export interface OpenstackAccess {
  /** Rejects with a `cloud.*` or `config.*` error. */
  grant(): OpenstackGrant | Promise<OpenstackGrant>;
  /** The cloud does not take this token any more: the next grant is a new one. */
  reject(token: string): void;
}

/** Real credentials of an OpenStack. */
export interface OpenstackUpstreamCredentials extends UpstreamCredentials {
  readonly kind: "openstack";
  readonly access: OpenstackAccess;
}

export function accessOf(upstream: UpstreamService): OpenstackAccess {
  const { credentials } = upstream;
  invariant(
    credentials.kind === "openstack",
    "an OpenStack needs OpenStack credentials: the configuration is checked for that",
  );
  return (credentials as OpenstackUpstreamCredentials).access;
}

export interface KeystoneAccessOptions {
  /** `https://cloud.example:5000/v3`; `/v3` is added where it is missing. */
  readonly authUrl: string;
  readonly credentials: OpenstackCredentials;
  readonly project?: ScopedRef;
  /** Absent: the first that the catalogue names. */
  readonly region?: string;
  /** Default `public`. */
  readonly interface?: "public" | "internal" | "admin";
  /** Addresses to use instead of the catalogue's. */
  readonly endpointOverrides?: Readonly<Partial<Record<OpenstackService, string>>>;
  /** PEM certificates to trust instead of the system's. */
  readonly ca?: string;
  /** Default 30 s, for the whole exchange. */
  readonly timeoutMs?: number;
  readonly clock: Clock;
}

/** A token is renewed when it would end within this time. */
const renewBeforeMs = 120_000;
/** After a failure the next try waits this long, so that a Keystone in trouble is not stormed. */
const pauseAfterFailureMs = 1_000;

interface Kept {
  readonly grant: OpenstackGrant;
  readonly expiresAt: number;
}

export class KeystoneAccess implements OpenstackAccess {
  readonly #options: KeystoneAccessOptions;
  readonly #tokensUrl: URL;
  readonly #agent: Agent;
  #kept: Kept | undefined;
  #renewing: Promise<OpenstackGrant> | undefined;
  #failure: { readonly error: unknown; readonly at: number } | undefined;

  /** Throws `config.invalid` for an address that is none. */
  constructor(options: KeystoneAccessOptions) {
    this.#options = options;
    this.#tokensUrl = tokensUrl(options.authUrl);
    this.#agent = new Agent({
      connections: 2,
      connect: { timeout: 5_000, ...(options.ca === undefined ? {} : { ca: options.ca }) },
    });
  }

  grant(): OpenstackGrant | Promise<OpenstackGrant> {
    const { clock } = this.#options;
    const kept = this.#kept;
    if (kept !== undefined && kept.expiresAt - renewBeforeMs > clock.now()) return kept.grant;
    const failure = this.#failure;
    if (failure !== undefined && clock.monotonicMs() - failure.at < pauseAfterFailureMs) {
      return Promise.reject(failure.error);
    }
    this.#renewing ??= this.#renew().finally(() => {
      this.#renewing = undefined;
    });
    return this.#renewing;
  }

  reject(token: string): void {
    if (this.#kept?.grant.token.reveal() === token) this.#kept = undefined;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#agent.close();
  }

  async #renew(): Promise<OpenstackGrant> {
    try {
      this.#kept = await this.#authenticate();
      this.#failure = undefined;
      return this.#kept.grant;
    } catch (error) {
      this.#failure = { error, at: this.#options.clock.monotonicMs() };
      throw error;
    }
  }

  async #authenticate(): Promise<Kept> {
    const { credentials, project, clock } = this.#options;
    const { status, token, text } = await this.#post(JSON.stringify(tokenRequest(credentials, project)));
    if (status >= 300) throw refusal(this.#tokensUrl, status, text);
    const decoded = decodeBody(tokenResponseSchema, text);
    if (token === undefined || !decoded.ok) {
      throw new OperationalError(
        "cloud.protocol",
        `${this.#tokensUrl.origin} does not answer as Keystone v3 does: check the site's authUrl`,
        { detail: decoded.ok ? "no X-Subject-Token" : decoded.reason },
      );
    }
    const { project: scope, catalog, expires_at: expires } = decoded.value.token;
    if (scope === undefined) {
      throw new OperationalError(
        "config.missing",
        "the cloud's credentials have no project: name one for this site",
      );
    }
    const expiresAt = Date.parse(expires);
    return {
      grant: { token: new Secret(token), project: scope, roots: this.#rootsOf(catalog) },
      expiresAt: Number.isNaN(expiresAt) ? clock.now() + 2 * renewBeforeMs : expiresAt,
    };
  }

  #rootsOf(catalogue: Parameters<typeof findEndpoint>[0]): ServiceRoots {
    const { region, endpointOverrides, interface: name = "public" } = this.#options;
    const want = { interface: name, ...(region === undefined ? {} : { region }) };
    const roots = new Map<OpenstackService, URL>();
    for (const service of forwardedServices) {
      const address = endpointOverrides?.[service] ?? findEndpoint(catalogue, service, want);
      const root = address === undefined ? undefined : serviceRoot(address);
      if (root !== undefined) roots.set(service, root);
    }
    return roots;
  }

  async #post(body: string): Promise<{ status: number; token: string | undefined; text: string }> {
    const url = this.#tokensUrl;
    try {
      const answer = await this.#agent.request({
        origin: url.origin,
        path: url.pathname,
        method: "POST",
        headers: { accept: "application/json", "content-type": "application/json" },
        body,
        signal: AbortSignal.timeout(this.#options.timeoutMs ?? 30_000),
      });
      const chunks: Buffer[] = [];
      let size = 0;
      for await (const chunk of answer.body as AsyncIterable<Buffer>) {
        size += chunk.length;
        if (size > maxBodyLength)
          throw new OperationalError("cloud.protocol", "Keystone's answer is too large");
        chunks.push(chunk);
      }
      const token = answer.headers["x-subject-token"];
      return {
        status: answer.statusCode,
        token: typeof token === "string" ? token : undefined,
        text: Buffer.concat(chunks).toString("utf8"),
      };
    } catch (cause) {
      if (cause instanceof OperationalError) throw cause;
      throw new OperationalError(
        "cloud.unreachable",
        `the cloud's Keystone at ${url.origin} does not answer`,
        {
          detail: String(cause),
          cause,
        },
      );
    }
  }
}

function tokensUrl(authUrl: string): URL {
  const url = URL.canParse(authUrl) ? new URL(authUrl) : undefined;
  if (url === undefined || !/^https?:$/.test(url.protocol)) {
    throw new OperationalError("config.invalid", `authUrl is no http(s) address: ${authUrl}`);
  }
  const path = url.pathname.replace(/\/+$/, "");
  url.pathname = `${path.endsWith("/v3") ? path : `${path}/v3`}/auth/tokens`;
  return url;
}

function refusal(url: URL, status: number, text: string): OperationalError {
  const { code, message } = decodeOpenstackError(status, text);
  const detail = `${status} ${code}: ${message}`;
  if (status === 401 || status === 403) {
    return new OperationalError(
      "cloud.credentials",
      `the cloud's Keystone at ${url.origin} does not accept the site's credentials: check them and the project`,
      { detail },
    );
  }
  return new OperationalError("cloud.failing", `the cloud's Keystone at ${url.origin} answered ${status}`, {
    detail,
  });
}
