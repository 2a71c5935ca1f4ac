/** DNS messages (RFC 1035) and dynamic updates (RFC 2136), as far as a switch needs them. */
import { decodeName, DnsFormatError, encodeName } from "./dns-name.ts";

export const recordTypes = { A: 1, CNAME: 5, SOA: 6, TXT: 16, AAAA: 28, TSIG: 250, ANY: 255 } as const;
export const classes = { IN: 1, NONE: 254, ANY: 255 } as const;
export const opcodes = { QUERY: 0, UPDATE: 5 } as const;

/** RFC 1035 4.1.1, RFC 2136 2.2, RFC 8945 3. */
export const responseCodes = {
  NOERROR: 0,
  FORMERR: 1,
  SERVFAIL: 2,
  NXDOMAIN: 3,
  NOTIMP: 4,
  REFUSED: 5,
  YXDOMAIN: 6,
  YXRRSET: 7,
  NXRRSET: 8,
  NOTAUTH: 9,
  NOTZONE: 10,
} as const;

export function responseCodeName(code: number): string {
  const found = Object.entries(responseCodes).find(([, value]) => value === code);
  return found?.[0] ?? `RCODE${code}`;
}

export interface DnsQuestion {
  readonly name: string;
  readonly type: number;
  readonly class: number;
}

export interface DnsRecord extends DnsQuestion {
  /** Seconds. */
  readonly ttl: number;
  /** As on the wire; names inside may be compressed and are not expanded. */
  readonly data: Buffer;
}

export interface DnsMessage {
  readonly id: number;
  readonly response: boolean;
  readonly opcode: number;
  readonly authoritative: boolean;
  readonly truncated: boolean;
  readonly code: number;
  /** Of an update: the zone. */
  readonly questions: readonly DnsQuestion[];
  /** Of an update: the prerequisites. */
  readonly answers: readonly DnsRecord[];
  /** Of an update: the changes. */
  readonly authorities: readonly DnsRecord[];
  readonly additionals: readonly DnsRecord[];
}

export const HEADER_BYTES = 12;
/** The largest message that TCP carries (RFC 1035, 4.2.2). */
export const MAX_MESSAGE_BYTES = 65_535;

function uint16(...values: number[]): Buffer {
  const buffer = Buffer.alloc(values.length * 2);
  values.forEach((value, index) => buffer.writeUInt16BE(value, index * 2));
  return buffer;
}

export function encodeRecord(record: DnsRecord): Buffer {
  const ttl = Buffer.alloc(4);
  ttl.writeUInt32BE(record.ttl);
  return Buffer.concat([
    encodeName(record.name),
    uint16(record.type, record.class),
    ttl,
    uint16(record.data.length),
    record.data,
  ]);
}

/** Without compression. Throws DnsFormatError when it does not fit into a message. */
export function encodeMessage(message: DnsMessage): Buffer {
  const flags =
    (message.response ? 0x8000 : 0) |
    ((message.opcode & 0xf) << 11) |
    (message.authoritative ? 0x0400 : 0) |
    (message.truncated ? 0x0200 : 0) |
    (message.code & 0xf);
  const { questions, answers, authorities, additionals } = message;
  const bytes = Buffer.concat([
    uint16(message.id, flags, questions.length, answers.length, authorities.length, additionals.length),
    ...questions.map((one) => Buffer.concat([encodeName(one.name), uint16(one.type, one.class)])),
    ...[...answers, ...authorities, ...additionals].map(encodeRecord),
  ]);
  if (bytes.length > MAX_MESSAGE_BYTES) throw new DnsFormatError("the message is larger than 65535 bytes");
  return bytes;
}

export interface DecodedMessage extends DnsMessage {
  /** Where the last record begins: what a TSIG at the end does not cover. */
  readonly lastRecordAt: number;
}

/** Throws DnsFormatError for anything that is not one whole message. */
export function decodeMessage(bytes: Buffer): DecodedMessage {
  if (bytes.length < HEADER_BYTES) throw new DnsFormatError("the message is shorter than its header");
  const flags = bytes.readUInt16BE(2);
  let at = HEADER_BYTES;
  let lastRecordAt = bytes.length;
  const need = (size: number): void => {
    if (at + size > bytes.length) throw new DnsFormatError("a section runs past the end of the message");
  };
  const question = (): DnsQuestion => {
    const { name, end } = decodeName(bytes, at);
    at = end;
    need(4);
    at += 4;
    return { name, type: bytes.readUInt16BE(end), class: bytes.readUInt16BE(end + 2) };
  };
  const record = (): DnsRecord => {
    lastRecordAt = at;
    const head = question();
    need(6);
    const ttl = bytes.readUInt32BE(at);
    const size = bytes.readUInt16BE(at + 4);
    at += 6;
    need(size);
    at += size;
    return { ...head, ttl, data: Buffer.from(bytes.subarray(at - size, at)) };
  };
  // Every entry takes at least five bytes, so a lying count ends at the end of the message.
  const section = <T>(countAt: number, read: () => T): T[] => {
    const entries: T[] = [];
    for (let left = bytes.readUInt16BE(countAt); left > 0; left -= 1) entries.push(read());
    return entries;
  };
  const questions = section(4, question);
  const answers = section(6, record);
  const authorities = section(8, record);
  const additionals = section(10, record);
  if (at !== bytes.length) throw new DnsFormatError("bytes follow the end of the message");
  return {
    id: bytes.readUInt16BE(0),
    response: (flags & 0x8000) !== 0,
    opcode: (flags >> 11) & 0xf,
    authoritative: (flags & 0x0400) !== 0,
    truncated: (flags & 0x0200) !== 0,
    code: flags & 0xf,
    questions,
    answers,
    authorities,
    additionals,
    lastRecordAt,
  };
}
