/**
 * AWS Signature Version 4, both sides: requests that go to a cloud are signed, requests that come to us are verified.
 * Source: AWS IAM user guide, "AWS Signature Version 4 for API requests".
 */
import { hash, randomBytes, timingSafeEqual } from "node:crypto";
import { invariant } from "#kernel/invariant.ts";
import { Secret } from "#kernel/secret.ts";
import {
  type SigV4Request,
  bodyHash,
  canonicalHeader,
  canonicalPath,
  canonicalQuery,
  canonicalRequest,
  normalPath,
  splitTarget,
} from "./sigv4-canonical.ts";
import { type CredentialClaim, claimOf } from "./sigv4-claim.ts";
import { scopeText, signature } from "./sigv4-key.ts";

export type { SigV4Request } from "./sigv4-canonical.ts";

export interface SigV4Credentials {
  readonly accessKeyId: string;
  /** Keep one object per secret: derived signing keys are remembered by it. */
  readonly secretAccessKey: Secret;
  /** Of temporary credentials. */
  readonly sessionToken?: Secret | undefined;
}

export interface SigV4Scope {
  readonly region: string;
  /** The signing name, e.g. `ec2` or `elasticloadbalancing`. */
  readonly service: string;
}

/** Signed whenever present, besides all of x-amz-*: what no proxy on the way changes. */
const signedIfPresent: ReadonlySet<string> = new Set(["host", "content-type", "content-md5", "date"]);

/**
 * Headers to add to `request` (which must have its `host`): authorization, x-amz-date, x-amz-content-sha256 and, for
 * temporary credentials, x-amz-security-token. `now` is milliseconds since the Unix epoch.
 */
export function signSigV4(
  request: SigV4Request,
  credentials: SigV4Credentials,
  scope: SigV4Scope,
  now: number,
): Record<string, string> {
  const time = amzTime(now);
  const payloadHash = bodyHash(request.body);
  const added: Record<string, string> = { "x-amz-date": time, "x-amz-content-sha256": payloadHash };
  if (credentials.sessionToken !== undefined) {
    added["x-amz-security-token"] = credentials.sessionToken.reveal();
  }
  const signed: [string, string][] = [];
  for (const name in request.headers) {
    if (Object.hasOwn(added, name) || (!name.startsWith("x-amz-") && !signedIfPresent.has(name))) continue;
    const value = canonicalHeader(request.headers, name);
    if (value !== undefined) signed.push([name, value]);
  }
  for (const name in added) signed.push([name, added[name] ?? ""]);
  signed.sort(byName);
  invariant(
    signed.some(([name]) => name === "host"),
    "a request needs its host header before it is signed",
  );
  const target = splitTarget(request.path);
  invariant(target !== undefined, "the path of a request to sign must be percent-encoded UTF-8");
  const canonical = canonicalRequest({
    method: request.method,
    path: canonicalPath(target.path),
    query: canonicalQuery(target.query),
    headers: signed,
    payloadHash,
  });
  const full = { ...scope, date: time.slice(0, 8) };
  const proof = signature(credentials.secretAccessKey, full, time, canonical).toString("hex");
  const names = signed.map(([name]) => name).join(";");
  added["authorization"] =
    `AWS4-HMAC-SHA256 Credential=${credentials.accessKeyId}/${scopeText(full)}, SignedHeaders=${names}, Signature=${proof}`;
  return added;
}

function byName([a]: readonly [string, string], [b]: readonly [string, string]): number {
  return a < b ? -1 : 1;
}

let lastSecond = { second: Number.NaN, text: "" };

function amzTime(now: number): string {
  const second = Math.floor(now / 1000);
  if (second === lastSecond.second) return lastSecond.text;
  const iso = new Date(now).toISOString();
  const text = `${iso.slice(0, 4)}${iso.slice(5, 7)}${iso.slice(8, 13)}${iso.slice(14, 16)}${iso.slice(17, 19)}Z`;
  lastSecond = { second, text };
  return text;
}

