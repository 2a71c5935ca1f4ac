/** Keystone v3: tokens, the catalogue, and the few things a token's owner may look at. */
import { tokenRequestSchema } from "#wire/openstack/keystone.ts";
import type { CatalogueEntry } from "#wire/openstack/keystone.ts";
import { type Answer, empty, json } from "./answer.ts";
import { type Call, type Route, bodyOf, param, parsedBody } from "./api-call.ts";
import { ApiError, unauthorized } from "./api-error.ts";
import { authenticate, type Grant, issueToken, readToken, revokeToken } from "./keystone-identity.ts";
import { keystoneId } from "./openstack-ids.ts";

const services: readonly (readonly [type: string, name: string, path: (projectId: string) => string])[] = [
  ["identity", "keystone", () => "/identity"],
  ["compute", "nova", () => "/compute/v2.1"],
  ["network", "neutron", () => "/networking"],
  ["image", "glance", () => "/image"],
  ["block-storage", "cinder", (projectId) => `/volume/v3/${projectId}`],
  ["volumev3", "cinderv3", (projectId) => `/volume/v3/${projectId}`],
];

type Catalogue = (CatalogueEntry & { readonly id: string })[];

function catalogue(call: Call, projectId: string): Catalogue {
  const { region } = call.cloud.catalog;
  return services.map(([type, name, path]) => ({
    type,
    name,
    id: keystoneId("service", type),
    endpoints: (["public", "internal", "admin"] as const).map((face) => ({
      id: keystoneId("endpoint", `${type}/${face}`),
      interface: face,
      region_id: region,
      region,
      url: `${call.base}${path(projectId)}`,
    })),
  }));
}

const roles = ["member", "reader"].map((name) => ({ id: keystoneId("role", name), name }));

function isoMicros(ms: number): string {
  return `${new Date(ms).toISOString().slice(0, -1)}000Z`;
}

function tokenBody(call: Call, grant: Grant): object {
  const { user, project, domain } = call.openstack.identity;
  const scoped = grant.projectId !== null;
  const noCatalogue = call.query.has("nocatalog");
  return {
    token: {
      methods: grant.methods,
      user: { domain, ...user, password_expires_at: null },
      audit_ids: [grant.auditId],
      expires_at: isoMicros(grant.expiresAt),
      issued_at: isoMicros(grant.issuedAt),
      ...(scoped ? { project: { domain, ...project }, is_domain: false, roles } : {}),
      ...(scoped && !noCatalogue ? { catalog: catalogue(call, project.id) } : {}),
    },
  };
}

function postToken(call: Call): Answer {
  const { identity } = call.openstack;
  parsedBody(call);
  const grant = authenticate(identity, call.cloud, call.cloud.random, bodyOf(call, tokenRequestSchema));
  return json(201, tokenBody(call, grant), {
    "x-subject-token": issueToken(identity, grant),
    vary: "X-Auth-Token",
  });
}

function subject(call: Call): { readonly token: string; readonly grant: Grant } {
  const token = call.headers["x-subject-token"] ?? "";
  const grant = readToken(call.openstack.identity, call.cloud, token);
  if (grant === undefined) throw new ApiError(404, "Could not find token.");
  return { token, grant };
}

function getToken(call: Call): Answer {
  const { token, grant } = subject(call);
  return json(200, tokenBody(call, grant), { "x-subject-token": token, vary: "X-Auth-Token" });
}

function deleteToken(call: Call): Answer {
  revokeToken(call.cloud, subject(call).grant);
  return empty(204);
}

function scopedCatalogue(call: Call): Answer {
  const { grant } = call;
  if (grant === null) throw unauthorized();
  if (grant.projectId === null) throw new ApiError(403, "The token has no scope, so it has no catalogue.");
  return json(200, {
    catalog: catalogue(call, grant.projectId),
    links: { self: `${call.base}/identity/v3/auth/catalog` },
  });
}

function projectBody(call: Call): object {
  const { project } = call.openstack.identity;
  return {
    ...project,
    domain_id: "default",
    parent_id: "default",
    description: "",
    enabled: true,
    is_domain: false,
    options: {},
    tags: [],
    links: { self: `${call.base}/identity/v3/projects/${project.id}` },
  };
}

function listProjects(call: Call): Answer {
  const { project } = call.openstack.identity;
  const name = call.query.get("name");
  const shown = name === null || name === project.name ? [projectBody(call)] : [];
  return json(200, {
    projects: shown,
    links: { next: null, previous: null, self: `${call.base}/identity/v3/projects` },
  });
}

function getProject(call: Call): Answer {
  if (param(call) === call.openstack.identity.project.id) return json(200, { project: projectBody(call) });
  throw new ApiError(404, "Could not find project.");
}

function version(call: Call): object {
  return {
    id: "v3.14",
    status: "stable",
    updated: "2020-04-07T00:00:00Z",
    links: [{ rel: "self", href: `${call.base}/identity/v3/` }],
    "media-types": [{ base: "application/json", type: "application/vnd.openstack.identity-v3+json" }],
  };
}

export const keystoneRoutes: readonly Route[] = [
  {
    service: "identity",
    method: "GET",
    path: "/",
    access: "open",
    handler: (call) =>
      json(300, { versions: { values: [version(call)] } }, { location: `${call.base}/identity/v3/` }),
  },
  {
    service: "identity",
    method: "GET",
    path: "/v3",
    access: "open",
    handler: (call) => json(200, { version: version(call) }),
  },
  { service: "identity", method: "POST", path: "/v3/auth/tokens", access: "open", handler: postToken },
  { service: "identity", method: "GET", path: "/v3/auth/tokens", handler: getToken },
  { service: "identity", method: "HEAD", path: "/v3/auth/tokens", handler: getToken },
  { service: "identity", method: "DELETE", path: "/v3/auth/tokens", handler: deleteToken },
  { service: "identity", method: "GET", path: "/v3/auth/catalog", handler: scopedCatalogue },
  { service: "identity", method: "GET", path: "/v3/auth/projects", handler: listProjects },
  { service: "identity", method: "GET", path: "/v3/projects", handler: listProjects },
  { service: "identity", method: "GET", path: "/v3/projects/{id}", handler: getProject },
];
