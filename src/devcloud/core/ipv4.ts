/** IPv4 addresses and prefixes as numbers. */
const OCTET = /^(0|[1-9][0-9]{0,2})$/;

export function parseIpv4(text: string): number | undefined {
  const octets = text.split(".");
  if (octets.length !== 4) return undefined;
  let value = 0;
  for (const octet of octets) {
    if (!OCTET.test(octet) || Number(octet) > 255) return undefined;
    value = value * 256 + Number(octet);
  }
  return value;
}

export function formatIpv4(value: number): string {
  return [value >>> 24, (value >>> 16) & 255, (value >>> 8) & 255, value & 255].join(".");
}

export interface Prefix {
  readonly first: number;
  readonly last: number;
  readonly length: number;
}

/** Host bits are cut off, as clouds do: `10.0.0.7/16` is `10.0.0.0/16`. */
export function parsePrefix(text: string): Prefix | undefined {
  const slash = text.indexOf("/");
  if (slash < 0 || !/^([0-9]|[12][0-9]|3[0-2])$/.test(text.slice(slash + 1))) return undefined;
  const address = parseIpv4(text.slice(0, slash));
  if (address === undefined) return undefined;
  const length = Number(text.slice(slash + 1));
  const size = 2 ** (32 - length);
  const first = Math.floor(address / size) * size;
  return { first, last: first + size - 1, length };
}

export function formatPrefix(prefix: Prefix): string {
  return `${formatIpv4(prefix.first)}/${prefix.length}`;
}

export function overlaps(a: Prefix, b: Prefix): boolean {
  return a.first <= b.last && b.first <= a.last;
}

export function contains(outer: Prefix, inner: Prefix): boolean {
  return outer.first <= inner.first && inner.last <= outer.last;
}
