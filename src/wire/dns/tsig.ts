/** Transaction signatures: RFC 8945, with hmac-sha256 (its section 6 makes that one mandatory). */
import { createHmac, timingSafeEqual } from "node:crypto";
import type { Secret } from "#kernel/secret.ts";
import { classes, decodeMessage, encodeRecord, type DecodedMessage, recordTypes } from "./dns-message.ts";
import { decodeName, DnsFormatError, encodeName } from "./dns-name.ts";

export interface TsigKey {
  readonly name: string;
  /** Base64, as key files hold it. */
  readonly secret: Secret;
}

export const tsigErrors = { BADSIG: 16, BADKEY: 17, BADTIME: 18, BADTRUNC: 22 } as const;
const ALGORITHM = "hmac-sha256.";
const FUDGE_SECONDS = 300;

export interface Tsig {
  readonly keyName: string;
  readonly algorithm: string;
  /** Seconds since the Unix epoch. */
  readonly time: number;
  readonly fudge: number;
  readonly mac: Buffer;
  readonly originalId: number;
  readonly error: number;
  readonly other: Buffer;
}

function fixed(time: number, fudge: number): Buffer {
  const buffer = Buffer.alloc(8);
  buffer.writeUIntBE(time, 0, 6);
  buffer.writeUInt16BE(fudge, 6);
  return buffer;
}

function sized(error: number, other: Buffer): Buffer {
  const buffer = Buffer.alloc(4);
  buffer.writeUInt16BE(error, 0);
  buffer.writeUInt16BE(other.length, 2);
  return Buffer.concat([buffer, other]);
}

/** RFC 8945, 4.3: the request's MAC for an answer, the message without its TSIG, the TSIG's variables. */
function macOf(
  key: TsigKey,
  message: Buffer,
  tsig: Omit<Tsig, "mac">,
  requestMac: Buffer | undefined,
): Buffer {
  const hmac = createHmac("sha256", Buffer.from(key.secret.reveal(), "base64"));
  if (requestMac !== undefined) {
    const length = Buffer.alloc(2);
    length.writeUInt16BE(requestMac.length);
    hmac.update(length).update(requestMac);
  }
  hmac.update(message);
  hmac.update(encodeName(tsig.keyName));
  hmac.update(Buffer.from([0, classes.ANY, 0, 0, 0, 0]));
  hmac.update(encodeName(tsig.algorithm));
  hmac.update(fixed(tsig.time, tsig.fudge));
  hmac.update(sized(tsig.error, tsig.other));
  return hmac.digest();
}

export interface SignedMessage {
  readonly bytes: Buffer;
  readonly mac: Buffer;
}

/** Appends a TSIG to an encoded message. `nowMs`: milliseconds since the Unix epoch. */
export function signMessage(
  message: Buffer,
  key: TsigKey,
  nowMs: number,
  requestMac?: Buffer,
): SignedMessage {
  const tsig = {
    keyName: key.name,
    algorithm: ALGORITHM,
    time: Math.floor(nowMs / 1000),
    fudge: FUDGE_SECONDS,
    originalId: message.readUInt16BE(0),
    error: 0,
    other: Buffer.alloc(0),
  };
  const mac = macOf(key, message, tsig, requestMac);
  const head = Buffer.alloc(2);
  head.writeUInt16BE(mac.length);
  const id = Buffer.alloc(2);
  id.writeUInt16BE(tsig.originalId);
  const data = Buffer.concat([
    encodeName(ALGORITHM),
    fixed(tsig.time, tsig.fudge),
    head,
    mac,
    id,
    sized(tsig.error, tsig.other),
  ]);
  const record = encodeRecord({ name: key.name, type: recordTypes.TSIG, class: classes.ANY, ttl: 0, data });
  const bytes = Buffer.concat([message, record]);
  bytes.writeUInt16BE(bytes.readUInt16BE(10) + 1, 10);
  return { bytes, mac };
}

/** The TSIG of a message, or undefined if its last record is none. Throws DnsFormatError for a malformed one. */
export function tsigOf(message: DecodedMessage): Tsig | undefined {
  const last = message.additionals.at(-1);
  if (last?.type !== recordTypes.TSIG) return undefined;
  const { name: algorithm, end } = decodeName(last.data, 0);
  const { data } = last;
  if (data.length < end + 10) throw new DnsFormatError("a TSIG is too short");
  const macSize = data.readUInt16BE(end + 8);
  const afterMac = end + 10 + macSize;
  if (data.length < afterMac + 6) throw new DnsFormatError("a TSIG is too short");
  const otherSize = data.readUInt16BE(afterMac + 4);
  if (data.length !== afterMac + 6 + otherSize) throw new DnsFormatError("a TSIG has the wrong length");
  return {
    keyName: last.name,
    algorithm,
    time: data.readUIntBE(end, 6),
    fudge: data.readUInt16BE(end + 6),
    mac: data.subarray(end + 10, afterMac),
    originalId: data.readUInt16BE(afterMac),
    error: data.readUInt16BE(afterMac + 2),
    other: data.subarray(afterMac + 6),
  };
}

export type TsigVerdict =
  | { readonly ok: true; readonly tsig: Tsig }
  /** `unsigned`: no TSIG; `wrong`: not made with this key; `stale`: right, but its time is too far from ours. */
  | { readonly ok: false; readonly reason: "unsigned" | "wrong" | "stale"; readonly tsig: Tsig | undefined };

/** Checks a message against the key. A `BADSIG` or `BADKEY` answer is unsigned by design: see `tsig.error`. */
export function verifyMessage(bytes: Buffer, key: TsigKey, nowMs: number, requestMac?: Buffer): TsigVerdict {
  const message = decodeMessage(bytes);
  const tsig = tsigOf(message);
  if (tsig === undefined) return { ok: false, reason: "unsigned", tsig };
  const covered = Buffer.from(bytes.subarray(0, message.lastRecordAt));
  covered.writeUInt16BE(tsig.originalId, 0);
  covered.writeUInt16BE(covered.readUInt16BE(10) - 1, 10);
  const sameKey = encodeName(tsig.keyName).equals(encodeName(key.name)) && tsig.algorithm === ALGORITHM;
  const expected = macOf(key, covered, tsig, requestMac);
  if (!sameKey || tsig.mac.length !== expected.length || !timingSafeEqual(tsig.mac, expected))
    return { ok: false, reason: "wrong", tsig };
  if (Math.abs(Math.floor(nowMs / 1000) - tsig.time) > tsig.fudge)
    return { ok: false, reason: "stale", tsig };
  return { ok: true, tsig };
}
