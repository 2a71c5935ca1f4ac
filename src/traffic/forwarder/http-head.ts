/** What a proxy does to a message's head: RFC 9110 section 7.6, RFC 9112 sections 3.2 and 6. Pure. */
import { hopByHop } from "#wire/http/hop-by-hop.ts";

/** Fields that a `Connection` field must not be able to remove on their way through. */
const END_TO_END = new Set([
  "content-length",
  "host",
  "authorization",
  "cookie",
  "x-forwarded-for",
  "x-forwarded-proto",
]);
const NEVER_TRUSTED = new Set(["expect", "x-forwarded-proto", "forwarded"]);

export type RequestFraming = { readonly body: "none" | "length" | "chunked" };

/** Name and value pairs of a flat raw header list. */
function* pairs(raw: readonly string[]): Iterable<readonly [name: string, value: string]> {
  for (let index = 0; index + 1 < raw.length; index += 2) yield [raw[index] ?? "", raw[index + 1] ?? ""];
}

export function valuesOf(raw: readonly string[], name: string): string[] {
  const found: string[] = [];
  for (const [key, value] of pairs(raw)) if (key.toLowerCase() === name) found.push(value);
  return found;
}

function connectionOptions(raw: readonly string[]): Set<string> {
  const options = new Set<string>();
  for (const value of valuesOf(raw, "connection")) {
    for (const option of value.split(",")) {
      const name = option.trim().toLowerCase();
      if (name !== "" && !END_TO_END.has(name)) options.add(name);
    }
  }
  return options;
}

/** The end-to-end fields, in order and as written. */
export function endToEnd(raw: readonly string[], leaveOut: ReadonlySet<string> = new Set()): string[] {
  const options = connectionOptions(raw);
  const kept: string[] = [];
  for (const [name, value] of pairs(raw)) {
    const key = name.toLowerCase();
    if (!hopByHop.has(key) && !options.has(key) && !leaveOut.has(key)) kept.push(name, value);
  }
  return kept;
}

/**
 * How the request's body is framed, or why the request is refused: two framings at once, or a transfer coding
 * that the next hop may read differently, is how requests are smuggled (RFC 9112, 6.1 and 11.2).
 */
export function requestFraming(
  raw: readonly string[],
  httpVersion: string,
): RequestFraming | { readonly refused: string; readonly status: 400 | 501 } {
  const lengths = valuesOf(raw, "content-length");
  const codings = valuesOf(raw, "transfer-encoding");
  if (valuesOf(raw, "host").length > 1) return { refused: "more than one Host field", status: 400 };
  if (lengths.length > 1) return { refused: "more than one Content-Length field", status: 400 };
  if (lengths.length === 1 && !/^\d{1,15}$/.test(lengths[0] ?? ""))
    return { refused: "a Content-Length that is no number", status: 400 };
  if (codings.length === 0) return { body: Number(lengths[0] ?? 0) === 0 ? "none" : "length" };
  if (lengths.length > 0) return { refused: "both Content-Length and Transfer-Encoding", status: 400 };
  if (httpVersion !== "1.1") return { refused: "Transfer-Encoding before HTTP/1.1", status: 400 };
  if (codings.length > 1 || codings[0]?.trim().toLowerCase() !== "chunked")
    return { refused: "a Transfer-Encoding other than chunked", status: 501 };
  return { body: "chunked" };
}

/** The request target in origin form, with the authority that names the host; null if it is neither. */
export function requestTarget(
  url: string,
  host: string | undefined,
): { readonly path: string; readonly host: string } | null {
  if (url === "*" || url.startsWith("/")) return { path: url, host: host ?? "" };
  // Absolute form: the authority in it wins over the Host field (RFC 9112, 3.2.2).
  const absolute = /^https?:\/\/([^/?#@\s]+)([/?][^#\s]*)?$/i.exec(url);
  if (absolute === null) return null;
  const rest = absolute[2] ?? "/";
  return { path: rest.startsWith("?") ? `/${rest}` : rest, host: absolute[1] ?? "" };
}

/** A Host field's name without its port, in lower case. */
export function hostName(host: string): string {
  const bracketed = /^(\[[^\]]*\])(?::\d*)?$/.exec(host);
  return (bracketed?.[1] ?? host.replace(/:\d*$/, "")).toLowerCase();
}

export interface ForwardedFacts {
  readonly host: string;
  readonly clientAddress: string;
  readonly trustForwardedFor: boolean;
}

/** The head's fields as the backend gets them, without framing and connection fields. */
export function forwardedFields(raw: readonly string[], facts: ForwardedFacts): string[] {
  const earlier = facts.trustForwardedFor ? valuesOf(raw, "x-forwarded-for") : [];
  const earlierProto = facts.trustForwardedFor ? valuesOf(raw, "x-forwarded-proto")[0] : undefined;
  const leaveOut = new Set([...NEVER_TRUSTED, "x-forwarded-for", "host"]);
  if (facts.trustForwardedFor) leaveOut.delete("forwarded");
  return [
    ...(facts.host === "" ? [] : ["Host", facts.host]),
    ...endToEnd(raw, leaveOut),
    "X-Forwarded-For",
    [...earlier, facts.clientAddress].join(", "),
    "X-Forwarded-Proto",
    earlierProto ?? "http",
  ];
}

const IDEMPOTENT = new Set(["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"]);

/** Whether sending it twice means the same as sending it once (RFC 9110, 9.2.2). */
export function isIdempotent(method: string): boolean {
  return IDEMPOTENT.has(method);
}
