/** The `key=value&...` layer below both query protocols: bounded, strict about encoding, no meaning attached. */
import { AwsProtocolError } from "./aws-protocol-error.ts";

/** Bounds on one request. AWS refuses far smaller ones; these keep a hostile one cheap. */
export const queryLimits = {
  /** Characters of a body. */
  bodyChars: 4 * 1024 * 1024,
  parameters: 20_000,
  /** Segments of one parameter's path: the deepest input of the four services has 11. */
  pathSegments: 32,
  /** Highest list index. */
  listIndex: 100_000,
} as const;

/** Calls `each` with every decoded parameter in order. Throws `MalformedQueryString` and `RequestEntityTooLarge`. */
export function forEachParameter(
  body: string | URLSearchParams,
  each: (key: string, value: string) => void,
): void {
  let count = 0;
  const counted = (): void => {
    count += 1;
    if (count > queryLimits.parameters) {
      throw new AwsProtocolError(
        "MalformedQueryString",
        `The request has more than ${queryLimits.parameters} parameters.`,
      );
    }
  };
  if (typeof body !== "string") {
    for (const [key, value] of body) {
      counted();
      each(key, value);
    }
    return;
  }
  if (body.length > queryLimits.bodyChars) {
    throw new AwsProtocolError(
      "RequestEntityTooLarge",
      `The request body is longer than ${queryLimits.bodyChars} characters.`,
      413,
    );
  }
  let start = 0;
  while (start < body.length) {
    let end = body.indexOf("&", start);
    if (end < 0) end = body.length;
    if (end > start) {
      counted();
      const equals = body.indexOf("=", start);
      if (equals < 0 || equals > end) each(decodeComponent(body.slice(start, end)), "");
      else each(decodeComponent(body.slice(start, equals)), decodeComponent(body.slice(equals + 1, end)));
    }
    start = end + 1;
  }
}

/** application/x-www-form-urlencoded: `+` is a space, `%XX` are UTF-8 bytes. */
function decodeComponent(text: string): string {
  if (text.includes("+")) text = text.replaceAll("+", " ");
  if (!text.includes("%")) return text;
  try {
    return decodeURIComponent(text);
  } catch {
    throw new AwsProtocolError(
      "MalformedQueryString",
      "The query string contains a percent sequence that is not UTF-8. Encode every parameter as UTF-8, then percent-encode it.",
    );
  }
}

/**
 * The request's `Action` without decoding the rest: for the read path. Undefined if there is none, or not exactly one:
 * a second `Action`, plain or percent-encoded, could mean another operation to the server behind us. For the same reason
 * a caller must not pass on a request that has parameters in its query string as well as in its body.
 */
export function peekAction(body: string): string | undefined {
  if (body.length > queryLimits.bodyChars) return undefined;
  let found: string | undefined;
  let start = 0;
  while (start < body.length) {
    let end = body.indexOf("&", start);
    if (end < 0) end = body.length;
    const equals = body.indexOf("=", start);
    const keyEnd = equals < 0 || equals > end ? end : equals;
    const encoded = needsDecoding(body, start, keyEnd);
    if (encoded || (keyEnd - start === 6 && body.startsWith("Action", start))) {
      try {
        const key = encoded ? decodeComponent(body.slice(start, keyEnd)) : "Action";
        if (key === "Action") {
          if (found !== undefined) return undefined;
          found = decodeComponent(body.slice(Math.min(keyEnd + 1, end), end));
        }
      } catch (error) {
        if (error instanceof AwsProtocolError) return undefined;
        throw error;
      }
    }
    start = end + 1;
  }
  return found === "" ? undefined : found;
}

function needsDecoding(body: string, start: number, end: number): boolean {
  for (let at = start; at < end; at += 1) {
    const code = body.charCodeAt(at);
    if (code === 0x25 || code === 0x2b) return true;
  }
  return false;
}
