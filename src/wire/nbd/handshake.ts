/** Codec of the greeting, options and option replies. Decoders of what a peer sent answer undefined for malformed bytes. */
import {
  greetingBytes,
  infoType,
  maxStringBytes,
  nbdMagic,
  optionHeaderBytes,
  optionReplyHeaderBytes,
} from "./protocol.ts";

const utf8 = new TextDecoder("utf-8", { fatal: true });

/** A protocol string: UTF-8, without NUL, at most 4096 bytes. */
export function decodeNbdString(bytes: Uint8Array): string | undefined {
  if (bytes.length > maxStringBytes || bytes.includes(0)) return undefined;
  try {
    return utf8.decode(bytes);
  } catch {
    return undefined;
  }
}

/** Reads fields in order; every method answers undefined once the bytes have run out. */
class FieldReader {
  #at = 0;
  readonly #bytes: Buffer;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  get left(): number {
    return this.#bytes.length - this.#at;
  }

  u16(): number | undefined {
    if (this.left < 2) return undefined;
    this.#at += 2;
    return this.#bytes.readUInt16BE(this.#at - 2);
  }

  u32(): number | undefined {
    if (this.left < 4) return undefined;
    this.#at += 4;
    return this.#bytes.readUInt32BE(this.#at - 4);
  }

  /** A string after its 32-bit length. */
  text(): string | undefined {
    const length = this.u32();
    if (length === undefined || length > this.left) return undefined;
    this.#at += length;
    return decodeNbdString(this.#bytes.subarray(this.#at - length, this.#at));
  }

  rest(): Buffer {
    const rest = this.#bytes.subarray(this.#at);
    this.#at = this.#bytes.length;
    return rest;
  }
}

function sizedText(text: string): Buffer {
  const bytes = Buffer.from(text);
  const sized = Buffer.allocUnsafe(4 + bytes.length);
  sized.writeUInt32BE(bytes.length, 0);
  bytes.copy(sized, 4);
  return sized;
}

export function u64At(bytes: Buffer, at: number): number {
  return bytes.readUInt32BE(at) * 0x1_0000_0000 + bytes.readUInt32BE(at + 4);
}

export function writeU64(bytes: Buffer, value: number, at: number): void {
  bytes.writeUInt32BE(Math.floor(value / 0x1_0000_0000), at);
  bytes.writeUInt32BE(value % 0x1_0000_0000, at + 4);
}

export function encodeGreeting(flags: number): Buffer {
  const bytes = Buffer.allocUnsafe(greetingBytes);
  bytes.writeUInt32BE(nbdMagic.greetingHigh, 0);
  bytes.writeUInt32BE(nbdMagic.greetingLow, 4);
  bytes.writeUInt32BE(nbdMagic.optionHigh, 8);
  bytes.writeUInt32BE(nbdMagic.optionLow, 12);
  bytes.writeUInt16BE(flags, 16);
  return bytes;
}

/** The server's handshake flags; undefined where the bytes are not a newstyle greeting. */
export function decodeGreeting(bytes: Buffer): number | undefined {
  const valid =
    bytes.readUInt32BE(0) === nbdMagic.greetingHigh &&
    bytes.readUInt32BE(4) === nbdMagic.greetingLow &&
    bytes.readUInt32BE(8) === nbdMagic.optionHigh &&
    bytes.readUInt32BE(12) === nbdMagic.optionLow;
  return valid ? bytes.readUInt16BE(16) : undefined;
}

export function encodeClientFlags(flags: number): Buffer {
  const bytes = Buffer.allocUnsafe(4);
  bytes.writeUInt32BE(flags, 0);
  return bytes;
}

export function encodeOption(option: number, data: Uint8Array = Buffer.alloc(0)): Buffer {
  const bytes = Buffer.allocUnsafe(optionHeaderBytes + data.length);
  bytes.writeUInt32BE(nbdMagic.optionHigh, 0);
  bytes.writeUInt32BE(nbdMagic.optionLow, 4);
  bytes.writeUInt32BE(option, 8);
  bytes.writeUInt32BE(data.length, 12);
  bytes.set(data, optionHeaderBytes);
  return bytes;
}

