/**
 * The gateway's own small Keystone. Users, projects and roles are not kept here, and the cloud's own are not shown: a caller is an
 * access key, its project the environment's, under the id that the cloud itself has for it, so that the ids in the cloud's answers
 * and in the token are the same.
 */
import type { OpenstackService } from "#wire/openstack/keystone.ts";
import { tokenRequestSchema } from "#wire/openstack/keystone.ts";
import { decodeBody } from "#wire/openstack/openstack-json.ts";
import type { AccessKeyDirectory, AccessKeyWithSecret } from "#gateway/access-keys.ts";
import type { Answer } from "#gateway/dialect.ts";
import { type TokenFacts, type VerifiedToken, isSecret, verifyToken } from "./gateway-token.ts";
import { jsonAnswer, refuse } from "./openstack-answer.ts";
import type { OpenstackGrant } from "./openstack-access.ts";
import { servicePrefixes } from "./service-paths.ts";

const defaultDomain = { id: "default", name: "Default" };

/** How a caller proved itself, and what the token is to say. */
export interface Login {
  readonly key: AccessKeyWithSecret;
  readonly method: "password" | "application_credential" | "token";
  /** The project that it asked for, if any: an id or a name. */
  readonly project: string | undefined;
  /** The end of the token that it came with: another one from it does not last longer. */
  readonly until: number | undefined;
}

export type LoginReading =
  | { readonly ok: true; readonly login: Login }
  | { readonly ok: false; readonly status: 400 | 401 | 403; readonly message: string };

const wrong: LoginReading = {
  ok: false,
  status: 401,
  message: "The request you have made requires authentication.",
};

/** Reads `POST /v3/auth/tokens`. Call `keys.refresh` before. */
export function readLogin(keys: AccessKeyDirectory, body: Buffer, now: number): LoginReading {
  const decoded = decodeBody(tokenRequestSchema, body.toString("utf8"));
  if (!decoded.ok) return { ok: false, status: 400, message: `Malformed request body: ${decoded.reason}` };
  const { identity, scope } = decoded.value.auth;
  const [method] = identity.methods;
  if (identity.methods.length !== 1 || method === undefined) {
    return {
      ok: false,
      status: 401,
      message: "One authentication method is taken here, not several together.",
    };
  }
  const project = projectOf(scope);
  if (project === null) {
    return {
      ok: false,
      status: 403,
      message:
        "Tokens are scoped to the environment's project. Name it as the project, not a domain or the system.",
    };
  }
  switch (method) {
    case "password": {
      const user = identity.password?.user;
      const key = keys.find(user?.name ?? user?.id ?? "");
      // Compared also for a key that there is not, so that the time does not tell which exist.
      if (!isSecret(user?.password ?? "", key?.secret) || key === undefined) return wrong;
      return { ok: true, login: { key, method, project, until: undefined } };
    }
    case "application_credential": {
      const credential = identity.application_credential;
      const key = keys.find(credential?.id ?? credential?.name ?? "");
      if (!isSecret(credential?.secret ?? "", key?.secret) || key === undefined) return wrong;
      return { ok: true, login: { key, method, project, until: undefined } };
    }
    case "token": {
      const token = verifyToken(keys, identity.token?.id ?? "", now);
      if (token === undefined) return wrong;
      return { ok: true, login: { key: token.key, method, project, until: token.expiresAt } };
    }
    default:
      return {
        ok: false,
        status: 401,
        message: "The authentication method is not taken here: use password or application_credential.",
      };
  }
}

/** `null`: the scope is something else than a project. */
function projectOf(scope: unknown): string | undefined | null {
  if (scope === undefined || scope === "unscoped") return undefined;
  if (typeof scope !== "object" || scope === null || !("project" in scope)) return null;
  const { project } = scope as { readonly project?: { readonly id?: string; readonly name?: string } };
  return project?.id ?? project?.name ?? null;
}

/** Whether a project named by a caller is the one that its key belongs to. */
export function isOwnProject(named: string, key: AccessKeyWithSecret, grant: OpenstackGrant): boolean {
  return named === key.environment || named === grant.project.id || named === grant.project.name;
}

export interface TokenView {
  readonly key: AccessKeyWithSecret;
  readonly facts: TokenFacts;
  readonly methods: readonly string[];
  readonly grant: OpenstackGrant;
  readonly region: string;
  readonly base: string;
}

/** The body of a token, as `POST` and `GET /v3/auth/tokens` give it. */
export function tokenBody(view: TokenView): unknown {
  const { key, facts, methods, base } = view;
  const role = key.rights === "change" ? "member" : "reader";
  const user = { id: key.id, name: key.id, domain: defaultDomain, password_expires_at: null };
  return {
    token: {
      methods,
      user,
      audit_ids: [facts.auditId],
      issued_at: keystoneTime(facts.issuedAt),
      expires_at: keystoneTime(facts.expiresAt),
      project: { id: view.grant.project.id, name: key.environment, domain: defaultDomain },
      is_domain: false,
      roles: [{ id: role, name: role }],
      catalog: catalogue(view, base),
      ...(methods.includes("application_credential")
        ? { application_credential: { id: key.id, name: key.label, restricted: true } }
        : {}),
    },
  };
}

