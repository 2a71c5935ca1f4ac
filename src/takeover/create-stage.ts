/** What a run works on, made of what the environment's runtime has. */
import { readCatalogue, refreshCatalogue } from "#environment/catalogue.ts";
import type { JournalFollower } from "#environment/follow-journal.ts";
import { recordGap } from "#environment/gaps.ts";
import type { Journal } from "#journal/contract.ts";
import { environmentId, siteId } from "#kernel/ids.ts";
import { countDrained } from "#standby/count-drained.ts";
import { loadPairings } from "#standby/pairings.ts";
import { remainingQueue } from "#standby/remaining-queue.ts";
import { mainScope } from "#takeover/commit-exchange.ts";
import { translationFor } from "#takeover/converge-site.ts";
import { readEnvironment } from "#takeover/environment-record.ts";
import type { Stage } from "#takeover/stage.ts";

export type StagePorts = Pick<
  Stage,
  "settings" | "store" | "clock" | "random" | "log" | "director" | "disks" | "site" | "hostOf"
> & {
  readonly journal: Journal;
  readonly follower: JournalFollower;
};

export function createStage(ports: StagePorts): Stage {
  const { settings, store, journal, follower, clock, random, log, director, disks, site, hostOf } = ports;
  const id = environmentId(settings.id);
  const stage: Stage = {
    settings,
    store,
    clock,
    random,
    log,
    director,
    disks,
    site,
    hostOf,
    catalogue: async (name) => {
      const known = await readCatalogue(store, siteId(name));
      if (known !== undefined) return known.catalogue;
      return refreshCatalogue(store, siteId(name), site(name).cloud, clock, AbortSignal.timeout(10_000));
    },
    record: () => readEnvironment(store, id),
    settledState: async (signal) => {
      await follower.waitFor(await journal.head(id), signal);
      return follower.state;
    },
    openCommands: () => journal.open(id),
    abandon: async ({ intent }) => {
      const operation = `${intent.service}:${intent.operation}`;
      const message = `${operation} by ${intent.principal} was sent but never acknowledged before the site was lost: look whether it took effect when the site is back`;
      await journal.recordOutcome(id, intent.id, {
        result: "refused",
        status: null,
        errorCode: "Understudy.Unacknowledged",
        changes: [],
        gaps: [{ code: "outcome.unknown", severity: "note", operation, message }],
        resolvedLater: true,
        at: clock.now(),
      });
    },
    countDrained: async (from, to) => {
      const translation = await translationFor(stage, { from, to, sizing: "fit", nameSuffix: "" });
      const pairings = await loadPairings(store, { environment: id, scope: mainScope });
      const { state } = follower;
      const { keys } = remainingQueue(
        { desired: [...state.resources()], pairings, translation },
        site(to).limiter.figures,
      );
      return countDrained(journal, id, state, keys);
    },
    recordGaps: async (gaps) => {
      if (gaps.length === 0) return;
      await store.commit(gaps.map((gap) => recordGap(store, id, gap, clock.now())));
    },
  };
  return stage;
}
