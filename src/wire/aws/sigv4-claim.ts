/** What a request says of its own signature, in its Authorization header or in its query; nothing is proven yet. */
import { type SigV4Request, canonicalHeader } from "./sigv4-canonical.ts";
import type { CredentialScope } from "./sigv4-key.ts";

export interface CredentialClaim {
  readonly ok: true;
  readonly form: "header" | "query";
  readonly accessKeyId: string;
  readonly scope: CredentialScope;
  /** Lower-case, sorted, without repetition. */
  readonly signedHeaders: readonly string[];
  /** 64 lower-case hexadecimal digits. */
  readonly signature: string;
  /** `YYYYMMDDTHHMMSSZ` */
  readonly time: string;
  readonly timeFrom: "x-amz-date" | "date" | "query";
  /** Milliseconds since the Unix epoch. */
  readonly signedAt: number;
  /** Lifetime of a presigned request, in milliseconds. */
  readonly expiresMs: number | undefined;
  readonly sessionToken: string | undefined;
  /** A body hash declared in the query of a presigned request. */
  readonly declaredHash: string | undefined;
}

export interface ClaimFailure {
  readonly ok: false;
  readonly code: "MissingAuthenticationToken" | "IncompleteSignature" | "InvalidClientTokenId";
  readonly message: string;
}

const limits = { authorizationChars: 8192, signedHeaders: 64, expiresSeconds: 604_800 } as const;

export function claimOf(
  request: SigV4Request,
  query: readonly (readonly [string, string])[],
): CredentialClaim | ClaimFailure {
  const presigned = query.some(([key]) => key === "X-Amz-Signature" || key === "X-Amz-Algorithm");
  const authorization = canonicalHeader(request.headers, "authorization");
  if (presigned && authorization !== undefined) {
    return incomplete("Sign either by the Authorization header or by query parameters, not by both.");
  }
  if (presigned) return queryClaim(query);
  if (authorization === undefined) {
    return {
      ok: false,
      code: "MissingAuthenticationToken",
      message: "The request is not signed. Sign it with AWS Signature Version 4.",
    };
  }
  return headerClaim(request, authorization);
}

/** All but the signature, as one client writes it in request after request for a day: what it says is remembered. */
const checkedHeads = new Map<string, Pick<CredentialClaim, "accessKeyId" | "scope" | "signedHeaders">>();
const signatureChars = 64;

function headerClaim(request: SigV4Request, authorization: string): CredentialClaim | ClaimFailure {
  const amzDate = canonicalHeader(request.headers, "x-amz-date");
  const sessionToken = canonicalHeader(request.headers, "x-amz-security-token");
  const split = authorization.length - signatureChars;
  const head = authorization.slice(0, Math.max(split, 0));
  const signature = authorization.slice(Math.max(split, 0));
  const known = checkedHeads.get(head);
  if (known !== undefined && amzDate !== undefined && signatureText.test(signature)) {
    const signedAt = parseAmzTime(amzDate);
    if (signedAt !== undefined) {
      return {
        ok: true,
        form: "header",
        accessKeyId: known.accessKeyId,
        scope: known.scope,
        signedHeaders: known.signedHeaders,
        signature,
        time: amzDate,
        timeFrom: "x-amz-date",
        signedAt,
        expiresMs: undefined,
        sessionToken,
        declaredHash: undefined,
      };
    }
  }
  const claim = parsedClaim(request, authorization, amzDate, sessionToken);
  if (claim.ok && head.endsWith("Signature=")) {
    // They come from callers who have proven nothing yet: a flood of new ones empties the memory and no more.
    if (checkedHeads.size >= keptLists) checkedHeads.clear();
    const { accessKeyId, scope, signedHeaders } = claim;
    checkedHeads.set(head, { accessKeyId, scope, signedHeaders });
  }
  return claim;
}

function parsedClaim(
  request: SigV4Request,
  authorization: string,
  amzDate: string | undefined,
  sessionToken: string | undefined,
): CredentialClaim | ClaimFailure {
  if (authorization.length > limits.authorizationChars || !authorization.startsWith("AWS4-HMAC-SHA256 ")) {
    return incomplete(
      "The Authorization header must begin with AWS4-HMAC-SHA256: use AWS Signature Version 4.",
    );
  }
  const parts = new Map<string, string>();
  for (const part of authorization.slice("AWS4-HMAC-SHA256 ".length).split(",")) {
    const text = part.trim();
    const equals = text.indexOf("=");
    const name = text.slice(0, Math.max(equals, 0));
    if (parts.has(name) || (name !== "Credential" && name !== "SignedHeaders" && name !== "Signature")) {
      return incomplete(
        "The Authorization header must hold Credential, SignedHeaders and Signature, each once.",
      );
    }
    parts.set(name, text.slice(equals + 1));
  }
  const time = amzDate ?? amzTimeOfDate(canonicalHeader(request.headers, "date"));
  return completed({
    form: "header",
    credential: parts.get("Credential"),
    signedHeaders: parts.get("SignedHeaders"),
    signature: parts.get("Signature"),
    time,
    timeFrom: amzDate === undefined ? "date" : "x-amz-date",
    expiresMs: undefined,
    sessionToken,
    declaredHash: undefined,
  });
}

