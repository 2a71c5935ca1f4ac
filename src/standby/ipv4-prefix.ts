/** IPv4 prefix arithmetic (RFC 4632), as far as translation needs it. */

export interface Ipv4Prefix {
  readonly address: number;
  readonly length: number;
}

/** `undefined` for what is not an IPv4 prefix, IPv6 included. */
export function parseIpv4Prefix(text: string): Ipv4Prefix | undefined {
  const match = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})\/(\d{1,2})$/.exec(text);
  if (match === null) return undefined;
  const octets = match.slice(1, 5).map(Number);
  const length = Number(match[5]);
  if (octets.some((octet) => octet > 255) || length > 32) return undefined;
  const address = octets.reduce((value, octet) => value * 256 + octet, 0);
  return { address: networkAddress(address, length), length };
}

export function formatIpv4Prefix({ address, length }: Ipv4Prefix): string {
  const octets = [24, 16, 8, 0].map((shift) => Math.floor(address / 2 ** shift) % 256);
  return `${octets.join(".")}/${length}`;
}

function networkAddress(address: number, length: number): number {
  const size = 2 ** (32 - length);
  return Math.floor(address / size) * size;
}

export function prefixesOverlap(a: Ipv4Prefix, b: Ipv4Prefix): boolean {
  const length = Math.min(a.length, b.length);
  return networkAddress(a.address, length) === networkAddress(b.address, length);
}

/** The longest prefix, at most `maxLength` long, that holds all of `prefixes`. */
export function coveringPrefix(prefixes: readonly Ipv4Prefix[], maxLength: number): Ipv4Prefix | undefined {
  const [first] = prefixes;
  if (first === undefined) return undefined;
  let length = Math.min(maxLength, ...prefixes.map((prefix) => prefix.length));
  const differs = (): boolean =>
    prefixes.some(({ address }) => networkAddress(address, length) !== networkAddress(first.address, length));
  while (length > 0 && differs()) length -= 1;
  return { address: networkAddress(first.address, length), length };
}
