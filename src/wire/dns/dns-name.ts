/** Domain names (RFC 1035, 3.1 and 4.1.4): presentation text with `\.` and `\DDD` escapes, absolute, lower case. */

export class DnsFormatError extends Error {
  override readonly name = "DnsFormatError";
}

const MAX_NAME_BYTES = 255;
const MAX_LABEL_BYTES = 63;

function labelsOf(name: string): Buffer[] {
  const text = name === "." ? "" : name;
  if (text === "") return [];
  const labels: number[][] = [[]];
  for (let index = 0; index < text.length; index += 1) {
    let code = text.charCodeAt(index);
    const current = labels.at(-1);
    if (text[index] === ".") {
      labels.push([]);
      continue;
    }
    if (text[index] === "\\") {
      const decimal = /^\d{3}/.exec(text.slice(index + 1, index + 4));
      code = decimal === null ? text.charCodeAt(index + 1) : Number(decimal[0]);
      index += decimal === null ? 1 : 3;
    }
    if (!(code <= 255)) throw new DnsFormatError(`the name ${JSON.stringify(name)} is not a domain name`);
    current?.push(code);
  }
  // The dot of an absolute name ends its last label; it does not begin another.
  if (labels.length > 1 && labels.at(-1)?.length === 0) labels.pop();
  return labels.map((label) => Buffer.from(label));
}

/** Uncompressed wire form, ASCII letters in lower case (the canonical form of RFC 4034, 6.2). */
export function encodeName(name: string): Buffer {
  const parts: Buffer[] = [];
  for (const label of labelsOf(name)) {
    if (label.length === 0 || label.length > MAX_LABEL_BYTES)
      throw new DnsFormatError(`the name ${JSON.stringify(name)} has an empty or too long label`);
    parts.push(
      Buffer.of(label.length),
      label.map((byte) => (byte >= 65 && byte <= 90 ? byte + 32 : byte)) as Buffer,
    );
  }
  const wire = Buffer.concat([...parts, Buffer.of(0)]);
  if (wire.length > MAX_NAME_BYTES) throw new DnsFormatError(`the name ${JSON.stringify(name)} is too long`);
  return wire;
}

function labelText(label: Uint8Array): string {
  let text = "";
  for (const byte of label) {
    const lower = byte >= 65 && byte <= 90 ? byte + 32 : byte;
    if (lower === 0x2e || lower === 0x5c) text += `\\${String.fromCharCode(lower)}`;
    else if (lower > 0x20 && lower < 0x7f) text += String.fromCharCode(lower);
    else text += `\\${String(lower).padStart(3, "0")}`;
  }
  return text;
}

/**
 * Reads a name at `offset`. A compression pointer must point before the name's own start, and each further one
 * before the last: so a loop is impossible, whatever the bytes.
 */
export function decodeName(bytes: Buffer, offset: number): { readonly name: string; readonly end: number } {
  let text = "";
  let length = 1;
  let at = offset;
  let end = -1;
  let lowest = offset;
  for (;;) {
    const size = bytes[at];
    if (size === undefined) throw new DnsFormatError("a name runs past the end of the message");
    if (size === 0) return { name: text === "" ? "." : text, end: end < 0 ? at + 1 : end };
    if (size >= 0xc0) {
      const low = bytes[at + 1];
      if (low === undefined)
        throw new DnsFormatError("a compression pointer runs past the end of the message");
      if (end < 0) end = at + 2;
      at = ((size & 0x3f) << 8) | low;
      if (at >= lowest) throw new DnsFormatError("a compression pointer does not point backwards");
      lowest = at;
      continue;
    }
    if (size > MAX_LABEL_BYTES) throw new DnsFormatError("a label has an unknown type");
    length += size + 1;
    if (length > MAX_NAME_BYTES) throw new DnsFormatError("a name is longer than 255 bytes");
    if (at + 1 + size > bytes.length) throw new DnsFormatError("a label runs past the end of the message");
    text += `${labelText(bytes.subarray(at + 1, at + 1 + size))}.`;
    at += size + 1;
  }
}

/** Whether `name` is `zone` or below it. */
export function isWithin(name: string, zone: string): boolean {
  const inner = encodeName(name);
  const outer = encodeName(zone);
  if (!inner.subarray(inner.length - outer.length).equals(outer)) return false;
  // The suffix must begin at a label's border.
  let at = 0;
  while (at < inner.length - outer.length) at += (inner[at] ?? 0) + 1;
  return at === inner.length - outer.length;
}
