/** Client side of the EC2 and AWS query protocols: an answer's XML becomes the operation's output, or the error it names. */
import { AwsProtocolError } from "./aws-protocol-error.ts";
import type { AwsShape, ListShape, MapShape, ScalarShape, StructShape } from "./aws-shape.ts";
import type { PlainObject, PlainValue } from "./query-decode.ts";
import type { AwsOperation, AwsService } from "./service-model.ts";
import { canonicalTimestamp } from "./timestamp-text.ts";
import { type XmlCursor, malformed, nextToken, openXml, readText, skipElement } from "./xml-reader.ts";

/**
 * Output of a successful answer: dates as ISO strings, blobs as base64 text, maps without a prototype. Elements that the
 * schema does not know are skipped (a newer server), empty ones that should hold a number, a time or a truth value are
 * left out. Throws AwsProtocolError `MalformedResponse` (502) for all that is not the operation's answer.
 */
export function decodeQueryResponse(service: AwsService, operation: AwsOperation, xml: string): PlainObject {
  const cursor = openXml(xml);
  if (cursor.name !== `${operation.name}Response`) {
    throw malformed(`its root is <${cursor.name.slice(0, 100)}>, not <${operation.name}Response>`);
  }
  if (service.protocol === "ec2Query") {
    return readStruct(cursor, operation.output);
  }
  const result = `${operation.name}Result`;
  let output: PlainObject | undefined;
  for (;;) {
    const token = nextToken(cursor);
    if (token === "close") return output ?? {};
    if (token === "text") continue;
    if (cursor.name !== result) skipElement(cursor);
    else if (output !== undefined) throw malformed(`it has two <${result}>`);
    else output = readStruct(cursor, operation.output);
  }
}

/** Reads the rest of the element that was opened last; undefined where it is empty and cannot be. */
function readValue(cursor: XmlCursor, shape: AwsShape): PlainValue | undefined {
  switch (shape.kind) {
    case "struct":
      return readStruct(cursor, shape);
    case "list":
      return readList(cursor, shape);
    case "map":
      return readMap(cursor, shape);
    case "string":
    case "number":
    case "boolean":
    case "timestamp":
    case "blob":
      return scalarOf(shape.kind, cursor.name, readText(cursor));
  }
}

function readStruct(cursor: XmlCursor, shape: StructShape): PlainObject {
  const made: PlainObject = {};
  for (;;) {
    const token = nextToken(cursor);
    if (token === "close") return made;
    if (token === "text") continue;
    const member = shape.byXmlName.get(cursor.name);
    if (member === undefined) {
      skipElement(cursor);
      continue;
    }
    const value = readValue(cursor, member.shape);
    if (value === undefined) continue;
    if (made[member.name] !== undefined) throw malformed(`it has <${member.xmlName}> twice`);
    made[member.name] = value;
  }
}

function readList(cursor: XmlCursor, shape: ListShape): PlainValue[] {
  const made: PlainValue[] = [];
  for (;;) {
    const token = nextToken(cursor);
    if (token === "close") return made;
    if (token === "text") continue;
    if (cursor.name !== shape.itemXmlName) {
      skipElement(cursor);
      continue;
    }
    const item = readValue(cursor, shape.item);
    if (item !== undefined) made.push(item);
  }
}

function readMap(cursor: XmlCursor, shape: MapShape): PlainObject {
  const made: PlainObject = Object.create(null);
  for (;;) {
    const token = nextToken(cursor);
    if (token === "close") return made;
    if (token === "text") continue;
    if (cursor.name !== "entry") {
      skipElement(cursor);
      continue;
    }
    const [key, value] = readEntry(cursor, shape);
    if (key === undefined || value === undefined) continue;
    if (Object.hasOwn(made, key)) throw malformed("a map has a key twice");
    made[key] = value;
  }
}

function readEntry(cursor: XmlCursor, shape: MapShape): [string | undefined, PlainValue | undefined] {
  let key: string | undefined;
  let value: PlainValue | undefined;
  for (;;) {
    const token = nextToken(cursor);
    if (token === "close") return [key, value];
    if (token === "text") continue;
    if (cursor.name === shape.keyName) key = readText(cursor);
    else if (cursor.name === shape.valueName) value = readValue(cursor, shape.value);
    else skipElement(cursor);
  }
}

const numberText = /^[+-]?(?:[0-9]{1,40}\.?[0-9]{0,40}|\.[0-9]{1,40})(?:[eE][+-]?[0-9]{1,3})?$/;

function scalarOf(kind: ScalarShape["kind"], name: string, raw: string): PlainValue | undefined {
  if (kind === "string") return raw;
  const text = raw.trim();
  if (text === "" && kind !== "blob") return undefined;
  switch (kind) {
    case "number": {
      const value = Number(text);
      if (!numberText.test(text) || !Number.isFinite(value)) throw malformed(`<${name}> is not a number`);
      return value;
    }
    case "boolean":
      if (text !== "true" && text !== "false") throw malformed(`<${name}> is not true or false`);
      return text === "true";
    case "timestamp": {
      const time = canonicalTimestamp(text);
      if (time === undefined) throw malformed(`<${name}> is not a time`);
      return time;
    }
    case "blob": {
      const packed = text.replace(/\s+/g, "");
      if (!/^[A-Za-z0-9+/]*={0,2}$/.test(packed)) throw malformed(`<${name}> is not base64`);
      return packed;
    }
  }
}

export interface QueryErrorAnswer {
  readonly code: string;
  /** Empty if the answer has none. */
  readonly message: string;
  readonly requestId: string | undefined;
}

/** Errors are short; a longer body is something else. */
const errorChars = 256 * 1024;

/**
 * The error that an answer names, in either protocol's form; undefined if it is no such document, whatever it is (a
 * proxy's HTML, JSON, half a document, bytes that are no text): the caller then has the HTTP status alone.
 */
export function decodeQueryError(body: string | Uint8Array): QueryErrorAnswer | undefined {
  if (body.length > errorChars) return undefined;
  const text = typeof body === "string" ? body : new TextDecoder().decode(body);
  const found = new Map<string, string>();
  try {
    const cursor = openXml(text);
    if (cursor.name !== "Response" && cursor.name !== "ErrorResponse" && cursor.name !== "Error")
      return undefined;
    collectError(cursor, found);
  } catch (error) {
    if (error instanceof AwsProtocolError) return undefined;
    throw error;
  }
  const code = found.get("Code")?.trim();
  if (code === undefined || code === "") return undefined;
  return { code, message: found.get("Message") ?? "", requestId: found.get("RequestId")?.trim() };
}

const containers: ReadonlySet<string> = new Set(["Errors", "Error"]);

/** The first Code, Message and request id under Response/Errors/Error, ErrorResponse/Error or Error. */
function collectError(cursor: XmlCursor, found: Map<string, string>): void {
  for (;;) {
    const token = nextToken(cursor);
    if (token === "close") return;
    if (token === "text") continue;
    const { name } = cursor;
    if (containers.has(name)) collectError(cursor, found);
    else if (name === "Code" || name === "Message" || name === "RequestId" || name === "RequestID") {
      const text = readText(cursor);
      const key = name === "RequestID" ? "RequestId" : name;
      if (!found.has(key)) found.set(key, text);
    } else skipElement(cursor);
  }
}
