/**
 * A small strict reader of XML 1.0 as AWS services answer it: elements, text, CDATA. No document type, hence no entities
 * but the five of XML; attributes are checked for form and dropped. Bounded in size and depth, linear in time.
 */
import { AwsProtocolError } from "./aws-protocol-error.ts";

export const xmlLimits = {
  /** Characters of a document. */
  chars: 128 * 1024 * 1024,
  depth: 64,
} as const;

/** Where reading stands. `name` is the element of the last `open`; `text` the text of the last `text`. */
export interface XmlCursor {
  readonly source: string;
  at: number;
  name: string;
  text: string;
  /** Elements that are open, outermost first. */
  readonly path: string[];
  /** The last opened element was written as `<x/>`: its close is still to be reported. */
  selfClosed: boolean;
}

export type XmlToken = "open" | "close" | "text";

/** Reads the prolog and the root's start: `name` is the root element. Throws `MalformedResponse`. */
export function openXml(source: string): XmlCursor {
  if (source.length > xmlLimits.chars) throw malformed(`longer than ${xmlLimits.chars} characters`);
  const cursor: XmlCursor = { source, at: 0, name: "", text: "", path: [], selfClosed: false };
  if (source.charCodeAt(0) === 0xfeff) cursor.at = 1;
  skipOutside(cursor);
  if (source.charCodeAt(cursor.at) !== lessThan) throw malformed("no root element");
  openElement(cursor);
  return cursor;
}

/** The next token inside the root; after the root's `close` nothing may follow. */
export function nextToken(cursor: XmlCursor): XmlToken {
  if (cursor.selfClosed) {
    cursor.selfClosed = false;
    return closed(cursor);
  }
  const { source } = cursor;
  for (;;) {
    if (cursor.at >= source.length) throw malformed("it ends inside an element");
    if (source.charCodeAt(cursor.at) !== lessThan) {
      const end = source.indexOf("<", cursor.at);
      if (end < 0) throw malformed("it ends inside an element");
      cursor.text = decodeText(source.slice(cursor.at, end));
      cursor.at = end;
      return "text";
    }
    const next = source.charCodeAt(cursor.at + 1);
    if (next === slash) {
      closeElement(cursor);
      return closed(cursor);
    }
    if (next === question) skipTo(cursor, "?>");
    else if (next !== exclamation) {
      openElement(cursor);
      return "open";
    } else if (source.startsWith("<!--", cursor.at)) skipTo(cursor, "-->", 4);
    else if (source.startsWith("<![CDATA[", cursor.at)) {
      const start = cursor.at + "<![CDATA[".length;
      skipTo(cursor, "]]>", "<![CDATA[".length);
      cursor.text = foldLines(source.slice(start, cursor.at - "]]>".length));
      return "text";
    } else throw malformed("it has a declaration that is not allowed here");
  }
}

/** Skips the rest of the element that was opened last. */
export function skipElement(cursor: XmlCursor): void {
  const outside = cursor.path.length - 1;
  while (nextToken(cursor) !== "close" || cursor.path.length > outside);
}

/** Reads the rest of the element that was opened last as text. */
export function readText(cursor: XmlCursor): string {
  let text = "";
  for (;;) {
    switch (nextToken(cursor)) {
      case "text":
        text += cursor.text;
        break;
      case "close":
        return text;
      case "open":
        throw malformed(`<${cursor.name}> stands where text is expected`);
    }
  }
}

export function malformed(why: string): AwsProtocolError {
  return new AwsProtocolError(
    "MalformedResponse",
    `The answer is not the XML that was expected: ${why}.`,
    502,
  );
}

const lessThan = 0x3c;
const greaterThan = 0x3e;
const slash = 0x2f;
const question = 0x3f;
const exclamation = 0x21;

function closed(cursor: XmlCursor): "close" {
  cursor.path.pop();
  if (cursor.path.length === 0) {
    skipOutside(cursor);
    if (cursor.at < cursor.source.length) throw malformed("something follows the root element");
  }
  return "close";
}

