/**
 * Calls of a peer that is given only so much time: one that hangs (stopped, stuck on its storage, behind a forwarded socket in a
 * partition) is one that does not answer, whatever it is asked.
 */
import type { DiskHost } from "#cloud/disk-host.ts";
import { type Clock, deadlineAfter } from "#kernel/clock.ts";
import { OperationalError } from "#kernel/errors.ts";
import type { VaultDesk } from "#recovery/vault-desk.ts";

/** In milliseconds; null: as long as it takes. */
type Limits<Peer> = { readonly [Name in keyof Peer]?: number | null };

const hostLimits: Limits<DiskHost> = {
  captures: 10_000,
  seeds: 10_000,
  // What is said to be durable when it returns may be much.
  endExport: 10 * 60_000,
};
const deskLimits: Limits<VaultDesk> = {
  volumes: 10_000,
  status: 10_000,
  markWhole: 10_000,
  // A point costs what changed since the one before: of a disk that is new, all of it.
  keepPoint: null,
};
/** The others wait for machines, or for the store. */
const otherLimitMs = 60_000;

export function hostWithin(host: DiskHost, site: string, clock: Clock): DiskHost {
  return answersWithin(host, hostLimits, clock, (call, ms) => {
    const message = `the host agent of "${site}" has not answered for ${ms / 1000} s (${call}): see whether it runs`;
    return new OperationalError("machine.failing", message, { outcome: "unknown" });
  });
}

export function deskWithin(desk: VaultDesk, clock: Clock): VaultDesk {
  return answersWithin(desk, deskLimits, clock, (call, ms) => {
    const message = `the vault's process has not answered for ${ms / 1000} s (${call}): see whether it runs`;
    return new OperationalError("api.unreachable", message, { outcome: "unknown" });
  });
}

type Call = (...input: unknown[]) => Promise<unknown>;

/** Of a peer whose methods all take a signal as their last argument. */
function answersWithin<Peer extends object>(
  peer: Peer,
  limits: Limits<Peer>,
  clock: Clock,
  silence: (call: string, ms: number) => OperationalError,
): Peer {
  return new Proxy(peer, {
    get(target, name) {
      const value: unknown = Reflect.get(target, name);
      if (typeof name === "symbol" || typeof value !== "function") {
        return typeof value === "function" ? (value.bind(target) as unknown) : value;
      }
      const limitMs = limits[name as keyof Peer];
      if (limitMs === null) return value.bind(target) as unknown;
      return limited(value.bind(target) as Call, limitMs ?? otherLimitMs, clock, (ms) => silence(name, ms));
    },
  });
}

function limited(call: Call, limitMs: number, clock: Clock, silence: (ms: number) => OperationalError): Call {
  return async (...input) => {
    const signal = input.at(-1) as AbortSignal;
    const patience = deadlineAfter(clock, limitMs);
    const given = [...input.slice(0, -1), AbortSignal.any([signal, patience.signal])];
    try {
      return await call(...given);
    } catch (error) {
      signal.throwIfAborted();
      if (patience.signal.aborted) throw silence(limitMs);
      throw error;
    } finally {
      patience.cancel();
    }
  };
}
