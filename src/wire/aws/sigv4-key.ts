/** Signing keys of AWS Signature Version 4, derived once per secret, day, region and service. */
import { createHmac, hash } from "node:crypto";
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

const blockBytes = 64;
const digestBytes = 32;
/** A string to sign is some 140 characters; a longer one goes the plain way. */
const messageBytes = 512;

/**
 * A signing key as HMAC uses it: combined with its two pads (RFC 2104), which is half the work of a short message. Behind each pad
 * is room for what is hashed with it, so that a signature allocates nothing.
 */
interface PaddedKey {
  readonly inner: Buffer;
  readonly outer: Buffer;
}

/** Keyed by the Secret object, so that a key goes when its secret does: hand in the same object each time. */
const derived = new WeakMap<Secret, Map<string, PaddedKey>>();

function signingKey(secret: Secret, scope: CredentialScope, name: string): PaddedKey {
  let keys = derived.get(secret);
  if (keys === undefined) {
    keys = new Map();
    derived.set(secret, keys);
  }
  const known = keys.get(name);
  if (known !== undefined) return known;
  const dateKey = hmac(`AWS4${secret.reveal()}`, scope.date);
  const key = padded(hmac(hmac(hmac(dateKey, scope.region), scope.service), "aws4_request"));
  if (keys.size >= keptScopes) {
    const oldest = keys.keys().next().value;
    if (oldest !== undefined) keys.delete(oldest);
  }
  keys.set(name, key);
  return key;
}

function hmac(key: string | Buffer, text: string): Buffer {
  return createHmac("sha256", key).update(text).digest();
}

/** Of a key no longer than a block, as a SHA-256 is. */
function padded(key: Buffer): PaddedKey {
  const inner = Buffer.alloc(blockBytes + messageBytes, 0x36);
  const outer = Buffer.alloc(blockBytes + digestBytes, 0x5c);
  for (const [at, byte] of key.entries()) {
    inner[at] = byte ^ 0x36;
    outer[at] = byte ^ 0x5c;
  }
  return { inner, outer };
}

/** Two one-shot hashes: a third of what an Hmac object costs. */
function paddedHmac({ inner, outer }: PaddedKey, text: string): Buffer {
  // UTF-8 has at most three bytes for a unit of a string.
  const message =
    text.length * 3 <= messageBytes
      ? inner.subarray(0, blockBytes + inner.write(text, blockBytes))
      : Buffer.concat([inner.subarray(0, blockBytes), Buffer.from(text)]);
  hash("sha256", message, "buffer").copy(outer, blockBytes);
  return hash("sha256", outer, "buffer");
}

/** Raw signature over a canonical request. `time` is `YYYYMMDDTHHMMSSZ`. */
export function signature(secret: Secret, scope: CredentialScope, time: string, canonical: string): Buffer {
  const name = scopeText(scope);
  const toSign = `AWS4-HMAC-SHA256\n${time}\n${name}\n${hash("sha256", canonical)}`;
  return paddedHmac(signingKey(secret, scope, name), toSign);
}
