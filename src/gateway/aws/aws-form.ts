/** What a request of the query protocol says, in the one form in which it is forwarded: a form body. */
import { isAscii } from "node:buffer";
import { AwsProtocolError } from "#wire/aws/aws-protocol-error.ts";
import { forEachParameter } from "#wire/aws/query-parameters.ts";
import type { GatewayRequest } from "#gateway/dialect.ts";

/**
 * The parameters of a GET from its query, of a POST from its body, or from its query where it has no body (boto3
 * presigns such); never from both, since the server behind us might take the other one. Throws AwsProtocolError for what is
 * neither.
 */
export function formOf(request: GatewayRequest): Buffer | string {
  const { method, target, body } = request;
  const mark = target.indexOf("?");
  const path = mark < 0 ? target : target.slice(0, mark);
  if (path !== "/") {
    throw new AwsProtocolError("InvalidAction", "The query protocol is served at the path / alone.", 404);
  }
  const query = mark < 0 ? "" : withoutSignature(target.slice(mark + 1));
  if (method === "GET") {
    if (body.length > 0) throw malformed("A GET request must have no body.");
    return query;
  }
  if (method !== "POST") throw new AwsProtocolError("InvalidAction", "Use POST or GET.", 405);
  if (body.length === 0) return query;
  if (query !== "") {
    throw malformed("A POST request must have its parameters in the body or in the query, not in both.");
  }
  if (!isAscii(body)) throw malformed("The body must be percent-encoded: it holds bytes that are not ASCII.");
  return body;
}

/** A presigned request's own parameters go: the request is signed anew. */
function withoutSignature(query: string): string {
  if (!query.includes("X-Amz-")) return query;
  return query
    .split("&")
    .filter((part) => !part.startsWith("X-Amz-"))
    .join("&");
}

const passed = [
  "user-agent",
  "accept",
  "x-amz-user-agent",
  "amz-sdk-invocation-id",
  "amz-sdk-request",
] as const;

/** Of the caller's headers, only what tells who calls goes on; nothing that could carry credentials or change a meaning. */
export function forwardedHeaders(request: GatewayRequest): string[] {
  const headers: string[] = [];
  for (const name of passed) {
    const value = request.headers[name];
    if (typeof value === "string") headers.push(name, value);
  }
  return headers;
}

const secretName = /password|secret|private|preshared|passphrase/i;
const protocolName = /^(?:X-Amz-.*|AWSAccessKeyId|Signature.*|Timestamp|Action|Version)$/;

/** Parameters as received, for the journal: of an operation without a known schema, only names can tell what is secret. */
export function rawParameters(text: string): Record<string, string> {
  const parameters: Record<string, string> = Object.create(null);
  forEachParameter(text, (name, value) => {
    if (!protocolName.test(name)) parameters[name] = secretName.test(name) ? "***" : value;
  });
  return parameters;
}

/** The API version that a request names, if any. */
export function versionOf(text: string): string | undefined {
  let version: string | undefined;
  forEachParameter(text, (name, value) => {
    if (name === "Version") version = value;
  });
  return version;
}

function malformed(message: string): AwsProtocolError {
  return new AwsProtocolError("MalformedQueryString", message);
}
