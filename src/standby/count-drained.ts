import type { Journal } from "#journal/contract.ts";
import type { EnvironmentId } from "#kernel/ids.ts";
import type { EnvironmentState } from "#model/environment-state.ts";
import { resourceKey } from "#model/environment-state.ts";

export interface DrainedCount {
  /** Commands with a final outcome. */
  readonly commands: number;
  /** Those of which the standby has everything that is left of them. */
  readonly drained: number;
}

const pageSize = 1000;

/**
 * How many of the journal's commands the standby reflects. A command is drained when nothing that it changed is still
 * outstanding: it was carried out there, or later commands have made it void. Reads the whole journal.
 * @param outstanding keys of the remaining queue
 */
export async function countDrained(
  journal: Journal,
  environment: EnvironmentId,
  state: Pick<EnvironmentState, "get">,
  outstanding: ReadonlySet<string>,
): Promise<DrainedCount> {
  let commands = 0;
  let drained = 0;
  for (let after = 0; ;) {
    const page = await journal.readChanges(environment, after, pageSize);
    for (const { position, changes } of page) {
      after = position;
      commands += 1;
      const left = changes.some(({ kind, id }) => {
        // Aliases lead to the resource that the queue knows.
        const key = resourceKey(kind, state.get(kind, id)?.id ?? id);
        return outstanding.has(key) || outstanding.has(`${key}/public`);
      });
      if (!left) drained += 1;
    }
    if (page.length < pageSize) return { commands, drained };
  }
}
