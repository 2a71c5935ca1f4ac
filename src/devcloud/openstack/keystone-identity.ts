/**
 * Who may use the cloud: one user in one project, with a password and an application credential. Tokens are sealed, not
 * stored (as Fernet's): they outlive a restart, and only revocations are kept.
 */
import { createHmac, hash, timingSafeEqual } from "node:crypto";
import { z } from "zod";
import type { Cloud } from "#devcloud/core/cloud.ts";
import type { Random } from "#kernel/random.ts";
import type { Secret } from "#kernel/secret.ts";
import type { TokenRequest } from "#wire/openstack/keystone.ts";
import { ApiError, quoted, unauthorized } from "./api-error.ts";

export interface Identity {
  readonly user: { readonly id: string; readonly name: string };
  readonly project: { readonly id: string; readonly name: string };
  readonly domain: { readonly id: string; readonly name: string };
  readonly password: Secret;
  readonly applicationCredential: { readonly id: string; readonly name: string; readonly secret: Secret };
  readonly tokenKey: Secret;
  readonly tokenLifeMs: number;
}

const grantSchema = z.object({
  methods: z.array(z.string()),
  /** Null: an unscoped token. */
  projectId: z.string().nullable(),
  auditId: z.string(),
  issuedAt: z.number(),
  expiresAt: z.number(),
});
export type Grant = z.infer<typeof grantSchema>;

const digest = (text: string): Buffer => hash("sha256", text, "buffer");

/** In time that does not depend on where the texts differ, nor on their length. */
export function sameSecret(given: string, wanted: Secret): boolean {
  return timingSafeEqual(digest(given), digest(wanted.reveal()));
}

function seal(key: Secret, payload: string): Buffer {
  return createHmac("sha256", key.reveal()).update(payload).digest();
}

export function issueToken(identity: Identity, grant: Grant): string {
  const payload = Buffer.from(JSON.stringify(grant)).toString("base64url");
  return `${payload}.${seal(identity.tokenKey, payload).toString("base64url")}`;
}

const MAX_TOKEN_LENGTH = 2048;

/** Undefined for a token that this cloud did not issue, that is expired or revoked. */
export function readToken(identity: Identity, cloud: Cloud, token: string): Grant | undefined {
  if (token.length > MAX_TOKEN_LENGTH) return undefined;
  const dot = token.indexOf(".");
  const payload = token.slice(0, Math.max(0, dot));
  const given = Buffer.from(token.slice(dot + 1), "base64url");
  const wanted = seal(identity.tokenKey, payload);
  const padded = Buffer.alloc(wanted.length);
  given.copy(padded);
  if (!timingSafeEqual(padded, wanted) || given.length !== wanted.length) return undefined;
  const grant = grantSchema.parse(JSON.parse(Buffer.from(payload, "base64url").toString("utf8")));
  if (grant.expiresAt <= cloud.clock.now()) return undefined;
  return cloud.data.tables.token.get(revocationId(grant.auditId)) === undefined ? grant : undefined;
}

function revocationId(auditId: string): string {
  return `revoked/${auditId}`;
}

/** Part of a transaction. Forgets revocations of tokens that have expired anyway. */
export function revokeToken(cloud: Cloud, grant: Grant): void {
  const { token: tokens } = cloud.data.tables;
  const now = cloud.clock.now();
  for (const known of tokens.values()) {
    const until = known.extra["expiresAt"];
    if (known.id.startsWith("revoked/") && typeof until === "number" && until <= now) tokens.delete(known.id);
  }
  tokens.put({
    id: revocationId(grant.auditId),
    name: "",
    createdAt: now,
    tags: {},
    extra: { expiresAt: grant.expiresAt },
    parametersHash: "",
    resultIds: [],
  });
}

type IdentityPart = TokenRequest["auth"]["identity"];
interface Ref {
  readonly id?: string | undefined;
  readonly name?: string | undefined;
  readonly domain?: Ref | undefined;
}

function names(ref: Ref | undefined, thing: { id: string; name: string }, domain?: Ref): boolean {
  if (ref === undefined) return false;
  if (ref.id !== undefined) return ref.id === thing.id;
  if (ref.name !== thing.name) return false;
  return (
    domain === undefined || (domain.id !== undefined ? domain.id === "default" : domain.name === "Default")
  );
}

function provePassword(identity: Identity, part: IdentityPart): void {
  const user = part.password?.user;
  const known = names(user, identity.user, user?.domain ?? {});
  const right = sameSecret(user?.password ?? "", identity.password);
  if (!known || !right) throw unauthorized();
}

function proveApplicationCredential(identity: Identity, part: IdentityPart): void {
  const given = part.application_credential;
  const own = identity.applicationCredential;
  const named = given?.id !== undefined || names(given?.user, identity.user, given?.user?.domain);
  const known = named && names(given, own);
  const right = sameSecret(given?.secret ?? "", own.secret);
  if (!known && given?.id !== undefined) {
    throw new ApiError(404, `Could not find Application Credential: ${quoted(given.id)}.`);
  }
  if (!known || !right) throw unauthorized();
}

/** The project of the scope asked for; null for none. */
function scopeOf(identity: Identity, scope: TokenRequest["auth"]["scope"]): string | null {
  if (scope === undefined || scope === "unscoped" || typeof scope === "string") return null;
  const project = "project" in scope ? (scope.project as Ref) : undefined;
  if (project === undefined || !names(project, identity.project, project.domain)) throw unauthorized();
  return identity.project.id;
}

/** Checks what the request proves itself with. Throws 401, or 404 for a token or credential that is not known. */
export function authenticate(
  identity: Identity,
  cloud: Cloud,
  random: Random,
  { auth }: TokenRequest,
): Grant {
  const now = cloud.clock.now();
  const { methods } = auth.identity;
  let projectId = scopeOf(identity, auth.scope);
  let expiresAt = now + identity.tokenLifeMs;
  for (const method of methods) {
    if (method === "password") provePassword(identity, auth.identity);
    else if (method === "application_credential") {
      proveApplicationCredential(identity, auth.identity);
      projectId = identity.project.id;
    } else if (method === "token") {
      const earlier = readToken(identity, cloud, auth.identity.token?.id ?? "");
      if (earlier === undefined) throw new ApiError(404, "Could not recognize Fernet token");
      // Keystone does not lengthen a life by exchanging tokens.
      expiresAt = earlier.expiresAt;
    } else throw unauthorized();
  }
  return { methods, projectId, auditId: random.hex(16), issuedAt: now, expiresAt };
}