// Sticky, and every alternative begins with another character: no backtracking over long input.
const startTag =
  /<([A-Za-z_:][\w:.-]{0,255})((?:[ \t\r\n]+[A-Za-z_:][\w:.-]{0,255}[ \t\r\n]*=[ \t\r\n]*(?:"[^"<]*"|'[^'<]*'))*)[ \t\r\n]*(\/?)>/y;
const endTag = /<\/([A-Za-z_:][\w:.-]{0,255})[ \t\r\n]*>/y;

function openElement(cursor: XmlCursor): void {
  if (!openPlain(cursor)) {
    startTag.lastIndex = cursor.at;
    const match = startTag.exec(cursor.source);
    if (match === null) throw malformed("it has a malformed start tag");
    cursor.at = startTag.lastIndex;
    cursor.name = match[1] ?? "";
    cursor.selfClosed = match[3] === "/";
  }
  if (cursor.path.length >= xmlLimits.depth)
    throw malformed(`more than ${xmlLimits.depth} elements inside each other`);
  cursor.path.push(cursor.name);
}

const nameStarts = codesOf(/[A-Za-z_:]/);
const nameParts = codesOf(/[\w:.-]/);

function codesOf(allowed: RegExp): Uint8Array {
  return Uint8Array.from({ length: 128 }, (_, code) => (allowed.test(String.fromCharCode(code)) ? 1 : 0));
}

/** The usual start tag, `<name>` or `<name/>`, read without the pattern; false leaves the cursor as it was. */
function openPlain(cursor: XmlCursor): boolean {
  const { source } = cursor;
  const start = cursor.at + 1;
  if (nameStarts[source.charCodeAt(start)] !== 1) return false;
  let end = start + 1;
  while (nameParts[source.charCodeAt(end)] === 1) end += 1;
  if (end - start > 256) return false;
  const selfClosed = source.charCodeAt(end) === slash;
  if (source.charCodeAt(selfClosed ? end + 1 : end) !== greaterThan) return false;
  cursor.at = selfClosed ? end + 2 : end + 1;
  cursor.name = source.slice(start, end);
  cursor.selfClosed = selfClosed;
  return true;
}

function closeElement(cursor: XmlCursor): void {
  const open = cursor.path.at(-1) ?? "";
  // The usual form first: an answer of 10 MB has some 300,000 of them.
  const end = cursor.at + open.length + 2;
  if (cursor.source.startsWith(open, cursor.at + 2) && cursor.source.charCodeAt(end) === greaterThan) {
    cursor.at = end + 1;
    return;
  }
  endTag.lastIndex = cursor.at;
  const match = endTag.exec(cursor.source);
  if (match?.[1] !== open) throw malformed(`<${open}> is not closed`);
  cursor.at = endTag.lastIndex;
}

/** Blanks, comments and processing instructions, before and after the root. */
function skipOutside(cursor: XmlCursor): void {
  const { source } = cursor;
  for (;;) {
    while (isBlank(source.charCodeAt(cursor.at))) cursor.at += 1;
    if (source.startsWith("<?", cursor.at)) skipTo(cursor, "?>");
    else if (source.startsWith("<!--", cursor.at)) skipTo(cursor, "-->", 4);
    else return;
  }
}

function isBlank(code: number): boolean {
  return code === 0x20 || code === 0x0a || code === 0x0d || code === 0x09;
}

function skipTo(cursor: XmlCursor, end: string, past = 2): void {
  const found = cursor.source.indexOf(end, cursor.at + past);
  if (found < 0) throw malformed(`"${end}" is missing`);
  cursor.at = found + end.length;
}

function foldLines(text: string): string {
  return text.includes("\r") ? text.replace(/\r\n?/g, "\n") : text;
}

const named: ReadonlyMap<string, string> = new Map([
  ["amp", "&"],
  ["lt", "<"],
  ["gt", ">"],
  ["quot", '"'],
  ["apos", "'"],
]);

function decodeText(raw: string): string {
  const text = foldLines(raw);
  if (!text.includes("&")) return text;
  return text.replace(/&([^;&]{0,12})(;?)/g, (_whole, body: string, end: string) => {
    const plain = named.get(body);
    if (end !== ";") throw malformed("it has a bare &");
    if (plain !== undefined) return plain;
    const code = /^#x[0-9a-fA-F]{1,8}$/.test(body)
      ? Number.parseInt(body.slice(2), 16)
      : /^#[0-9]{1,8}$/.test(body)
        ? Number.parseInt(body.slice(1), 10)
        : Number.NaN;
    const surrogate = code >= 0xd800 && code <= 0xdfff;
    if (!(code > 0 && code <= 0x10ffff) || surrogate) throw malformed("it has an unknown entity");
    return String.fromCodePoint(code);
  });
}
