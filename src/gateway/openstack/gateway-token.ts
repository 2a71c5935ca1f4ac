/**
 * The tokens of the gateway's own Keystone. Nothing is kept of them: a token names its access key and its end, and is sealed
 * with that key's secret (HMAC-SHA256; the secret has 240 random bits, so that a token tells nothing of it). It is good at
 * every process that has the keys, survives a restart, and ends with its key.
 */
import { createHash, createHmac, timingSafeEqual } from "node:crypto";
import type { Random } from "#kernel/random.ts";
import type { Secret } from "#kernel/secret.ts";
import type { AccessKeyDirectory, AccessKeyWithSecret } from "#gateway/access-keys.ts";

export interface TokenFacts {
  /** Milliseconds since the Unix epoch. */
  readonly issuedAt: number;
  readonly expiresAt: number;
  /** Keystone's audit id: random, names the token in logs. */
  readonly auditId: string;
}

export interface VerifiedToken extends TokenFacts {
  readonly key: AccessKeyWithSecret;
}

const form =
  /^uk1\.([A-Z0-9]{16,32})\.([0-9a-z]{1,10})\.([0-9a-z]{1,10})\.([0-9a-f]{24})\.([A-Za-z0-9_-]{43})$/;

export function newTokenFacts(now: number, lifetimeMs: number, random: Random): TokenFacts {
  // Keystone's times have no parts of seconds that clients would keep: both ends are whole seconds.
  const issuedAt = Math.floor(now / 1000) * 1000;
  return { issuedAt, expiresAt: issuedAt + lifetimeMs, auditId: random.hex(12) };
}

export function sealToken(key: AccessKeyWithSecret, facts: TokenFacts): string {
  const { issuedAt, expiresAt, auditId } = facts;
  const text = `uk1.${key.id}.${(issuedAt / 1000).toString(36)}.${(expiresAt / 1000).toString(36)}.${auditId}`;
  return `${text}.${seal(key, text).toString("base64url")}`;
}

/** The key must be in the directory and not disabled. Call `keys.refresh` before. */
export function verifyToken(keys: AccessKeyDirectory, token: string, now: number): VerifiedToken | undefined {
  const parts = form.exec(token);
  if (parts === null) return undefined;
  const [, id = "", issued = "", expires = "", auditId = "", mac = ""] = parts;
  const key = keys.find(id);
  if (key === undefined) return undefined;
  const given = Buffer.from(mac, "base64url");
  if (!timingSafeEqual(given, seal(key, token.slice(0, -mac.length - 1)))) return undefined;
  const issuedAt = Number.parseInt(issued, 36) * 1000;
  const expiresAt = Number.parseInt(expires, 36) * 1000;
  return expiresAt > now ? { key, issuedAt, expiresAt, auditId } : undefined;
}

function seal(key: AccessKeyWithSecret, text: string): Buffer {
  return createHmac("sha256", key.secret.reveal())
    .update(`understudy gateway token\n${key.environment}\n${text}`)
    .digest();
}

/** In a time that does not depend on where the two differ, nor on their lengths. */
export function isSecret(given: string, secret: Secret | undefined): boolean {
  const digest = (text: string): Buffer => createHash("sha256").update(text).digest();
  const equal = timingSafeEqual(digest(given), digest(secret?.reveal() ?? ""));
  return equal && secret !== undefined;
}
