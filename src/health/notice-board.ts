/**
 * What every witness last said. Ages are by the receiver's clock: a witness with a wrong clock can neither hurry
 * nor delay a failover. Transitions are durable; repetitions only refresh memory.
 */
import { OperationalError } from "#kernel/errors.ts";
import type { Clock } from "#kernel/clock.ts";
import type { Notice, NoticeCode } from "#model/notice.ts";
import type { Statement, Store } from "#store/contract.ts";

export interface Observation {
  readonly witness: string;
  readonly probe: string;
  readonly code: NoticeCode;
  readonly raised: boolean;
  readonly detail: string;
  /** When this state began, receiver's clock. */
  readonly since: number;
  /** When it was last confirmed, receiver's clock. */
  readonly confirmedAt: number;
}

export interface NoticeBoard {
  /** Rejects with `auth.forbidden` for a witness that the environment does not name. */
  post(notices: readonly Notice[]): Promise<void>;
  observations(environment: string): readonly Observation[];
  /** Forgets the past of an environment, so that an old outage cannot trigger anew. */
  clear(environment: string): Promise<void>;
}

/** A witness looks at a handful of things; one that names ever new ones is broken or hostile. */
const mostPerWitness = 1000;

export interface NoticeBoardOptions {
  readonly store: Store;
  readonly clock: Clock;
  /** Environment -> the witnesses that may report on it. */
  readonly witnesses: ReadonlyMap<string, ReadonlySet<string>>;
  /** Environment -> after how long without a confirmation an observation says nothing, in milliseconds. */
  readonly staleAfterMs: ReadonlyMap<string, number>;
  /** Called after every report, also without a transition: time alone may complete a trigger. */
  readonly onReport: (environment: string) => void;
}

export function createNoticeBoard(options: NoticeBoardOptions): NoticeBoard {
  const { store, clock } = options;
  const boards = new Map<string, Map<string, Observation>>();

  function boardOf(environment: string): Map<string, Observation> {
    const board = boards.get(environment) ?? new Map<string, Observation>();
    boards.set(environment, board);
    return board;
  }

  function upsert(notice: Notice, observation: Observation): Statement {
    const row = {
      environment: notice.environment,
      witness: notice.witness,
      probe: notice.probe,
      code: notice.code,
      raised: notice.raised ? 1 : 0,
      detail: notice.detail.slice(0, 500),
      since: observation.since,
      at: observation.confirmedAt,
    };
    const { raised, detail, since, at } = row;
    return {
      query: store.db
        .insertInto("notice")
        .values(row)
        .onConflict((conflict) =>
          conflict
            .columns(["environment", "witness", "probe", "code"])
            .doUpdateSet({ raised, detail, since, at }),
        )
        .compile(),
    };
  }

  function refuseFlood(board: ReadonlyMap<string, Observation>, witness: string): void {
    let count = 0;
    for (const one of board.values()) if (one.witness === witness) count += 1;
    if (count < mostPerWitness) return;
    throw new OperationalError(
      "input.invalid",
      `witness "${witness}" reports on more than ${mostPerWitness} different things: it may only report on the probes that it was given`,
    );
  }

  return {
    async post(notices) {
      const transitions: Statement[] = [];
      const touched = new Set<string>();
      for (const notice of notices) {
        if (!options.witnesses.get(notice.environment)?.has(notice.witness)) {
          throw new OperationalError(
            "auth.forbidden",
            `"${notice.witness}" is not a witness of environment "${notice.environment}": name it under \`witnesses\``,
          );
        }
        const board = boardOf(notice.environment);
        const key = `${notice.witness}|${notice.probe}|${notice.code}`;
        const before = board.get(key);
        if (before === undefined) refuseFlood(board, notice.witness);
        const now = clock.now();
        const changed = before?.raised !== notice.raised;
        const { witness, probe, code, raised, detail } = notice;
        // What a witness did not see while it was silent it can't vouch for: "without a break" begins anew.
        const staleAfterMs = options.staleAfterMs.get(notice.environment) ?? 0;
        const unbroken = before !== undefined && !changed && now - before.confirmedAt <= staleAfterMs;
        const since = unbroken ? before.since : now;
        const observation: Observation = { witness, probe, code, raised, detail, since, confirmedAt: now };
        board.set(key, observation);
        touched.add(notice.environment);
        if (changed && (before !== undefined || raised)) transitions.push(upsert(notice, observation));
      }
      if (transitions.length > 0) await store.commit(transitions);
      for (const environment of touched) options.onReport(environment);
    },
    observations: (environment) => [...(boards.get(environment)?.values() ?? [])],
    async clear(environment) {
      boards.delete(environment);
      await store.commit([
        { query: store.db.deleteFrom("notice").where("environment", "=", environment).compile() },
      ]);
    },
  };
}
