/**
 * JSON bodies of the OpenStack APIs, from a peer that is not trusted: a size limit, no key that could reach a prototype,
 * and a schema for everything that is read. What a schema does not name is dropped.
 */
import type { z } from "zod";

export type Decoded<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly reason: string };

/** Largest body that is decoded, in UTF-16 units: a page of 1,000 servers is about 4 MB. */
export const maxBodyLength = 32 * 1024 * 1024;

const pollutingKeys = new Set(["__proto__", "constructor", "prototype"]);

/** Drops keys that could reach a prototype; the search first, because a reviver makes parsing several times slower. */
function parse(text: string): unknown {
  const suspicious = text.includes("__proto__") || text.includes("constructor") || text.includes("\\u");
  if (!suspicious) return JSON.parse(text);
  return JSON.parse(text, (key, value: unknown) => (pollutingKeys.has(key) ? undefined : value));
}

/** Parses text of at most `maxBodyLength` characters as JSON. */
export function parseJson(text: string): Decoded<unknown> {
  if (text.length > maxBodyLength) {
    return { ok: false, reason: `the body is larger than ${maxBodyLength} characters` };
  }
  try {
    return { ok: true, value: parse(text) };
  } catch {
    return { ok: false, reason: "the body is not JSON" };
  }
}

/** Checks a parsed body against a schema; the reason names the first field that does not fit. */
export function decodeValue<T>(schema: z.ZodType<T>, value: unknown): Decoded<T> {
  const result = schema.safeParse(value);
  if (result.success) return { ok: true, value: result.data };
  const issue = result.error.issues[0];
  const where = issue === undefined || issue.path.length === 0 ? "the body" : issue.path.join(".");
  return { ok: false, reason: `${where}: ${issue?.message ?? "does not fit"}` };
}

export function decodeBody<T>(schema: z.ZodType<T>, text: string): Decoded<T> {
  const parsed = parseJson(text);
  return parsed.ok ? decodeValue(schema, parsed.value) : parsed;
}
