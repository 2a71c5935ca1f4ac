/**
 * Error bodies of the OpenStack services, in both directions.
 * - Nova, Cinder: `{"itemNotFound": {"code": 404, "message": "..."}}`
 * - Neutron: `{"NeutronError": {"type": "NetworkNotFound", "message": "...", "detail": ""}}`
 * - Keystone, and the token middleware before Nova, Neutron and Cinder: `{"error": {"code", "title", "message"}}`
 * - Glance, and routes that no service has, by WebOb: `{"message": "...<br />", "code": "404 Not Found", "title": "Not Found"}`
 *   to a client that accepts JSON, else HTML or plain text
 * Recorded from real services in `fixtures/errors.json`.
 */
import type { OpenstackService } from "./keystone.ts";
import { parseJson } from "./openstack-json.ts";

export interface OpenstackError {
  readonly status: number;
  /** `itemNotFound`, `NetworkNotFound`, `Unauthorized`, or `HTTP 404` where the body names none. */
  readonly code: string;
  readonly message: string;
}

const faultNames: Readonly<Record<number, string>> = {
  400: "badRequest",
  401: "unauthorized",
  403: "forbidden",
  404: "itemNotFound",
  405: "badMethod",
  409: "conflictingRequest",
  413: "overLimit",
  415: "badMediaType",
  429: "overLimit",
  500: "computeFault",
  501: "notImplemented",
  503: "serviceUnavailable",
};

const titles: Readonly<Record<number, string>> = {
  400: "Bad Request",
  401: "Unauthorized",
  403: "Forbidden",
  404: "Not Found",
  405: "Method Not Allowed",
  409: "Conflict",
  413: "Request Entity Too Large",
  429: "Too Many Requests",
  500: "Internal Server Error",
  501: "Not Implemented",
  503: "Service Unavailable",
};

const maxMessage = 2_000;
const maxCode = 100;

function bounded(text: string): string {
  const flat = text.replace(/\s+/g, " ").trim();
  return flat.length > maxMessage ? `${flat.slice(0, maxMessage)}...` : flat;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function text(value: unknown): string | undefined {
  return typeof value === "string" && value !== "" ? value : undefined;
}

const entities: Readonly<Record<string, string>> = { amp: "&", lt: "<", gt: ">", quot: '"', "#x27": "'" };

function withoutMarkup(markup: string): string {
  const plain = markup
    .slice(0, 8 * maxMessage)
    .replace(/<title>[^<]*<\/title>|<h1>[^<]*<\/h1>/g, " ")
    .replace(/<[^<>]*>/g, " ")
    .replace(/&(amp|lt|gt|quot|#x27);/g, (_, name: string) => entities[name] ?? " ");
  return bounded(plain);
}

/** WebOb's HTML and plain text: a title line, then the explanation. */
function fromMarkup(status: number, body: string): OpenstackError {
  const message = withoutMarkup(body.replace(/^\d{3} [A-Za-z -]{2,40}\s*\n/, ""));
  return { status, code: `HTTP ${status}`, message: message || (titles[status] ?? `HTTP ${status}`) };
}

function fromJson(status: number, body: unknown): OpenstackError | undefined {
  if (!isObject(body)) return undefined;
  const neutron = body["NeutronError"];
  if (isObject(neutron)) {
    const message = text(neutron["message"]) ?? "";
    return {
      status,
      code: (text(neutron["type"]) ?? "NeutronError").slice(0, maxCode),
      message: bounded(message),
    };
  }
  // Very old Neutron: {"NeutronError": "text"}.
  if (typeof neutron === "string") return { status, code: "NeutronError", message: bounded(neutron) };
  for (const [name, fault] of Object.entries(body)) {
    if (!isObject(fault)) continue;
    const message = text(fault["message"]);
    if (message === undefined) continue;
    const code = name === "error" ? (text(fault["title"]) ?? name) : name || `HTTP ${status}`;
    return { status, code: code.slice(0, maxCode), message: bounded(message) };
  }
  const flat = text(body["message"]);
  if (flat !== undefined) {
    return {
      status,
      code: (text(body["title"]) ?? `HTTP ${status}`).slice(0, maxCode),
      message: withoutMarkup(flat),
    };
  }
  // Version negotiation answers {"errors": [{"title", "detail"}]}.
  const errors = body["errors"];
  const first: unknown = Array.isArray(errors) ? errors[0] : undefined;
  if (isObject(first)) {
    const message = text(first["detail"]) ?? text(first["title"]) ?? "";
    return {
      status,
      code: (text(first["code"]) ?? `HTTP ${status}`).slice(0, maxCode),
      message: bounded(message),
    };
  }
  return undefined;
}

/** Reads any error answer; never fails, whatever the body is. */
export function decodeOpenstackError(status: number, body: string): OpenstackError {
  const parsed = parseJson(body);
  const decoded = parsed.ok ? fromJson(status, parsed.value) : undefined;
  return decoded ?? fromMarkup(status, body);
}

export interface EncodedError {
  readonly contentType: string;
  readonly body: string;
}

function escapeMarkup(raw: string): string {
  return raw.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

/**
 * Writes an error as the service itself would. `code` counts for Neutron (its type) only; the others
 * derive it from the status. `retryAfterSeconds` goes into Nova's and Cinder's `overLimit`, besides the header; `accept` is
 * the client's: Glance answers HTML to those that do not ask for JSON.
 */
export function encodeOpenstackError(
  service: OpenstackService,
  error: OpenstackError,
  retryAfterSeconds?: number,
  accept = "",
): EncodedError {
  const { status, message } = error;
  const title = titles[status] ?? "Error";
  const json = (body: unknown): EncodedError => ({
    contentType: "application/json",
    body: JSON.stringify(body),
  });
  if (service === "image") {
    const heading = `${status} ${title}`;
    const markup = `${escapeMarkup(message)}<br /><br />\n\n\n`;
    if (accept.includes("application/json")) return json({ message: markup, code: heading, title });
    return {
      contentType: "text/html; charset=UTF-8",
      body: `<html>\n <head>\n  <title>${heading}</title>\n </head>\n <body>\n  <h1>${heading}</h1>\n  ${markup}\n </body>\n</html>`,
    };
  }
  if (service === "identity" || status === 401) return json({ error: { code: status, message, title } });
  if (service === "network") {
    return json({ NeutronError: { type: error.code, message, detail: "" } });
  }
  const retryAfter = retryAfterSeconds === undefined ? {} : { retryAfter: String(retryAfterSeconds) };
  return json({ [faultNames[status] ?? "computeFault"]: { code: status, message, ...retryAfter } });
}
