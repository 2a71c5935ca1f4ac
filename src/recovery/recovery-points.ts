/**
 * Recovery points: one position in the journal together with one moment of all kept disks, and what the environment was made of then.
 * Between them any moment of the log's window can be named as well; a point is what remains when the window has passed. The vault
 * keeps them, and lets go of them by its policy; the table here follows it, and is made anew from it when it was lost.
 */
import type { DiskHost } from "#cloud/disk-host.ts";
import type { Clock } from "#kernel/clock.ts";
import { isOperational, OperationalError, publicMessage } from "#kernel/errors.ts";
import type { EnvironmentId } from "#kernel/ids.ts";
import type { Log } from "#kernel/log.ts";
import type { Random } from "#kernel/random.ts";
import type { Evidence } from "#model/evidence.ts";
import { recoveredVolumes } from "#model/recovered-volumes.ts";
import type { ResourceOf, Tags } from "#model/resource.ts";
import type { DiskContext, DiskMoment } from "#recovery/disk-mover.ts";
import { isFirstCopy, lineageOf } from "#recovery/kept-volumes.ts";
import { packConfiguration, unpackConfiguration } from "#recovery/kept-points.ts";
import { type Consistency, quietMoment } from "#recovery/quiet-moment.ts";
import type { KeptPointFacts, VaultDesk } from "#recovery/vault-desk.ts";
import type { Statement, Store } from "#store/contract.ts";

export interface RecoveryPoint {
  readonly id: string;
  /** When its last write was captured, in milliseconds since the epoch. */
  readonly at: number;
  readonly sequence: number;
  readonly journalPosition: number;
  readonly consistency: "crash" | "application";
  /** Why it is only crash-consistent, where more was asked for. */
  readonly consistencyNote: string | null;
  /** Where the environment was then: whose ids the volumes bear. */
  readonly site: string;
  readonly resources: number;
  /** Id of each volume -> its name in the vault. */
  readonly volumes: Readonly<Record<string, string>>;
  /** Null: it was never booted and probed. */
  readonly verifiedAt: number | null;
}

export interface RecoveryPointsOptions {
  readonly context: DiskContext;
  readonly select: Tags;
  readonly desk: VaultDesk;
  readonly store: Store;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly everyMs: number;
  readonly hostOf: (site: string) => DiskHost | undefined;
  /** What points of the policy are to be. */
  readonly consistency: "crash" | "application";
  /** File systems stand still no longer than this, in milliseconds. */
  readonly freezeLimitMs: number;
}

const retryMs = 5000;
/** A verdict is in the vault, and what the vault let go of is not listed any more, after at most so long. */
const followMs = 30_000;

export class RecoveryPoints {
  readonly #options: RecoveryPointsOptions;
  /** One point at a time. */
  #recording: Promise<unknown> = Promise.resolve();

  constructor(options: RecoveryPointsOptions) {
    this.#options = options;
  }

  /** Newest first. */
  async list(): Promise<readonly RecoveryPoint[]> {
    return listRecoveryPoints(this.#options.store, this.#options.context.environment);
  }

  /** Until the signal aborts. Nothing is recorded while a run moves the environment, or while nothing has changed. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, log, everyMs, context } = this.#options;
    while (!signal.aborted) {
      let waitMs = retryMs;
      try {
        await this.#follow(signal);
        const [newest] = await this.list();
        const due = (newest?.at ?? 0) + everyMs - clock.now();
        if (due > 0) waitMs = Math.min(due, followMs);
        else if (
          context.epoch() !== undefined &&
          (await this.#inTurn(this.#options.consistency, signal)) !== null
        )
          waitMs = Math.min(everyMs, followMs);
      } catch (error) {
        if (signal.aborted) return;
        if (!isOperational(error)) throw error;
        log.debug({ code: error.code }, `no recovery point now: ${publicMessage(error)}`);
      }
      await clock.sleep(waitMs, signal).catch(() => {});
    }
  }

  /**
   * A point of now. Errors: `state.conflict` while a run moves the environment, `not_found` where no disk is kept or none of them is
   * whole yet.
   */
  async create(consistency: "crash" | "application", signal: AbortSignal): Promise<RecoveryPoint> {
    const { environment, epoch } = this.#options.context;
    if (epoch() === undefined) {
      throw movedMeanwhile(environment);
    }
    const id = await this.#inTurn(consistency, signal);
    const found = (await this.list()).find((point) => point.id === id);
    if (found !== undefined) return found;
    throw new OperationalError(
      "not_found",
      `"${environment}" has no disk that is kept: see \`protect\` in understudy.yaml`,
    );
  }

  #inTurn(consistency: "crash" | "application", signal: AbortSignal): Promise<string | null> {
    const recorded = this.#recording.then(() => this.#record(consistency, signal));
    this.#recording = recorded.catch(() => {});
    return recorded;
  }

