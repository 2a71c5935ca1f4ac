/** Client side of the EC2 and AWS query protocols: an operation and its input become a form body. */
import { AwsProtocolError } from "./aws-protocol-error.ts";
import type { AwsShape, StructShape } from "./aws-shape.ts";
import type { AwsOperation, AwsService } from "./service-model.ts";
import { canonicalTimestamp } from "./timestamp-text.ts";

/**
 * Form body of the request. `input` is a plain object as `decodeQueryRequest` makes it; Date and Uint8Array are taken
 * too; null and undefined are left out. Throws AwsProtocolError for a member that the operation lacks (a caller's
 * mistake that the cloud would otherwise ignore) or of the wrong type.
 */
export function encodeQueryRequest(service: AwsService, operation: AwsOperation, input: object): string {
  const out = [`Action=${operation.name}&Version=${service.apiVersion}`];
  writeStruct(out, operation.input, input, "", service.protocol === "awsQuery");
  return out.join("&");
}

function write(out: string[], shape: AwsShape, value: unknown, path: string, emptyLists: boolean): void {
  if (value === undefined || value === null) return;
  switch (shape.kind) {
    case "struct":
      if (typeof value !== "object") throw wrongType(path, shape.kind);
      writeStruct(out, shape, value, path, emptyLists);
      return;
    case "list": {
      if (!Array.isArray(value)) throw wrongType(path, shape.kind);
      if (value.length === 0 && emptyLists) out.push(`${encode(path)}=`);
      const prefix = shape.itemQueryName === undefined ? path : `${path}.${shape.itemQueryName}`;
      let index = 0;
      for (const item of value) {
        if (item === undefined || item === null) continue;
        index += 1;
        write(out, shape.item, item, `${prefix}.${index}`, emptyLists);
      }
      return;
    }
    case "map": {
      if (typeof value !== "object") throw wrongType(path, shape.kind);
      let index = 0;
      for (const [key, item] of Object.entries(value)) {
        if (item === undefined || item === null) continue;
        index += 1;
        out.push(`${encode(`${path}.entry.${index}.${shape.keyName}`)}=${encode(key)}`);
        write(out, shape.value, item, `${path}.entry.${index}.${shape.valueName}`, emptyLists);
      }
      return;
    }
    case "string":
    case "number":
    case "boolean":
    case "timestamp":
    case "blob":
      out.push(`${encode(path)}=${encode(scalarText(shape.kind, value, path))}`);
  }
}

function writeStruct(
  out: string[],
  shape: StructShape,
  value: object,
  path: string,
  emptyLists: boolean,
): void {
  const known = new Map(shape.members.map((member) => [member.name, member]));
  for (const [name, item] of Object.entries(value)) {
    const member = known.get(name);
    if (member === undefined) {
      if (item === undefined || item === null) continue;
      throw new AwsProtocolError("UnknownParameter", `${shape.name} has no member ${name}`);
    }
    write(
      out,
      member.shape,
      item,
      path === "" ? member.queryName : `${path}.${member.queryName}`,
      emptyLists,
    );
  }
}

/** Text of a scalar as the query protocols write it. */
export function scalarText(kind: string, value: unknown, path: string): string {
  if (kind === "timestamp") {
    const text = value instanceof Date ? dateText(value) : String(value);
    const canonical = canonicalTimestamp(text);
    if (canonical === undefined) throw wrongType(path, kind);
    return canonical;
  }
  if (kind === "blob") {
    if (value instanceof Uint8Array)
      return Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString("base64");
    if (typeof value === "string") return value;
    throw wrongType(path, kind);
  }
  if (kind === "string" && typeof value === "string") return value;
  if (kind === "number" && typeof value === "number" && Number.isFinite(value)) return String(value);
  if (kind === "boolean" && typeof value === "boolean") return value ? "true" : "false";
  throw wrongType(path, kind);
}

function dateText(date: Date): string {
  return Number.isNaN(date.getTime()) ? "" : date.toISOString();
}

function wrongType(path: string, kind: string): AwsProtocolError {
  return new AwsProtocolError("InvalidParameterValue", `${path || "the input"} must be a ${kind}`);
}

/** RFC 3986: everything but unreserved characters; a lone surrogate, which has no UTF-8, becomes U+FFFD. */
function encode(text: string): string {
  if (/^[A-Za-z0-9_.~-]*$/.test(text)) return text;
  return encodeURIComponent(text.toWellFormed()).replace(
    /[!'()*]/g,
    (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}