export interface OptionHeader {
  readonly option: number;
  readonly length: number;
}

export function decodeOptionHeader(bytes: Buffer): OptionHeader | undefined {
  if (bytes.readUInt32BE(0) !== nbdMagic.optionHigh || bytes.readUInt32BE(4) !== nbdMagic.optionLow)
    return undefined;
  return { option: bytes.readUInt32BE(8), length: bytes.readUInt32BE(12) };
}

export function encodeOptionReply(option: number, type: number, data: Uint8Array = Buffer.alloc(0)): Buffer {
  const bytes = Buffer.allocUnsafe(optionReplyHeaderBytes + data.length);
  bytes.writeUInt32BE(nbdMagic.optionReplyHigh, 0);
  bytes.writeUInt32BE(nbdMagic.optionReplyLow, 4);
  bytes.writeUInt32BE(option, 8);
  bytes.writeUInt32BE(type, 12);
  bytes.writeUInt32BE(data.length, 16);
  bytes.set(data, optionReplyHeaderBytes);
  return bytes;
}

export interface OptionReplyHeader {
  readonly option: number;
  readonly type: number;
  readonly length: number;
}

export function decodeOptionReplyHeader(bytes: Buffer): OptionReplyHeader | undefined {
  if (bytes.readUInt32BE(0) !== nbdMagic.optionReplyHigh || bytes.readUInt32BE(4) !== nbdMagic.optionReplyLow)
    return undefined;
  return { option: bytes.readUInt32BE(8), type: bytes.readUInt32BE(12), length: bytes.readUInt32BE(16) };
}

/** Data of `NBD_OPT_GO` and `NBD_OPT_INFO`. */
export interface InfoRequest {
  readonly exportName: string;
  readonly infos: readonly number[];
}

export function encodeInfoRequest(request: InfoRequest): Buffer {
  const tail = Buffer.allocUnsafe(2 + 2 * request.infos.length);
  tail.writeUInt16BE(request.infos.length, 0);
  request.infos.forEach((info, index) => tail.writeUInt16BE(info, 2 + 2 * index));
  return Buffer.concat([sizedText(request.exportName), tail]);
}

export function decodeInfoRequest(data: Buffer): InfoRequest | undefined {
  const reader = new FieldReader(data);
  const exportName = reader.text();
  const count = reader.u16();
  if (exportName === undefined || count === undefined || reader.left !== 2 * count) return undefined;
  const infos = Array.from({ length: count }, () => reader.u16() ?? 0);
  return { exportName, infos };
}

/** Data of `NBD_OPT_LIST_META_CONTEXT` and `NBD_OPT_SET_META_CONTEXT`. */
export interface MetaContextRequest {
  readonly exportName: string;
  readonly queries: readonly string[];
}

export function encodeMetaContextRequest(request: MetaContextRequest): Buffer {
  const count = Buffer.allocUnsafe(4);
  count.writeUInt32BE(request.queries.length, 0);
  return Buffer.concat([sizedText(request.exportName), count, ...request.queries.map(sizedText)]);
}

export function decodeMetaContextRequest(data: Buffer): MetaContextRequest | undefined {
  const reader = new FieldReader(data);
  const exportName = reader.text();
  const count = reader.u32();
  // Each query takes its length field at least: a count beyond that is a lie, found before any loop.
  if (exportName === undefined || count === undefined || count * 4 > reader.left) return undefined;
  const queries: string[] = [];
  for (let index = 0; index < count; index += 1) {
    const query = reader.text();
    if (query === undefined) return undefined;
    queries.push(query);
  }
  return reader.left === 0 ? { exportName, queries } : undefined;
}

/** Payload of an `NBD_REP_META_CONTEXT`. */
export interface MetaContext {
  readonly id: number;
  readonly name: string;
}

