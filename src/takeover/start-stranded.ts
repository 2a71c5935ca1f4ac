/**
 * Servers of the old side that could not follow were stopped with it when it was fenced. They have no counterpart that a
 * convergence would bring up to date, so a return starts them by themselves.
 */
import { isOperational } from "#kernel/errors.ts";
import type { ResourceId } from "#kernel/ids.ts";
import { readStranded } from "#takeover/commit-exchange.ts";
import { readServers } from "#takeover/route-targets.ts";
import type { Site, Stage } from "#takeover/stage.ts";

export interface StartedStranded {
  readonly started: readonly ResourceId[];
  /** No longer there. */
  readonly gone: readonly ResourceId[];
}

/** Errors: `cloud.*` for what the site refuses for now. Starting what runs changes nothing. */
export async function startStranded(stage: Stage, site: Site, signal: AbortSignal): Promise<StartedStranded> {
  const stranded = await readStranded(stage.store, stage.settings.id);
  const wanted = stranded.flatMap((one) =>
    one.kind === "server" && one.spec.power === "running" ? [one.id] : [],
  );
  const standing = await readServers(site.cloud, wanted, signal);
  const started: ResourceId[] = [];
  const gone: ResourceId[] = [];
  for (const id of wanted) {
    const status = standing.get(id)?.status;
    if (status === "ready") continue;
    try {
      const start = (): Promise<void> => site.cloud.update("server", id, { power: "running" }, signal);
      await site.limiter.run(start, { priority: 1, signal });
      started.push(id);
    } catch (error) {
      if (!isOperational(error, "cloud.not_found")) throw error;
      gone.push(id);
    }
  }
  return { started, gone };
}