function queryClaim(query: readonly (readonly [string, string])[]): CredentialClaim | ClaimFailure {
  const own = new Map<string, string>();
  for (const [key, value] of query) {
    if (!key.startsWith("X-Amz-")) continue;
    if (own.has(key)) return incomplete(`The query parameter ${key.slice(0, 64)} is given more than once.`);
    own.set(key, value);
  }
  if (own.get("X-Amz-Algorithm") !== "AWS4-HMAC-SHA256")
    return incomplete("X-Amz-Algorithm must be AWS4-HMAC-SHA256.");
  const expires = own.get("X-Amz-Expires") ?? "";
  const seconds = Number(expires);
  if (!/^[0-9]{1,6}$/.test(expires) || seconds < 1 || seconds > limits.expiresSeconds) {
    return incomplete(`X-Amz-Expires must be 1 to ${limits.expiresSeconds} seconds.`);
  }
  return completed({
    form: "query",
    credential: own.get("X-Amz-Credential"),
    signedHeaders: own.get("X-Amz-SignedHeaders"),
    signature: own.get("X-Amz-Signature"),
    time: own.get("X-Amz-Date"),
    timeFrom: "query",
    expiresMs: seconds * 1000,
    sessionToken: own.get("X-Amz-Security-Token"),
    declaredHash: own.get("X-Amz-Content-Sha256"),
  });
}

type RawClaim = Pick<CredentialClaim, "form" | "timeFrom" | "expiresMs" | "sessionToken" | "declaredHash"> & {
  readonly [K in "credential" | "signedHeaders" | "signature" | "time"]: string | undefined;
};

const credentialText = /^([\w+=,.@-]{1,128})\/([0-9]{8})\/([\w-]{1,64})\/([\w-]{1,64})\/aws4_request$/;
const signatureText = /^[0-9a-f]{64}$/;
const headerName = /^[a-z0-9!#$%&'*+.^_`|~-]{1,128}$/;

function completed(raw: RawClaim): CredentialClaim | ClaimFailure {
  const { time, signature } = raw;
  const signedAt = time === undefined ? undefined : parseAmzTime(time);
  if (time === undefined || signedAt === undefined) {
    return incomplete("The request needs its time in X-Amz-Date, as YYYYMMDDTHHMMSSZ.");
  }
  if (signature === undefined || !signatureText.test(signature)) {
    return incomplete("Signature must be 64 lower-case hexadecimal digits.");
  }
  const names = signedNames(raw.signedHeaders ?? "");
  if (names === undefined) {
    return incomplete("SignedHeaders must be lower-case header names, sorted, host among them.");
  }
  const credential = credentialText.exec(raw.credential ?? "");
  if (credential === null) {
    return {
      ok: false,
      code: "InvalidClientTokenId",
      message: "Credential must be ACCESS_KEY_ID/YYYYMMDD/REGION/SERVICE/aws4_request.",
    };
  }
  const [, accessKeyId = "", date = "", region = "", service = ""] = credential;
  return {
    ok: true,
    form: raw.form,
    accessKeyId,
    scope: { date, region, service },
    signedHeaders: names,
    signature,
    time,
    timeFrom: raw.timeFrom,
    signedAt,
    expiresMs: raw.expiresMs,
    sessionToken: raw.sessionToken,
    declaredHash: raw.declaredHash,
  };
}

/** Clients sign the same headers in request after request: the last few lists are remembered. */
const checkedNames = new Map<string, readonly string[]>();
const keptLists = 64;

function signedNames(text: string): readonly string[] | undefined {
  const known = checkedNames.get(text);
  if (known !== undefined) return known;
  const names = text.split(";", limits.signedHeaders + 1);
  const ordered = names.every(
    (name, index) => headerName.test(name) && (index === 0 || (names[index - 1] ?? "") < name),
  );
  if (!ordered || names.length > limits.signedHeaders || !names.includes("host")) return undefined;
  // Lists come from callers who have proven nothing yet: a flood of new ones empties the memory and no more.
  if (checkedNames.size >= keptLists) checkedNames.clear();
  checkedNames.set(text, names);
  return names;
}

const amzTimeText = /^([0-9]{4})([0-9]{2})([0-9]{2})T([0-9]{2})([0-9]{2})([0-9]{2})Z$/;

let lastTime: { readonly text: string; readonly millis: number } | undefined;

/** Milliseconds since the Unix epoch of `YYYYMMDDTHHMMSSZ`; undefined if it is no such time. */
function parseAmzTime(text: string): number | undefined {
  // Requests of one second name one time.
  if (lastTime?.text === text) return lastTime.millis;
  if (!amzTimeText.test(text)) return undefined;
  const iso = text.replace(amzTimeText, "$1-$2-$3T$4:$5:$6Z");
  const millis = Date.parse(iso);
  if (Number.isNaN(millis)) return undefined;
  lastTime = { text, millis };
  return millis;
}

/** The standard Date header, in the form that is signed. */
function amzTimeOfDate(date: string | undefined): string | undefined {
  if (date === undefined || amzTimeText.test(date)) return date;
  const millis = Date.parse(date);
  if (Number.isNaN(millis)) return undefined;
  return new Date(millis).toISOString().replace(/[-:]|\.[0-9]{3}/g, "");
}

function incomplete(message: string): ClaimFailure {
  return { ok: false, code: "IncompleteSignature", message };
}