  /** Answers the point's id: of a new one, or of the last one where nothing has changed since. Null: no disk is kept. */
  async #record(wanted: "crash" | "application", signal: AbortSignal): Promise<string | null> {
    const { context, desk, store, random, select } = this.#options;
    const { environment } = context;
    const epoch = context.epoch();
    const kept = recoveredVolumes(context.state(), select);
    if (kept.length === 0) return null;
    const last = await desk.moment(environment, null, signal);
    const [newest] = await this.list();
    const same = newest?.sequence === last.sequence && newest.journalPosition === context.position();
    if (same && (wanted === "crash" || newest.consistency === "application")) return newest.id;
    const { sequence, at, ...rests } =
      wanted === "crash" ? { ...last, consistency: wanted, why: null } : await this.#quiet(kept, signal);
    const partial = new Set(
      (await desk.volumes(environment, signal)).flatMap((one) => (isFirstCopy(one) ? [one.volume] : [])),
    );
    // All of it of one instant, right after the moment, and of the side that the moment is of.
    if (context.epoch() !== epoch) throw movedMeanwhile(environment);
    const site = context.servingSite();
    const position = context.position();
    const resources = [...context.state().resources()];
    const volumes: Record<string, string> = {};
    for (const { id } of recoveredVolumes(context.state(), select)) {
      const lineage = await lineageOf(store, environment, site, id);
      // A first copy that goes on is in no moment: what protects the disks names it, and the others have their point.
      if (!partial.has(lineage)) volumes[id] = lineage;
    }
    const note = rests.consistency === "crash" ? rests.why : null;
    const point = {
      id: `point-${random.hex(4)}`,
      at,
      sequence,
      journalPosition: position,
      consistency: rests.consistency,
      ...(note === null ? {} : { consistencyNote: note }),
      site,
      volumes,
    };
    // The vault first: what is listed here can be recovered to, also when the log's window has passed.
    const configuration = packConfiguration(resources);
    await desk.keepPoint(environment, { ...point, resources: resources.length, configuration }, signal);
    await store.commit([insertPoint(store, environment, { ...point, resources, verdict: null })]);
    return point.id;
  }

  #quiet(kept: readonly ResourceOf<"volume">[], signal: AbortSignal): Promise<DiskMoment & Consistency> {
    const { context, desk, hostOf, freezeLimitMs: limitMs, clock, log } = this.#options;
    return quietMoment(
      {
        state: context.state(),
        kept: new Set(kept.map(({ id }) => id)),
        host: hostOf(context.servingSite()),
        limitMs,
        moment: () => desk.moment(context.environment, null, signal),
        clock,
        log,
      },
      signal,
    );
  }

  /** What was seen when it was booted and probed last. Errors: `not_found`. */
  async evidence(id: string, signal: AbortSignal): Promise<Evidence> {
    const { context, desk, store } = this.#options;
    const { environment } = context;
    const row = await store.db
      .selectFrom("recovery_point")
      .select("evidence")
      .where("environment", "=", environment)
      .where("id", "=", id)
      .executeTakeFirst();
    if (row === undefined)
      throw new OperationalError("not_found", `"${environment}" has no recovery point ${id}`);
    // Lost with this process's records, the vault has it still.
    return JSON.parse(row.evidence ?? (await desk.keptEvidence(environment, id, signal))) as Evidence;
  }

  /** Makes the table say what the vault says: it outlives this process's records, and decides what is kept. */
  async #follow(signal: AbortSignal): Promise<void> {
    const { context, desk, store } = this.#options;
    const { environment } = context;
    const kept = new Map((await desk.keptPoints(environment, signal)).map((point) => [point.id, point]));
    const rows = await readRows(store, environment);
    for (const { id, at, verdict, evidence } of rows) {
      const inVault = kept.get(id);
      const found = evidence === null ? null : (JSON.parse(evidence) as Evidence);
      if (inVault !== undefined && found !== null && (inVault.evidenceAt ?? -1) < found.at) {
        await desk.keepEvidence(environment, { id, at }, { at: found.at, text: evidence ?? "" }, signal);
      }
      if (inVault === undefined) await store.commit([deletePoint(store, environment, id)]);
      else if (verdict !== null && inVault.verdict === null) {
        const { at: verdictAt, summary } = JSON.parse(verdict) as { at: number; summary: string };
        await desk.keepVerdict(environment, { id, at }, { at: verdictAt, summary }, signal);
      }
    }
    const here = new Set(rows.map(({ id }) => id));
    for (const point of kept.values()) {
      if (here.has(point.id)) continue;
      const packed = await desk.keptConfiguration(environment, point.id, signal);
      const { resources: _count, disks: _disks, evidenceAt: _at, ...facts }: KeptPointFacts = point;
      await store.commit([
        insertPoint(store, environment, { ...facts, resources: unpackConfiguration(packed) }),
      ]);
    }
  }
}

