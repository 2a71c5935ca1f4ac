/** The loopback addresses that belong to this cloud, e.g. `127.40.0.0/16`: two clouds on one machine use different ones. */
import { OperationalError } from "#kernel/errors.ts";
import { formatIpv4, parsePrefix, type Prefix } from "./ipv4.ts";
import { refuse } from "./refusal.ts";

export interface AddressPool {
  readonly cidr: string;
  /** A free address; `inUse` tells which are not. */
  take(inUse: (ip: string) => boolean): string;
}

export function openAddressPool(cidr: string): AddressPool {
  const prefix = parsePrefix(cidr);
  const loopback = parsePrefix("127.0.0.0/8") as Prefix;
  if (prefix === undefined || prefix.first < loopback.first || prefix.last > loopback.last) {
    throw new OperationalError(
      "config.invalid",
      `--address-base ${cidr} is not a prefix within 127.0.0.0/8: use e.g. 127.40.0.0/16`,
    );
  }
  if (prefix.length > 28 || prefix.first === loopback.first) {
    throw new OperationalError(
      "config.invalid",
      `--address-base ${cidr} must hold 16 addresses or more and must not hold 127.0.0.1: use e.g. 127.40.0.0/16`,
    );
  }
  // The first address is left to the cloud itself. A moving cursor: an address is reused as late as possible.
  const lowest = prefix.first + 2;
  const size = prefix.last - lowest;
  let next = 0;
  return {
    cidr,
    take(inUse) {
      for (let tried = 0; tried < size; tried += 1) {
        const ip = formatIpv4(lowest + next);
        next = (next + 1) % size;
        if (!inUse(ip)) return ip;
      }
      return refuse({ code: "no_free_address", subnetId: cidr });
    },
  };
}
