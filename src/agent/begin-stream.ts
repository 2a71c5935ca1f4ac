/** The start of a stream: the vault says what it has of the disks, so that nothing of it is sent again. */
import { OperationalError } from "#kernel/errors.ts";
import { invariant } from "#kernel/invariant.ts";
import type { Log } from "#kernel/log.ts";
import type { Random } from "#kernel/random.ts";
import { maxLeaves } from "#wire/agent/leaf-runs.ts";
import { passBlockBytes, type PassVolume } from "#wire/agent/pass-part.ts";
import type { AgentState } from "./agent-state.ts";
import type { IntakeClient } from "./intake-client.ts";

export interface BeginOptions {
  readonly state: AgentState;
  readonly client: IntakeClient;
  readonly random: Random;
  readonly log: Log;
}

/**
 * Goes on where it was broken off. `volumes`: as large as the disks are now. Errors: `state.fenced` where the environment has moved since
 * the stream before, those of the intake.
 */
export async function beginStream(
  { state, client, random, log }: BeginOptions,
  volumes: readonly PassVolume[],
  signal: AbortSignal,
): Promise<void> {
  const names = volumes.map(({ volume }) => volume);
  const known = state.record;
  const same = known !== null && known.volumes.join("\n") === names.join("\n");
  if (same && known.ready) return;
  if (!same) await state.beginAnew(random.hex(16), names);
  const { record } = state;
  invariant(record !== null, "a stream was made");
  const { stream, after } = record;
  const { epoch, blockBytes } = await client.begin(stream, after, volumes, signal);
  if (blockBytes !== passBlockBytes) {
    throw new OperationalError(
      "store.version",
      `the vault keeps blocks of ${blockBytes} bytes, this agent sends such of ${passBlockBytes}: take the same version on both sides`,
    );
  }
  if (record.epoch === null) await state.remember({ epoch });
  for (const volume of volumes) await compare(state, client, volume, signal);
  await state.remember({ ready: true });
  log.info({ stream, epoch, volumes: names }, "the vault has told what it has of the disks");
}

async function compare(
  state: AgentState,
  client: IntakeClient,
  { volume, sizeBytes }: PassVolume,
  signal: AbortSignal,
): Promise<void> {
  const blocks = Math.ceil(sizeBytes / passBlockBytes);
  const leaves = state.leavesOf(volume);
  for (;;) {
    const { record } = state;
    invariant(record !== null, "a stream was made");
    const { stream, compared } = record;
    const first = compared[volume] ?? 0;
    if (first >= blocks) return;
    const count = Math.min(maxLeaves, blocks - first);
    await leaves.writeRuns(first, await client.leaves(stream, volume, first, count, signal));
    await leaves.sync();
    await state.remember({ compared: { ...compared, [volume]: first + count } });
  }
}
