/** Server side of the EC2 and AWS query protocols: an operation's output, or an error, becomes XML. */
import { AwsProtocolError } from "./aws-protocol-error.ts";
import type { AwsShape, StructShape } from "./aws-shape.ts";
import { scalarText } from "./query-encode.ts";
import type { AwsOperation, AwsService } from "./service-model.ts";

const declaration = '<?xml version="1.0" encoding="UTF-8"?>\n';

/** The whole response document. `output` is a plain object; Date and Uint8Array are taken too; null is left out. */
export function encodeQueryResponse(
  service: AwsService,
  operation: AwsOperation,
  output: object,
  requestId: string,
): string {
  const { name } = operation;
  const members = structXml(operation.output, output);
  const id = escapeXml(requestId);
  if (service.protocol === "ec2Query") {
    return `${declaration}<${name}Response xmlns="${service.xmlNamespace}"><requestId>${id}</requestId>${members}</${name}Response>`;
  }
  return `${declaration}<${name}Response xmlns="${service.xmlNamespace}"><${name}Result>${members}</${name}Result><ResponseMetadata><RequestId>${id}</RequestId></ResponseMetadata></${name}Response>`;
}

export interface AwsErrorAnswer {
  readonly code: string;
  readonly message: string;
  readonly requestId: string;
  /** HTTP status the error goes out with: below 500 the fault is the sender's. */
  readonly status: number;
}

/** The protocol's own error document. */
export function encodeQueryError(service: AwsService, error: AwsErrorAnswer): string {
  const code = escapeXml(error.code);
  const message = escapeXml(error.message);
  const id = escapeXml(error.requestId);
  if (service.protocol === "ec2Query") {
    return `${declaration}<Response><Errors><Error><Code>${code}</Code><Message>${message}</Message></Error></Errors><RequestID>${id}</RequestID></Response>`;
  }
  const type = error.status >= 500 ? "Receiver" : "Sender";
  return `${declaration}<ErrorResponse xmlns="${service.xmlNamespace}"><Error><Type>${type}</Type><Code>${code}</Code><Message>${message}</Message></Error><RequestId>${id}</RequestId></ErrorResponse>`;
}

function valueXml(shape: AwsShape, value: unknown, path: string): string {
  switch (shape.kind) {
    case "struct":
      if (typeof value !== "object" || value === null) throw wrongType(path, shape.kind);
      return structXml(shape, value);
    case "list": {
      if (!Array.isArray(value)) throw wrongType(path, shape.kind);
      const tag = shape.itemXmlName;
      let xml = "";
      for (const item of value) {
        if (item === undefined || item === null) continue;
        xml += `<${tag}>${valueXml(shape.item, item, path)}</${tag}>`;
      }
      return xml;
    }
    case "map": {
      if (typeof value !== "object" || value === null) throw wrongType(path, shape.kind);
      let xml = "";
      for (const [key, item] of Object.entries(value)) {
        if (item === undefined || item === null) continue;
        const inner = valueXml(shape.value, item, path);
        xml += `<entry><${shape.keyName}>${escapeXml(key)}</${shape.keyName}><${shape.valueName}>${inner}</${shape.valueName}></entry>`;
      }
      return xml;
    }
    case "string":
    case "number":
    case "boolean":
    case "timestamp":
    case "blob":
      return escapeXml(scalarText(shape.kind, value, path));
  }
}

function structXml(shape: StructShape, value: object): string {
  const held = value as Readonly<Record<string, unknown>>;
  let xml = "";
  for (const member of shape.members) {
    const item = held[member.name];
    if (item === undefined || item === null) continue;
    xml += `<${member.xmlName}>${valueXml(member.shape, item, member.name)}</${member.xmlName}>`;
  }
  return xml;
}

function wrongType(path: string, kind: string): AwsProtocolError {
  return new AwsProtocolError("InternalFailure", `the answer's ${path} must be a ${kind}`, 500);
}

// Markup, carriage returns (a parser would fold them) and all that XML 1.0 cannot hold, escaped or not.
// oxlint-disable-next-line no-control-regex
const needsEscape = /[&<>"'\r\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]|\p{Surrogate}/u;
// oxlint-disable-next-line no-control-regex
const toEscape = /[&<>"'\r\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]|\p{Surrogate}/gu;
const escapes: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;",
  "\r": "&#13;",
};

/** Text for an element. Characters that XML 1.0 forbids, lone surrogates among them, become U+FFFD. */
export function escapeXml(text: string): string {
  return needsEscape.test(text) ? text.replace(toEscape, (char) => escapes[char] ?? "\ufffd") : text;
}
