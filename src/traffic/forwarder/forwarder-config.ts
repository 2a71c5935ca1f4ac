/** What a forwarder is told once, at its start; its routes' backends come later, through their switches. */
import { OperationalError } from "#kernel/errors.ts";

export interface RouteMatch {
  /** Host names without a port, any case; absent: every host. */
  readonly hosts?: readonly string[];
  /** A path prefix of whole segments, e.g. `/shop` (matches `/shop` and `/shop/x`, not `/shopping`). */
  readonly pathPrefix?: string;
}

/** Answer with a redirect to a backend instead of forwarding to it. */
export interface RedirectAction {
  /** 307 and 308 keep the method; 301 and 308 are kept by browsers and outlive the next switch. */
  readonly status: 301 | 302 | 307 | 308;
  readonly scheme: "http" | "https";
}

export interface RouteConfig {
  readonly name: string;
  readonly match?: RouteMatch;
  readonly redirect?: RedirectAction;
}

export interface ForwarderLimits {
  /** Client connections open at once; further ones are closed at accept. */
  readonly connections: number;
  /** A request's or an answer's head. */
  readonly headerBytes: number;
  /** To open a connection to a backend. */
  readonly connectMs: number;
  /** From a request's last body byte to the first byte of the answer. */
  readonly firstByteMs: number;
  /** Without a byte in either direction, once an exchange is under way. */
  readonly idleMs: number;
  /** The same for an upgraded connection, and for one in TCP mode. */
  readonly tunnelIdleMs: number;
  /** For a client to send a request's head. */
  readonly headMs: number;
  /** A kept-alive client connection between two requests. */
  readonly keepAliveMs: number;
  /** What is still under way with a removed backend is cut after this. */
  readonly drainMs: number;
  /** A backend that refuses a connection is put aside for this long. */
  readonly asideMs: number;
  /** Backends tried for one request or connection. */
  readonly attempts: number;
}

export interface ForwarderConfig {
  readonly listen: { readonly host: string; readonly port: number };
  readonly mode: "http" | "tcp";
  /** HTTP: the first one that matches takes the request. TCP: exactly one, without `match` and `redirect`. */
  readonly routes: readonly RouteConfig[];
  readonly limits?: Partial<ForwarderLimits>;
  /** HTTP: keep an `X-Forwarded-For` that came with the request and add to it; only behind a trusted proxy. */
  readonly trustForwardedFor?: boolean;
}

export const defaultLimits: ForwarderLimits = {
  connections: 10_000,
  headerBytes: 16_384,
  connectMs: 2_000,
  firstByteMs: 60_000,
  idleMs: 60_000,
  tunnelIdleMs: 3_600_000,
  headMs: 10_000,
  keepAliveMs: 75_000,
  drainMs: 30_000,
  asideMs: 1_000,
  attempts: 3,
};

const ROUTE_NAME = /^[a-z0-9][a-z0-9._-]{0,62}$/i;

function checkRoute(route: RouteConfig, mode: "http" | "tcp", invalid: (what: string) => never): void {
  if (!ROUTE_NAME.test(route.name))
    invalid(`route name ${JSON.stringify(route.name)} is not a short plain name`);
  if (mode === "tcp" && (route.match !== undefined || route.redirect !== undefined))
    invalid(`route ${route.name} has \`match\` or \`redirect\`, which only HTTP mode knows`);
  const prefix = route.match?.pathPrefix;
  if (prefix !== undefined && !/^\/[\x21-\x22\x24-\x3e\x40-\x7e]*$/.test(prefix))
    invalid(`route ${route.name}: pathPrefix must be a plain path that begins with /`);
}

/** Throws `config.invalid`; the limits with their defaults filled in. */
export function checkForwarderConfig(config: ForwarderConfig): ForwarderLimits {
  const invalid = (what: string): never => {
    throw new OperationalError("config.invalid", `the forwarder's configuration is refused: ${what}`);
  };
  const { port } = config.listen;
  if (!Number.isInteger(port) || port < 0 || port > 65_535)
    invalid("listen.port is not an integer from 0 to 65535");
  if (config.routes.length === 0) invalid("it has no routes");
  if (config.mode === "tcp" && config.routes.length > 1)
    invalid("TCP mode has one route a listener; give each route a forwarder of its own");
  const names = new Set<string>();
  for (const route of config.routes) {
    checkRoute(route, config.mode, invalid);
    if (names.has(route.name)) invalid(`two routes have the name ${route.name}`);
    names.add(route.name);
  }
  const limits = { ...defaultLimits, ...config.limits };
  for (const [name, value] of Object.entries(limits)) {
    if (!Number.isInteger(value) || value < 1 || value > 2 ** 31 - 1)
      invalid(`limits.${name} is not an integer from 1 to ${2 ** 31 - 1}`);
  }
  return limits;
}