export interface VerifyOptions {
  /** Milliseconds since the Unix epoch. */
  readonly now: number;
  /** How far the request's time may be from `now`, either way. Default 5 minutes. */
  readonly maxSkewMs?: number;
  /** Where given, the credential's scope must name them. */
  readonly region?: string;
  readonly service?: string;
  /** Default false: take `UNSIGNED-PAYLOAD` for a body hash. */
  readonly allowUnsignedPayload?: boolean;
}

export type SigV4FailureCode =
  | "MissingAuthenticationToken"
  | "IncompleteSignature"
  | "InvalidClientTokenId"
  | "AuthFailure"
  | "SignatureDoesNotMatch"
  | "RequestExpired";

export interface SigV4Failure {
  readonly ok: false;
  readonly code: SigV4FailureCode;
  /** HTTP status that goes with the code. */
  readonly status: number;
  /** For the caller: what is wrong and what to do. */
  readonly message: string;
  /** For the log alone: whether the key id is known is not the caller's to learn. */
  readonly reason: "malformed" | "expired" | "scope" | "body" | "unknown_key" | "signature" | "session_token";
}

export interface SigV4Success {
  readonly ok: true;
  readonly accessKeyId: string;
  readonly region: string;
  readonly service: string;
  readonly form: "header" | "query";
  /** Milliseconds since the Unix epoch. */
  readonly signedAt: number;
}

export type SigV4Verdict = SigV4Success | SigV4Failure;

export type SigV4Key = Omit<SigV4Credentials, "accessKeyId">;

/** Signs in the place of secrets that do not exist, so that an unknown key costs what a known one does. */
const decoy: SigV4Key = { secretAccessKey: new Secret(randomBytes(30).toString("base64")) };

/**
 * Checks the header form or the presigned query form. An unknown key and a wrong signature get the same answer after the
 * same work. Stricter than AWS in one point: a path with empty or dot segments is refused, since the signature does not
 * tell `/a/../b` from `/b`.
 */
export function verifySigV4(
  request: SigV4Request,
  lookupKey: (accessKeyId: string) => SigV4Key | undefined,
  options: VerifyOptions,
): SigV4Verdict {
  const target = splitTarget(request.path);
  if (
    target === undefined ||
    normalPath(target.path) !== target.path ||
    !/^[A-Z]{1,32}$/.test(request.method)
  ) {
    return failure("IncompleteSignature", "malformed", "The method or the path of the request is malformed.");
  }
  const claim = claimOf(request, target.query);
  if (!claim.ok) return failure(claim.code, "malformed", claim.message);
  const refused = checkTime(claim, options) ?? checkScope(claim, options);
  if (refused !== undefined) return refused;

  const headers = signedHeaders(request, claim);
  if (!Array.isArray(headers)) return headers;
  const payload = payloadHash(request, claim, options);
  if (typeof payload !== "string") return payload;
  const canonical = canonicalRequest({
    method: request.method,
    path: canonicalPath(target.path),
    query: canonicalQuery(target.query),
    headers,
    payloadHash: payload,
  });

  const known = lookupKey(claim.accessKeyId);
  const key = known ?? decoy;
  const expected = signature(key.secretAccessKey, claim.scope, claim.time, canonical);
  const signatureMatches = timingSafeEqual(expected, Buffer.from(claim.signature, "hex"));
  const token = claim.sessionToken ?? "";
  const wanted = key.sessionToken?.reveal() ?? "";
  // Which way it goes hangs on the request alone: it takes as long for a key that is known as for one that is not.
  const tokenMatches = token === "" ? wanted === "" : sameText(token, wanted);
  if (known === undefined) return notAccepted("unknown_key");
  if (!signatureMatches) return notAccepted("signature");
  if (!tokenMatches) return notAccepted("session_token");
  const { accessKeyId, form, signedAt } = claim;
  return { ok: true, accessKeyId, region: claim.scope.region, service: claim.scope.service, form, signedAt };
}

