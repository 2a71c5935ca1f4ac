/** IPv4 prefixes as numbers: enough to check subnets and to hand out addresses. */
export interface Ipv4Range {
  readonly first: number;
  readonly last: number;
}

function parseIpv4(text: string): number | undefined {
  const parts = text.split(".");
  if (parts.length !== 4) return undefined;
  let value = 0;
  for (const part of parts) {
    if (!/^\d{1,3}$/.test(part) || Number(part) > 255) return undefined;
    value = value * 256 + Number(part);
  }
  return value;
}

/** `undefined`: not an IPv4 prefix in canonical form. */
export function parseIpv4Range(cidr: string): Ipv4Range | undefined {
  const [address = "", bits = ""] = cidr.split("/");
  const first = parseIpv4(address);
  if (first === undefined || !/^\d{1,2}$/.test(bits) || Number(bits) > 32) return undefined;
  const size = 2 ** (32 - Number(bits));
  return first % size === 0 ? { first, last: first + size - 1 } : undefined;
}

export function formatIpv4(value: number): string {
  return [24, 16, 8, 0].map((shift) => Math.floor(value / 2 ** shift) % 256).join(".");
}

export function contains(outer: Ipv4Range, inner: Ipv4Range): boolean {
  return inner.first >= outer.first && inner.last <= outer.last;
}

export function overlaps(a: Ipv4Range, b: Ipv4Range): boolean {
  return a.first <= b.last && b.first <= a.last;
}

export function holdsAddress(range: Ipv4Range, address: string): boolean {
  const value = parseIpv4(address);
  return value !== undefined && value >= range.first && value <= range.last;
}