/** Cinder has two names: clients know one or the other. */
const catalogueTypes: readonly (readonly [string, string, OpenstackService])[] = [
  ["identity", "keystone", "identity"],
  ["compute", "nova", "compute"],
  ["network", "neutron", "network"],
  ["image", "glance", "image"],
  ["volumev3", "cinderv3", "volume"],
  ["block-storage", "cinder", "volume"],
];

export function catalogue({ grant, region }: Pick<TokenView, "grant" | "region">, base: string): unknown[] {
  const below: Readonly<Record<OpenstackService, string>> = {
    identity: "",
    compute: "/v2.1",
    network: "",
    image: "",
    volume: `/v3/${grant.project.id}`,
  };
  return catalogueTypes
    .filter(([, , service]) => service === "identity" || grant.roots.has(service))
    .map(([type, name, service]) => ({
      id: type,
      type,
      name,
      endpoints: ["public", "internal", "admin"].map((kind) => ({
        id: `${type}-${kind}`,
        interface: kind,
        region,
        region_id: region,
        url: `${base}${servicePrefixes[service]}${below[service]}`,
      })),
    }));
}

function keystoneTime(at: number): string {
  return new Date(at).toISOString().replace(/Z$/, "000Z");
}

function versionOf(base: string): unknown {
  return {
    id: "v3.14",
    status: "stable",
    updated: "2020-04-07T00:00:00Z",
    links: [{ rel: "self", href: `${base}/identity/v3/` }],
    "media-types": [{ base: "application/json", type: "application/vnd.openstack.identity-v3+json" }],
  };
}

/** `GET /identity` and `GET /identity/v3`, for everyone; undefined for any other path. */
export function versionAnswer(rest: string, base: string): Answer | undefined {
  const path = rest.replace(/\/$/, "");
  if (path === "") {
    return jsonAnswer(300, { versions: { values: [versionOf(base)] } }, ["location", `${base}/identity/v3/`]);
  }
  return path === "/v3" ? jsonAnswer(200, { version: versionOf(base) }) : undefined;
}

export interface IdentityQuestion {
  readonly method: string;
  /** Below `/identity`, without query. */
  readonly rest: string;
  readonly query: URLSearchParams;
  /** The token in X-Subject-Token, if it is one of the caller's own environment. */
  readonly subject: VerifiedToken | undefined;
  readonly token: VerifiedToken;
  readonly grant: OpenstackGrant;
  readonly region: string;
  readonly base: string;
}

/** What a caller with a token may ask of Keystone. */
export function identityAnswer(question: IdentityQuestion): Answer {
  const { method, rest, subject, token, grant, base } = question;
  if (method !== "GET" && method !== "HEAD") {
    return refuse("identity", {
      status: 403,
      message: `${method} ${rest} is not taken here: users, projects and keys of this gateway are kept by "understudy key", those of the cloud by the cloud's own Keystone. Tokens end by themselves.`,
    });
  }
  const path = rest.replace(/\/$/, "");
  const project = {
    id: grant.project.id,
    name: token.key.environment,
    domain_id: defaultDomain.id,
    parent_id: defaultDomain.id,
    description: "",
    enabled: true,
    is_domain: false,
    tags: [],
    options: {},
    links: { self: `${base}/identity/v3/projects/${grant.project.id}` },
  };
  const listed = (): unknown[] => {
    const name = question.query.get("name");
    return name === null || name === project.name ? [project] : [];
  };
  const links = { self: `${base}/identity${path}`, next: null, previous: null };
  switch (path) {
    case "/v3/auth/tokens": {
      if (subject === undefined) {
        return refuse("identity", { status: 404, message: "Could not find the token in X-Subject-Token." });
      }
      const view = { ...question, key: subject.key, facts: subject, methods: ["password"] };
      return jsonAnswer(200, tokenBody(view), ["vary", "X-Auth-Token"]);
    }
    case "/v3/auth/catalog":
      return jsonAnswer(200, { catalog: catalogue(question, base), links });
    case "/v3/auth/projects":
    case `/v3/users/${token.key.id}/projects`:
    case "/v3/projects":
      return jsonAnswer(200, { projects: listed(), links });
    case `/v3/projects/${grant.project.id}`:
      return jsonAnswer(200, { project });
    case "/v3/auth/domains":
      return jsonAnswer(200, { domains: [], links });
    default:
      return refuse("identity", {
        status: 404,
        message: `${path} is not served here: this gateway's Keystone knows tokens, the catalogue and the caller's own project.`,
      });
  }
}