function movedMeanwhile(environment: EnvironmentId): OperationalError {
  return new OperationalError(
    "state.conflict",
    `"${environment}" is in a run: a point of it is taken when that has ended`,
  );
}

function insertPoint(
  store: Store,
  environment: EnvironmentId,
  point: Omit<KeptPointFacts, "resources" | "disks" | "evidenceAt"> & {
    readonly resources: readonly unknown[];
  },
): Statement {
  const { id, at, sequence, journalPosition, consistency, site, resources, volumes, verdict } = point;
  const { consistencyNote = null } = point;
  return {
    query: store.db
      .insertInto("recovery_point")
      .values({
        environment,
        id,
        at,
        sequence,
        journal_position: journalPosition,
        consistency,
        consistency_note: consistencyNote,
        site,
        resources: JSON.stringify(resources),
        volumes: JSON.stringify(volumes),
        verified_at: verdict?.at ?? null,
        verdict: verdict === null ? null : JSON.stringify(verdict),
        evidence: null,
      })
      .onConflict((conflict) => conflict.doNothing())
      .compile(),
  };
}

function deletePoint(store: Store, environment: EnvironmentId, id: string): Statement {
  return {
    query: store.db
      .deleteFrom("recovery_point")
      .where("environment", "=", environment)
      .where("id", "=", id)
      .compile(),
  };
}

function readRows(store: Store, environment: EnvironmentId) {
  return store.db
    .selectFrom("recovery_point")
    .selectAll()
    .where("environment", "=", environment)
    .orderBy("at", "desc")
    .orderBy("id")
    .execute();
}

/** Null: there is none. */
export async function newestPointAt(store: Store, environment: EnvironmentId): Promise<number | null> {
  const row = await store.db
    .selectFrom("recovery_point")
    .select((select) => select.fn.max("at").as("at"))
    .where("environment", "=", environment)
    .executeTakeFirst();
  return row?.at ?? null;
}

/** Newest first. */
export async function listRecoveryPoints(
  store: Store,
  environment: EnvironmentId,
): Promise<readonly RecoveryPoint[]> {
  const rows = await readRows(store, environment);
  return rows.map((row) => ({
    id: row.id,
    at: row.at,
    sequence: row.sequence,
    journalPosition: row.journal_position,
    consistency: row.consistency === "application" ? "application" : "crash",
    consistencyNote: row.consistency_note,
    site: row.site,
    resources: (JSON.parse(row.resources) as unknown[]).length,
    volumes: JSON.parse(row.volumes) as Record<string, string>,
    verifiedAt: row.verified_at,
  }));
}

/** What a drill has seen of the environment as it was at this moment. */
export function keepEvidence(
  store: Store,
  environment: EnvironmentId,
  sequence: number,
  evidence: Evidence,
): Statement {
  return {
    query: store.db
      .updateTable("recovery_point")
      .set({ evidence: JSON.stringify(evidence) })
      .where("environment", "=", environment)
      .where("sequence", "=", sequence)
      .compile(),
  };
}

/** A drill has booted and probed the environment as it was at this moment: points of the same moment are verified by it. */
export function markVerified(
  store: Store,
  environment: EnvironmentId,
  sequence: number,
  verdict: { readonly at: number; readonly summary: string },
): Statement {
  return {
    query: store.db
      .updateTable("recovery_point")
      .set({ verified_at: verdict.at, verdict: JSON.stringify(verdict) })
      .where("environment", "=", environment)
      .where("sequence", "=", sequence)
      .compile(),
  };
}
