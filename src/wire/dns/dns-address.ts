import { isIP } from "node:net";
import { DnsFormatError } from "./dns-name.ts";
import { classes, type DnsRecord, recordTypes } from "./dns-message.ts";

function ipv4Bytes(address: string): number[] {
  return address.split(".").map(Number);
}

function ipv6Bytes(address: string): Buffer {
  const dotted = /^(.*:)(\d+\.\d+\.\d+\.\d+)$/.exec(address);
  const bytes = dotted === null ? [] : ipv4Bytes(dotted[2] ?? "");
  const text =
    dotted === null
      ? address
      : `${dotted[1]}${hex16(bytes[0] ?? 0, bytes[1] ?? 0)}:${hex16(bytes[2] ?? 0, bytes[3] ?? 0)}`;
  const [left = "", right] = text.split("::");
  const groups = (part: string | undefined): string[] =>
    part === undefined || part === "" ? [] : part.split(":");
  const head = groups(left);
  const tail = groups(right);
  const middle = Array.from({ length: 8 - head.length - tail.length }, () => "0");
  const buffer = Buffer.alloc(16);
  [...head, ...middle, ...tail].forEach((group, index) =>
    buffer.writeUInt16BE(Number.parseInt(group, 16), index * 2),
  );
  return buffer;
}

function hex16(high: number, low: number): string {
  return ((high << 8) | low).toString(16);
}

/** The bytes of an IP address: 4 or 16. A zone index (`%eth0`) is refused. */
export function addressBytes(address: string): Buffer {
  const family = address.includes("%") ? 0 : isIP(address);
  if (family === 4) return Buffer.from(ipv4Bytes(address));
  if (family === 6) return ipv6Bytes(address);
  throw new DnsFormatError(`${JSON.stringify(address)} is not an IP address`);
}

/** Canonical text (RFC 5952 for IPv6) of 4 or 16 bytes. */
export function addressText(bytes: Buffer): string {
  if (bytes.length === 4) return [...bytes].join(".");
  if (bytes.length !== 16) throw new DnsFormatError("an address record has neither 4 nor 16 bytes");
  const groups = Array.from({ length: 8 }, (_, index) => bytes.readUInt16BE(index * 2));
  let best = { at: -1, size: 1 };
  for (let at = 0; at < 8; at += 1) {
    let size = 0;
    while (at + size < 8 && groups[at + size] === 0) size += 1;
    if (size > best.size) best = { at, size };
  }
  const text = groups.map((group) => group.toString(16));
  if (best.at < 0) return text.join(":");
  return `${text.slice(0, best.at).join(":")}::${text.slice(best.at + best.size).join(":")}`;
}

export function addressRecord(name: string, ttl: number, address: string): DnsRecord {
  const data = addressBytes(address);
  return { name, type: data.length === 4 ? recordTypes.A : recordTypes.AAAA, class: classes.IN, ttl, data };
}
