/** Signing keys of AWS Signature Version 4, derived once per secret, day, region and service. */
import { type KeyObject, createHmac, createSecretKey, hash } from "node:crypto";
import type { Secret } from "#kernel/secret.ts";

/** What a credential is good for: `20150830/us-east-1/ec2/aws4_request`. */
export interface CredentialScope {
  /** `YYYYMMDD` */
  readonly date: string;
  readonly region: string;
  readonly service: string;
}

export function scopeText(scope: CredentialScope): string {
  return `${scope.date}/${scope.region}/${scope.service}/aws4_request`;
}

/** Scopes kept per secret: a caller that names ever new scopes pushes out only its own. */
const keptScopes = 16;

/**
 * Keyed by the Secret object, so that a key goes when its secret does: hand in the same object each time. KeyObjects, as
 * an HMAC under a Buffer imports the key anew each time (12 us instead of 1.6).
 */
const derived = new WeakMap<Secret, Map<string, KeyObject>>();

function signingKey(secret: Secret, scope: CredentialScope): KeyObject {
  let keys = derived.get(secret);
  if (keys === undefined) {
    keys = new Map();
    derived.set(secret, keys);
  }
  const name = scopeText(scope);
  const known = keys.get(name);
  if (known !== undefined) return known;
  const dateKey = hmac(`AWS4${secret.reveal()}`, scope.date);
  const key = createSecretKey(hmac(hmac(hmac(dateKey, scope.region), scope.service), "aws4_request"));
  if (keys.size >= keptScopes) {
    const oldest = keys.keys().next().value;
    if (oldest !== undefined) keys.delete(oldest);
  }
  keys.set(name, key);
  return key;
}

function hmac(key: string | Buffer | KeyObject, text: string): Buffer {
  return createHmac("sha256", key).update(text).digest();
}

/** Raw signature over a canonical request. `time` is `YYYYMMDDTHHMMSSZ`. */
export function signature(secret: Secret, scope: CredentialScope, time: string, canonical: string): Buffer {
  const toSign = `AWS4-HMAC-SHA256\n${time}\n${scopeText(scope)}\n${hash("sha256", canonical)}`;
  return hmac(signingKey(secret, scope), toSign);
}
