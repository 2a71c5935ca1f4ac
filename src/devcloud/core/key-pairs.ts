/** Key pairs. Private halves are made here, returned once and never kept. */
import { createHash, createPublicKey, generateKeyPairSync, type KeyObject } from "node:crypto";
import { newRecord, type Cloud, type Naming } from "./cloud.ts";
import { checkQuota } from "./quotas.ts";
import type { KeyPairRecord } from "./records.ts";
import { refuse } from "./refusal.ts";

/** One field of the SSH wire encoding: length, then bytes (RFC 4251, section 5). */
function sshField(bytes: Buffer): Buffer {
  const length = Buffer.alloc(4);
  length.writeUInt32BE(bytes.length);
  return Buffer.concat([length, bytes]);
}

/** RFC 4251 mpint: a leading zero where the first bit is set. */
function sshInteger(base64url: string): Buffer {
  const bytes = Buffer.from(base64url, "base64url");
  return sshField((bytes[0] ?? 0) >= 0x80 ? Buffer.concat([Buffer.of(0), bytes]) : bytes);
}

/** The blob of an OpenSSH public key (RFC 4253, section 6.6; RFC 8709). */
function sshBlob(key: KeyObject, type: "rsa" | "ed25519"): Buffer {
  const jwk = key.export({ format: "jwk" });
  return type === "rsa"
    ? Buffer.concat([sshField(Buffer.from("ssh-rsa")), sshInteger(jwk.e ?? ""), sshInteger(jwk.n ?? "")])
    : Buffer.concat([sshField(Buffer.from("ssh-ed25519")), sshField(Buffer.from(jwk.x ?? "", "base64url"))]);
}

const colons = (hex: string): string => hex.replaceAll(/(..)(?!$)/g, "$1:");

export interface GeneratedKey {
  readonly publicKey: string;
  /** PEM: PKCS #1 for RSA, PKCS #8 for Ed25519. Shown to the caller once. */
  readonly privateKey: string;
  /** As EC2 shows it: SHA-1 of the DER private key (RSA), SHA-256 of the public blob (Ed25519). */
  readonly fingerprint: string;
}

export function generateKey(type: "rsa" | "ed25519", comment: string): GeneratedKey {
  if (type === "ed25519") {
    const pair = generateKeyPairSync("ed25519");
    const blob = sshBlob(pair.publicKey, "ed25519");
    return {
      publicKey: `ssh-ed25519 ${blob.toString("base64")} ${comment}`,
      privateKey: pair.privateKey.export({ format: "pem", type: "pkcs8" }).toString(),
      fingerprint: createHash("sha256").update(blob).digest("base64"),
    };
  }
  const pair = generateKeyPairSync("rsa", { modulusLength: 2048 });
  const der = pair.privateKey.export({ format: "der", type: "pkcs8" });
  return {
    publicKey: `ssh-rsa ${sshBlob(pair.publicKey, "rsa").toString("base64")} ${comment}`,
    privateKey: pair.privateKey.export({ format: "pem", type: "pkcs1" }).toString(),
    fingerprint: colons(createHash("sha1").update(der).digest("hex")),
  };
}

export interface ParsedPublicKey {
  readonly type: KeyPairRecord["type"];
  /** MD5 of the blob, as OpenSSH and OpenStack show it. */
  readonly md5: string;
  /** MD5 of the DER public key, as EC2 shows imported RSA keys; SHA-256 of the blob for Ed25519. */
  readonly ec2Fingerprint: string;
}

/** Undefined unless it is an OpenSSH public key of a kind that clouds take. */
export function parsePublicKey(text: string): ParsedPublicKey | undefined {
  const [algorithm, base64] = text.trim().split(/\s+/, 2);
  if (algorithm === undefined || base64 === undefined || !/^[A-Za-z0-9+/]+=*$/.test(base64)) return undefined;
  const type = algorithm === "ssh-rsa" ? "rsa" : algorithm === "ssh-ed25519" ? "ed25519" : undefined;
  const blob = Buffer.from(base64, "base64");
  const name = sshField(Buffer.from(algorithm));
  if (!blob.subarray(0, name.length).equals(name)) return undefined;
  const md5 = colons(createHash("md5").update(blob).digest("hex"));
  const sha256 = createHash("sha256").update(blob).digest("base64");
  if (type === "ed25519") return { type, md5, ec2Fingerprint: sha256 };
  if (type === "rsa") {
    const der = rsaDer(blob.subarray(name.length));
    return der && { type, md5, ec2Fingerprint: colons(createHash("md5").update(der).digest("hex")) };
  }
  return algorithm.startsWith("ecdsa-sha2-") ? { type: "ecdsa", md5, ec2Fingerprint: sha256 } : undefined;
}

function rsaDer(fields: Buffer): Buffer | undefined {
  const values: Buffer[] = [];
  let offset = 0;
  while (offset + 4 <= fields.length && values.length < 2) {
    const length = fields.readUInt32BE(offset);
    if (length > 1024 || offset + 4 + length > fields.length) return undefined;
    values.push(fields.subarray(offset + 4, offset + 4 + length));
    offset += 4 + length;
  }
  const [e, n] = values;
  if (e === undefined || n === undefined) return undefined;
  try {
    const jwk = { kty: "RSA", e: e.toString("base64url"), n: n.toString("base64url") };
    return createPublicKey({ key: jwk, format: "jwk" }).export({ format: "der", type: "spki" });
  } catch {
    // Not a key: the caller refuses the text.
    return undefined;
  }
}

export interface KeyPairInput extends Naming {
  readonly name: string;
  readonly publicKey: string;
  readonly fingerprint: string;
  readonly type: KeyPairRecord["type"];
}

export function createKeyPair(cloud: Cloud, input: KeyPairInput): KeyPairRecord {
  const { keyPair } = cloud.data.tables;
  if (keyPair.countBy("name", input.name) > 0) {
    refuse({ code: "duplicate", kind: "keyPair", name: input.name });
  }
  checkQuota(cloud.quotas, "keyPairs", keyPair.size);
  return keyPair.put({
    ...newRecord(cloud, "keyPair", input),
    publicKey: input.publicKey,
    fingerprint: input.fingerprint,
    type: input.type,
  });
}
