/**
 * The canonical form of a request that AWS Signature Version 4 signs.
 * Source: AWS IAM user guide, "Create a signed AWS API request".
 */
import { hash } from "node:crypto";

/** A request as it stands on the wire. */
export interface SigV4Request {
  readonly method: string;
  /** Raw request target, with its query: `/path?a=b`. */
  readonly path: string;
  /**
   * Lower-case names. A header that came on several lines is an array (`headersDistinct` in node:http): joined with
   * `, ` it would have another signature.
   */
  readonly headers: Readonly<Record<string, string | readonly string[] | undefined>>;
  readonly body: Uint8Array | string;
}

export const emptyBodyHash = hash("sha256", "");

export function bodyHash(body: Uint8Array | string): string {
  return body.length === 0 ? emptyBodyHash : hash("sha256", body);
}

export interface SplitTarget {
  readonly path: string;
  /** Decoded parameters in the order received. */
  readonly query: readonly (readonly [string, string])[];
}

/** Undefined if the query holds percent sequences that are not UTF-8. */
export function splitTarget(target: string): SplitTarget | undefined {
  const mark = target.indexOf("?");
  if (mark < 0) return { path: target, query: [] };
  const query: (readonly [string, string])[] = [];
  try {
    for (const part of target.slice(mark + 1).split("&")) {
      if (part === "") continue;
      const equals = part.indexOf("=");
      const key = equals < 0 ? part : part.slice(0, equals);
      query.push([decode(key), equals < 0 ? "" : decode(part.slice(equals + 1))]);
    }
  } catch (error) {
    if (error instanceof URIError) return undefined;
    throw error;
  }
  return { path: target.slice(0, mark), query };
}

function decode(text: string): string {
  const spaced = text.includes("+") ? text.replaceAll("+", " ") : text;
  return spaced.includes("%") ? decodeURIComponent(spaced) : spaced;
}

/** The path without empty and dot segments, not encoded. */
export function normalPath(path: string): string {
  if (path === "/" || path === "") return "/";
  const kept: string[] = [];
  for (const segment of path.split("/")) {
    if (segment === "" || segment === ".") continue;
    if (segment === "..") kept.pop();
    else kept.push(segment);
  }
  if (kept.length === 0) return "/";
  return `/${kept.join("/")}${path.endsWith("/") ? "/" : ""}`;
}

/** The normal path, encoded once more, as every service but S3 wants it. */
export function canonicalPath(path: string): string {
  const normal = normalPath(path);
  return normal === "/" ? normal : normal.split("/").map(encodeRfc3986).join("/");
}

export function canonicalQuery(query: readonly (readonly [string, string])[]): string {
  if (query.length === 0) return "";
  return query
    .filter(([key]) => key !== "X-Amz-Signature")
    .map(([key, value]) => [encodeRfc3986(key), encodeRfc3986(value)] as const)
    .sort(([keyA, valueA], [keyB, valueB]) => compare(keyA, keyB) || compare(valueA, valueB))
    .map(([key, value]) => `${key}=${value}`)
    .join("&");
}

function compare(a: string, b: string): number {
  if (a === b) return 0;
  return a < b ? -1 : 1;
}

const plain = /^[A-Za-z0-9_.~-]*$/;

/** Everything but RFC 3986's unreserved characters as upper-case `%XX`. */
function encodeRfc3986(text: string): string {
  if (plain.test(text)) return text;
  return encodeURIComponent(text.toWellFormed()).replace(
    /[!'()*]/g,
    (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}

/** One header's signed value: lines joined, runs of blanks folded; undefined if the request has no such header. */
export function canonicalHeader(headers: SigV4Request["headers"], name: string): string | undefined {
  const value = Object.hasOwn(headers, name) ? headers[name] : undefined;
  if (typeof value === "string") return fold(value);
  return Array.isArray(value) && value.length > 0 ? value.map(fold).join(",") : undefined;
}

const needsFolding = /^\s|\s$|\s\s|[\t\r\n\v\f]/;

function fold(value: string): string {
  return needsFolding.test(value) ? value.trim().replace(/\s+/g, " ") : value;
}

export interface CanonicalParts {
  readonly method: string;
  /** Already canonical. */
  readonly path: string;
  readonly query: string;
  readonly headers: readonly (readonly [name: string, value: string])[];
  readonly payloadHash: string;
}

export function canonicalRequest(parts: CanonicalParts): string {
  let lines = "";
  let names = "";
  for (const [name, value] of parts.headers) {
    lines += `${name}:${value}\n`;
    names += names === "" ? name : `;${name}`;
  }
  return `${parts.method}\n${parts.path}\n${parts.query}\n${lines}\n${names}\n${parts.payloadHash}`;
}