function checkTime(claim: CredentialClaim, options: VerifyOptions): SigV4Failure | undefined {
  const skew = options.maxSkewMs ?? 300_000;
  const age = options.now - claim.signedAt;
  const latest = claim.expiresMs ?? skew;
  if (age >= -skew && age <= latest) return undefined;
  return failure(
    "RequestExpired",
    "expired",
    `The request was signed at ${claim.time}, but it is ${amzTime(options.now)} here. Set the clock of the machine that signs, or sign again.`,
  );
}

function checkScope(claim: CredentialClaim, options: VerifyOptions): SigV4Failure | undefined {
  const { date, region, service } = claim.scope;
  const wrong = (what: string, wanted: string): SigV4Failure =>
    failure("SignatureDoesNotMatch", "scope", `The credential is scoped to the ${what}. Sign for ${wanted}.`);
  if (date !== claim.time.slice(0, 8)) return wrong(`day ${date}`, `the day of the request, ${claim.time}`);
  if (options.region !== undefined && region !== options.region) {
    return wrong(`region ${region}`, `region ${options.region}`);
  }
  if (options.service !== undefined && service !== options.service) {
    return wrong(`service ${service}`, `service ${options.service}`);
  }
  return undefined;
}

/** The headers that the claim says are signed, or why they do not suffice. */
function signedHeaders(request: SigV4Request, claim: CredentialClaim): [string, string][] | SigV4Failure {
  const found: [string, string][] = [];
  for (const name of claim.signedHeaders) {
    const value = canonicalHeader(request.headers, name);
    if (value === undefined) {
      return failure(
        "SignatureDoesNotMatch",
        "malformed",
        `The signed header ${name} is not in the request.`,
      );
    }
    found.push([name, value]);
  }
  for (const name of Object.keys(request.headers)) {
    const matters =
      name === "host" || name.startsWith("x-amz-") || (name === "date" && claim.timeFrom === "date");
    if (matters && request.headers[name] !== undefined && !claim.signedHeaders.includes(name)) {
      return failure("SignatureDoesNotMatch", "malformed", `The header ${name} is not signed. Sign it.`);
    }
  }
  return found;
}

function payloadHash(
  request: SigV4Request,
  claim: CredentialClaim,
  options: VerifyOptions,
): string | SigV4Failure {
  const actual = bodyHash(request.body);
  const declared = canonicalHeader(request.headers, "x-amz-content-sha256") ?? claim.declaredHash;
  if (declared === undefined || declared === actual) return actual;
  if (declared === "UNSIGNED-PAYLOAD" && options.allowUnsignedPayload === true) return declared;
  return failure(
    "SignatureDoesNotMatch",
    "body",
    "X-Amz-Content-SHA256 is not the SHA-256 of the body that arrived. Sign the body as it is sent.",
  );
}

function sameText(a: string, b: string): boolean {
  return timingSafeEqual(hash("sha256", a, "buffer"), hash("sha256", b, "buffer"));
}

function notAccepted(reason: SigV4Failure["reason"]): SigV4Failure {
  return failure(
    "AuthFailure",
    reason,
    "The credentials were not accepted: the access key is unknown, or the signature was not made with its secret over this request. Check the access key id, its secret (and session token), and that nothing between you and this endpoint changes requests.",
  );
}

const statuses: Record<SigV4FailureCode, number> = {
  MissingAuthenticationToken: 403,
  IncompleteSignature: 400,
  InvalidClientTokenId: 403,
  AuthFailure: 401,
  SignatureDoesNotMatch: 403,
  RequestExpired: 400,
};

function failure(code: SigV4FailureCode, reason: SigV4Failure["reason"], message: string): SigV4Failure {
  return { ok: false, code, status: statuses[code], message, reason };
}
