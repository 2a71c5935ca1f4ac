import { z } from "zod";
import { OperationalError, isOperational } from "#kernel/errors.ts";
import { seal, sealKinds, unseal } from "./sealed-object.ts";
import { damaged } from "./vault-damage.ts";
import type { VaultContext } from "./vault-context.ts";

/** How long a lease holds without renewal. */
export const LEASE_MS = 10 * 60_000;
/** Clocks of those who use one vault may differ by so much. */
export const SKEW_MS = 5 * 60_000;

const leaseSchema = z.strictObject({
  kind: z.enum(["read", "write"]),
  /** A point's id for `read`, a session for `write`. */
  subject: z.string(),
  startedAtMs: z.int(),
  expiresAtMs: z.int(),
});
export type LeaseFacts = z.infer<typeof leaseSchema> & { readonly id: string };

export interface Lease {
  readonly startedAtMs: number;
  /** Throws `state.fenced` unless the lease holds for another `marginMs`. */
  check(marginMs?: number): void;
  release(): Promise<void>;
}

type LeaseContext = Pick<VaultContext, "storage" | "keys" | "clock" | "random" | "log">;

/** Durable when it returns, unless the signal aborts first; from then on renewed in the background until it is released. */
export async function holdLease(
  context: LeaseContext,
  kind: "read" | "write",
  subject: string,
  signal?: AbortSignal,
): Promise<Lease> {
  const { clock, storage, keys } = context;
  const id = `${kind}-${context.random.hex(16)}`;
  const startedAtMs = clock.now();
  const over = new AbortController();
  let number = 0;
  let expiresAtMs = 0;
  const put = async (until: AbortSignal | undefined): Promise<void> => {
    const name = leaseName(id, number);
    const expires = clock.now() + LEASE_MS;
    const facts = { kind, subject, startedAtMs, expiresAtMs: expires };
    await storage.put(name, [seal(keys, sealKinds.lease, name, Buffer.from(JSON.stringify(facts)))], until);
    expiresAtMs = expires;
  };
  const keep = async (): Promise<void> => {
    for (;;) {
      await clock.sleep(LEASE_MS / 3, over.signal);
      number += 1;
      try {
        await put(over.signal);
        await storage.delete(leaseName(id, number - 1));
      } catch (error) {
        if (over.signal.aborted) return;
        // `check` speaks up when it has expired; until then the next try may succeed.
        context.log.warn({ lease: id, error: String(error) }, "a lease could not be renewed");
      }
    }
  };
  await put(signal);
  const kept = keep().catch(() => {});
  return {
    startedAtMs,
    check(marginMs = 0) {
      if (clock.now() + marginMs >= expiresAtMs)
        throw new OperationalError(
          "state.fenced",
          "the lease on the vault has expired: what it protected may be gone; open it again",
        );
    },
    async release() {
      over.abort();
      await kept;
      // What cannot be removed expires.
      for (const one of [number - 1, number])
        if (one >= 0) await storage.delete(leaseName(id, one)).catch(() => {});
    },
  };
}

/** Leases that may still hold, each by its latest renewal. One that cannot be read counts as damage, never as absent. */
export async function readLeases(context: LeaseContext, signal?: AbortSignal): Promise<LeaseFacts[]> {
  for (;;) {
    const latest = new Map<string, { number: number; name: string }>();
    for await (const { name } of context.storage.list("leases/", signal)) {
      const [, id, text] = /^leases\/([a-z]+-[0-9a-f]+)\/(\d+)$/.exec(name) ?? [];
      if (id === undefined || text === undefined) continue;
      const number = Number(text);
      if ((latest.get(id)?.number ?? -1) < number) latest.set(id, { number, name });
    }
    try {
      const held: LeaseFacts[] = [];
      for (const [id, { name }] of latest) {
        const facts = decodeLease(
          name,
          unseal(context.keys, sealKinds.lease, name, await context.storage.get(name, undefined, signal)),
        );
        if (context.clock.now() <= facts.expiresAtMs + SKEW_MS) held.push({ id, ...facts });
      }
      return held;
    } catch (error) {
      // Renewed or released meanwhile: look again.
      if (!isOperational(error, "not_found")) throw error;
    }
  }
}

/** Removes the objects of leases that expired long ago. */
export async function removeExpiredLeases(context: LeaseContext, signal?: AbortSignal): Promise<void> {
  const longAgo = context.clock.now() - LEASE_MS - 2 * SKEW_MS;
  for await (const { name, storedAtMs } of context.storage.list("leases/", signal))
    if (storedAtMs < longAgo - 24 * 3_600_000) await context.storage.delete(name, signal);
}

const leaseName = (id: string, number: number): string => `leases/${id}/${number}`;

function decodeLease(name: string, plain: Buffer): z.infer<typeof leaseSchema> {
  try {
    return leaseSchema.parse(JSON.parse(plain.toString("utf8")));
  } catch (error) {
    throw damaged(name, "is not a lease", error);
  }
}
