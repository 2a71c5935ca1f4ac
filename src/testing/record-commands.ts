import type { Journal } from "#journal/contract.ts";
import type { EnvironmentId } from "#kernel/ids.ts";
import { commandId } from "#kernel/ids.ts";
import type { Change } from "#model/change.ts";
import type { Gap } from "#model/gap.ts";
import type { Store } from "#store/contract.ts";

/** The row without which a journal refuses commands. */
export async function putEnvironment(store: Store, environment: EnvironmentId): Promise<void> {
  const row = { active_site: "active", standby_site: "standby", phase: "protected", epoch: 1, updated_at: 0 };
  await store.commit([
    {
      query: store.db
        .insertInto("environment")
        .values({ id: environment, ...row })
        .compile(),
    },
  ]);
}

let serial = 0;

/** One applied command with these changes, as a gateway would have recorded it. */
export async function recordCommand(
  journal: Journal,
  environment: EnvironmentId,
  changes: readonly Change[],
  gaps: readonly Gap[] = [],
): Promise<number> {
  serial += 1;
  const id = commandId(`command-${serial}`);
  await journal.recordIntent({
    id,
    environment,
    service: "ec2",
    operation: "Test",
    input: {},
    token: null,
    principal: "tester",
    epoch: 1,
    at: serial,
  });
  const { position } = await journal.recordOutcome(environment, id, {
    result: "applied",
    status: 200,
    errorCode: null,
    changes,
    gaps,
    resolvedLater: false,
    at: serial,
  });
  return position ?? 0;
}
