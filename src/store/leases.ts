/**
 * Exclusive roles with a rising fencing epoch, in the store that they guard. Whoever acts under a lease passes its
 * epoch on, so that what it left behind can be told from what its successor does.
 */
import type { Clock } from "#kernel/clock.ts";
import { OperationalError } from "#kernel/errors.ts";
import type { Store } from "./contract.ts";

export interface LeaseRequest {
  /** The role, e.g. `engine`. */
  readonly name: string;
  /** Who asks, unique to this process, in words that help an operator find it: `host-a pid 4711`. */
  readonly holder: string;
  readonly ttlMs: number;
  readonly clock: Clock;
  /**
   * The caller knows that the former holder is gone, so its time need not run out. So it is with the embedded store,
   * whose writer lock ends with its process.
   */
  readonly formerHolderGone?: boolean;
}

export interface Lease {
  readonly name: string;
  readonly holder: string;
  readonly epoch: number;
  readonly ttlMs: number;
  /** Milliseconds since the Unix epoch; past it, stop acting. */
  readonly expiresAt: number;
}

function lost(lease: Lease): OperationalError {
  return new OperationalError(
    "state.fenced",
    `${lease.holder} no longer holds the lease ${lease.name} (epoch ${lease.epoch}): another process took it over; this one must stop`,
  );
}

/** Errors: `state.conflict` naming the holder while another holds it. */
export async function acquireLease(store: Store, request: LeaseRequest): Promise<Lease> {
  const { name, holder, ttlMs, clock } = request;
  const row = await store.db.selectFrom("lease").selectAll().where("name", "=", name).executeTakeFirst();
  const now = clock.now();
  const taken = (): OperationalError =>
    new OperationalError(
      "state.conflict",
      row === undefined
        ? `the lease ${name} was taken by another process at the same moment: only one may hold it`
        : `the lease ${name} is held by ${row.holder} until ${new Date(row.expires_at).toISOString()}: stop it, or wait until then`,
    );
  if (
    row !== undefined &&
    row.expires_at > now &&
    row.holder !== holder &&
    request.formerHolderGone !== true
  ) {
    throw taken();
  }
  const lease: Lease = { name, holder, epoch: (row?.epoch ?? 0) + 1, ttlMs, expiresAt: now + ttlMs };
  const values = { holder, epoch: lease.epoch, expires_at: lease.expiresAt };
  const query =
    row === undefined
      ? store.db
          .insertInto("lease")
          .values({ name, ...values })
          .onConflict((on) => on.column("name").doNothing())
          .compile()
      : store.db
          .updateTable("lease")
          .set(values)
          .where("name", "=", name)
          .where("epoch", "=", row.epoch)
          .where("holder", "=", row.holder)
          .compile();
  await store.commit([{ query, expectRows: 1, onMismatch: taken }]);
  return lease;
}

/** Errors: `state.fenced` if another has taken it meanwhile. A lease that ran out and that nobody took is renewed. */
export async function renewLease(store: Store, lease: Lease, clock: Clock): Promise<Lease> {
  const expiresAt = clock.now() + lease.ttlMs;
  const query = store.db
    .updateTable("lease")
    .set({ expires_at: expiresAt })
    .where("name", "=", lease.name)
    .where("epoch", "=", lease.epoch)
    .where("holder", "=", lease.holder)
    .compile();
  await store.commit([{ query, expectRows: 1, onMismatch: () => lost(lease) }]);
  return { ...lease, expiresAt };
}

/** The row stays, with its epoch: the next holder's is higher. Errors: `state.fenced` if another has it. */
export async function releaseLease(store: Store, lease: Lease): Promise<void> {
  const query = store.db
    .updateTable("lease")
    .set({ expires_at: 0 })
    .where("name", "=", lease.name)
    .where("epoch", "=", lease.epoch)
    .where("holder", "=", lease.holder)
    .compile();
  await store.commit([{ query, expectRows: 1, onMismatch: () => lost(lease) }]);
}
