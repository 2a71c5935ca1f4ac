/**
 * CONTRACT of a traffic switch: what moves the users of one route from one set of backends to another.
 *
 * Every implementation passes `trafficSwitchConformance`. What a caller may rely on:
 * - `apply` resolves only once NEW requests go to `target.backends` alone. Requests under way may finish, within
 *   the implementation's drain limit. Where the thing behind the switch is durable, so is the switch.
 * - `apply` is idempotent: the same target again changes nothing and succeeds.
 * - The old set or the new set serves, never a part of either. When `apply` throws, the error's `outcome` says
 *   which: `not_applied` the old one, `applied` the new one, `unknown` ask with `read`, or apply again.
 * - A target whose epoch is lower than the highest one ever applied is refused with `state.fenced`.
 * - An empty set is refused with `input.invalid`: a route is never switched to nothing.
 * - A peer that does not answer within the implementation's time limit is `traffic.unreachable`; one that answers
 *   and says no is `traffic.refused`; bad credentials are `auth.invalid`.
 */
import { isIP } from "node:net";
import { OperationalError } from "#kernel/errors.ts";

export interface Backend {
  /** The caller's name for it, unique in a set; for display. */
  readonly id: string;
  /** An IP address, or a host name where the implementation resolves names. */
  readonly host: string;
  readonly port: number;
  /** Share of new requests relative to the others: an integer from 0 (none) to 256; 1 if absent. */
  readonly weight?: number;
}

export interface RouteTarget {
  /** The environment's fencing epoch. */
  readonly epoch: number;
  readonly backends: readonly Backend[];
}

export interface TrafficReading {
  /** In force now, asked of the real thing. Ids, ports and weights are left as far as the thing keeps them. */
  readonly backends: readonly Backend[];
}

export interface TrafficSwitch {
  /** For display only: nothing branches on it. */
  readonly kind: string;
  apply(target: RouteTarget, signal: AbortSignal): Promise<void>;
  read(signal: AbortSignal): Promise<TrafficReading>;
  close(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

export const MAX_BACKENDS = 1024;
export const MAX_WEIGHT = 256;
const HOST_NAME = /^(?=.{1,253}$)[a-z0-9]([a-z0-9_-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9_-]*[a-z0-9])?)*\.?$/i;
const BACKEND_ID = /^[\x21-\x7e]{1,200}$/;

/** `host:port`, with brackets around an IPv6 address. */
export function addressOf(backend: Pick<Backend, "host" | "port">): string {
  return `${backend.host.includes(":") ? `[${backend.host}]` : backend.host}:${backend.port}`;
}

function faultOf(backend: Backend): string | undefined {
  if (!BACKEND_ID.test(backend.id)) return "its id must be 1 to 200 printable characters without spaces";
  if (isIP(backend.host) === 0 && !HOST_NAME.test(backend.host))
    return "its host is no IP address or host name";
  if (!Number.isInteger(backend.port) || backend.port < 1 || backend.port > 65_535)
    return "its port is not an integer from 1 to 65535";
  const weight = backend.weight ?? 1;
  if (!Number.isInteger(weight) || weight < 0 || weight > MAX_WEIGHT)
    return `its weight is not an integer from 0 to ${MAX_WEIGHT}`;
  return undefined;
}

/** Throws `input.invalid` for a target that no implementation may apply. */
export function checkTarget(target: RouteTarget): void {
  const invalid = (what: string): never => {
    throw new OperationalError("input.invalid", `the route's target is refused: ${what}`);
  };
  if (!Number.isSafeInteger(target.epoch) || target.epoch < 0)
    invalid("its epoch is not a whole number from 0 up");
  if (target.backends.length === 0) invalid("it has no backends; a route is never switched to nothing");
  if (target.backends.length > MAX_BACKENDS) invalid(`it has more than ${MAX_BACKENDS} backends`);
  const ids = new Set<string>();
  const addresses = new Set<string>();
  for (const backend of target.backends) {
    const fault = faultOf(backend);
    if (fault !== undefined) invalid(`backend ${JSON.stringify(backend.id)}: ${fault}`);
    if (ids.has(backend.id)) invalid(`two backends have the id ${backend.id}`);
    if (addresses.has(addressOf(backend))) invalid(`two backends have the address ${addressOf(backend)}`);
    ids.add(backend.id);
    addresses.add(addressOf(backend));
  }
  if (target.backends.every((backend) => backend.weight === 0)) invalid("every backend has weight 0");
}

/** Throws `state.fenced` when a later epoch has been applied. */
export function checkEpoch(route: string, epoch: number, last: number | null): void {
  if (last === null || epoch >= last) return;
  throw new OperationalError(
    "state.fenced",
    `route ${route} was switched under epoch ${last}; epoch ${epoch} is over and may not switch it back`,
  );
}

/** The same backends in the same order, as a route's readers see them. */
export function sameBackends(a: readonly Backend[], b: readonly Backend[]): boolean {
  return (
    a.length === b.length &&
    a.every((one, index) => {
      const other = b[index];
      return (
        other !== undefined &&
        one.id === other.id &&
        addressOf(one) === addressOf(other) &&
        (one.weight ?? 1) === (other.weight ?? 1)
      );
    })
  );
}