export function encodeMetaContext(context: MetaContext): Buffer {
  const name = Buffer.from(context.name);
  const bytes = Buffer.allocUnsafe(4 + name.length);
  bytes.writeUInt32BE(context.id, 0);
  name.copy(bytes, 4);
  return bytes;
}

export function decodeMetaContext(data: Buffer): MetaContext | undefined {
  const reader = new FieldReader(data);
  const id = reader.u32();
  const name = decodeNbdString(reader.rest());
  return id === undefined || name === undefined ? undefined : { id, name };
}

/** Payload of an `NBD_REP_SERVER`. */
export interface ListedExport {
  readonly name: string;
  readonly description: string;
}

export function encodeListedExport(entry: ListedExport): Buffer {
  return Buffer.concat([sizedText(entry.name), Buffer.from(entry.description)]);
}

export function decodeListedExport(data: Buffer): ListedExport | undefined {
  const reader = new FieldReader(data);
  const name = reader.text();
  const description = decodeNbdString(reader.rest());
  return name === undefined || description === undefined ? undefined : { name, description };
}

export interface BlockSizes {
  readonly minimum: number;
  readonly preferred: number;
  readonly maximum: number;
}

/** Payload of an `NBD_REP_INFO`; `other` are types that this codec does not know, to be ignored. */
export type ExportInfo =
  | { readonly type: "export"; readonly sizeBytes: number; readonly flags: number }
  | { readonly type: "name"; readonly name: string }
  | { readonly type: "description"; readonly description: string }
  | ({ readonly type: "blockSize" } & BlockSizes)
  | { readonly type: "other" };

export function encodeInfo(info: Exclude<ExportInfo, { type: "other" }>): Buffer {
  switch (info.type) {
    case "export": {
      const bytes = Buffer.allocUnsafe(12);
      bytes.writeUInt16BE(infoType.export, 0);
      writeU64(bytes, info.sizeBytes, 2);
      bytes.writeUInt16BE(info.flags, 10);
      return bytes;
    }
    case "name":
      return Buffer.concat([Buffer.from([0, infoType.name]), Buffer.from(info.name)]);
    case "description":
      return Buffer.concat([Buffer.from([0, infoType.description]), Buffer.from(info.description)]);
    case "blockSize": {
      const bytes = Buffer.allocUnsafe(14);
      bytes.writeUInt16BE(infoType.blockSize, 0);
      bytes.writeUInt32BE(info.minimum, 2);
      bytes.writeUInt32BE(info.preferred, 6);
      bytes.writeUInt32BE(info.maximum, 10);
      return bytes;
    }
  }
}

export function decodeInfo(data: Buffer): ExportInfo | undefined {
  if (data.length < 2) return undefined;
  switch (data.readUInt16BE(0)) {
    case infoType.export:
      if (data.length !== 12) return undefined;
      return { type: "export", sizeBytes: u64At(data, 2), flags: data.readUInt16BE(10) };
    case infoType.name: {
      const name = decodeNbdString(data.subarray(2));
      return name === undefined ? undefined : { type: "name", name };
    }
    case infoType.description: {
      const description = decodeNbdString(data.subarray(2));
      return description === undefined ? undefined : { type: "description", description };
    }
    case infoType.blockSize:
      if (data.length !== 14) return undefined;
      return {
        type: "blockSize",
        minimum: data.readUInt32BE(2),
        preferred: data.readUInt32BE(6),
        maximum: data.readUInt32BE(10),
      };
    default:
      return { type: "other" };
  }
}

/** The answer to `NBD_OPT_EXPORT_NAME`: 10 bytes, and 124 zeroes where the client did not wave them off. */
export function encodeExportNameReply(sizeBytes: number, flags: number, noZeroes: boolean): Buffer {
  const bytes = Buffer.alloc(noZeroes ? 10 : 134);
  writeU64(bytes, sizeBytes, 0);
  bytes.writeUInt16BE(flags, 8);
  return bytes;
}

export function decodeExportNameReply(bytes: Buffer): { sizeBytes: number; flags: number } {
  return { sizeBytes: u64At(bytes, 0), flags: bytes.readUInt16BE(8) };
}
