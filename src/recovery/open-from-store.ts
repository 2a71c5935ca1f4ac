/**
 * A disk as it was at a moment, with nothing but the store and the key: from what was shipped of the write log, over the points. For the
 * day on which there is no control plane, no vault process and no log folder.
 */
import { isOperational, OperationalError, publicMessage } from "#kernel/errors.ts";
import type { BlockReader } from "#model/block-device.ts";
import { shippedGroups } from "#recovery/shipped-logs.ts";
import type { Vault } from "#vault/open-vault.ts";
import type { PointId, PointManifest } from "#vault/point-manifest.ts";
import { openLogArchive } from "#vault/write-log/open-log-archive.ts";
import { type LogHistory, type MomentReader, openMoment } from "#vault/write-log/open-moment.ts";
import { vaultPoints } from "#vault/write-log/vault-points.ts";
import { lastWholeMoment } from "#vault/write-log/whole-moments.ts";

export interface WantedMoment {
  readonly volume: string;
  /** In milliseconds since the epoch; null: the last that the store holds. */
  readonly atMs: number | null;
  /** The group whose log is meant; undefined: whichever holds the volume. */
  readonly group?: string | undefined;
}

export interface StoreMoment extends AsyncDisposable {
  readonly reader: BlockReader;
  readonly volume: string;
  /** The last write that it holds. */
  readonly timeMs: number;
  readonly sequence: number | null;
  /** The log gives any moment; a point is the last one before it that is still kept. */
  readonly from: "log" | "point";
  readonly point: PointId | null;
  /** Null: it is the very moment. Else why it is an earlier one. */
  readonly earlier: string | null;
}

/**
 * The last state of the volume not after the moment. Errors: `not_found` (no such volume, nothing that old), `state.conflict` (its copy was
 * not whole then, and no point is), `vault.damaged`: then the message names the point that can be taken instead.
 */
export async function openFromStore(
  vault: Vault,
  wanted: WantedMoment,
  signal: AbortSignal,
): Promise<StoreMoment> {
  const point = await newestPoint(vault, wanted, signal);
  let logged: { readonly moment: LoggedMoment | undefined; readonly why: string | null };
  try {
    logged = await findInLogs(vault, wanted, signal);
  } catch (error) {
    if (!isOperational(error, "vault.damaged")) throw error;
    const instead = point === undefined ? "" : `: take the point before it, ${point.id}`;
    throw new OperationalError("vault.damaged", `${publicMessage(error)}${instead}`, { cause: error });
  }
  const { moment, why } = logged;
  if (moment !== undefined && moment.timeMs >= (point?.timeMs ?? 0)) return moment;
  await moment?.[Symbol.asyncDispose]();
  if (point === undefined) {
    throw new OperationalError(
      "not_found",
      `the store holds nothing of ${wanted.volume} ${describeWanted(wanted)}: ${why ?? 'see "understudy vault status"'}`,
    );
  }
  const reader = await vault.openPoint(point.id, { signal });
  return {
    reader,
    volume: wanted.volume,
    timeMs: point.timeMs,
    sequence: point.sequence ?? null,
    from: "point",
    point: point.id,
    earlier: wanted.atMs === null || wanted.atMs === point.timeMs ? null : (why ?? "the log ends before it"),
    [Symbol.asyncDispose]: () => reader[Symbol.asyncDispose](),
  };
}

function describeWanted({ atMs }: WantedMoment): string {
  return atMs === null ? "that is whole" : `at or before ${new Date(atMs).toISOString()}`;
}

/** One that a disk was whole at. */
async function newestPoint(
  vault: Vault,
  { volume, atMs }: WantedMoment,
  signal: AbortSignal,
): Promise<PointManifest | undefined> {
  const names = await vault.listPoints(volume, signal);
  for (const { id, timeMs } of names.toReversed()) {
    if (atMs !== null && timeMs > atMs) continue;
    const facts = await vault.pointFacts(id, signal);
    if (facts.attributes["log.whole"] !== "no") return facts;
  }
  return undefined;
}

/** Content that came as images of the disk is as old as its image, whenever it came: then the group's moments are looked through. */
async function openAt(
  archive: LogHistory,
  volume: string,
  atMs: number | null,
  signal: AbortSignal,
): Promise<{ readonly reader: MomentReader; readonly timeMs: number; readonly earlier: string | null }> {
  let refused: OperationalError | undefined;
  try {
    const wanted = { timeMs: atMs ?? archive.lastRecord.timeMs };
    const reader = await openMoment(archive, volume, wanted, { signal });
    if (reader.volume.image === undefined) return { reader, timeMs: reader.timeMs, earlier: null };
    await reader[Symbol.asyncDispose]();
  } catch (error) {
    if (!isOperational(error, "state.conflict")) throw error;
    refused = error;
  }
  // While it was copied again, also after a log was brought back: the moment before that.
  const whole = await lastWholeMoment(archive, atMs ?? undefined, signal);
  if (whole === undefined) throw refused ?? nothingWhole(volume);
  const reader = await openMoment(archive, volume, { sequence: whole.sequence }, { signal });
  const isImage = reader.volume.image !== undefined;
  const earlier = refused === undefined || isImage ? null : publicMessage(refused);
  return { reader, timeMs: whole.timeMs, earlier };
}

function nothingWhole(volume: string): OperationalError {
  return new OperationalError("not_found", `no whole picture of ${volume} has come by then`);
}

type LoggedMoment = StoreMoment & { readonly from: "log" };

async function findInLogs(
  vault: Vault,
  wanted: WantedMoment,
  signal: AbortSignal,
): Promise<{ readonly moment: LoggedMoment | undefined; readonly why: string | null }> {
  const groups =
    wanted.group === undefined ? await shippedGroups(vault.context.storage, signal) : [wanted.group];
  let why: string | null = null;
  for (const group of groups) {
    try {
      return { moment: await openLogged(vault, group, wanted, signal), why: null };
    } catch (error) {
      if (!isOperational(error, "not_found") && !isOperational(error, "state.conflict")) throw error;
      why = publicMessage(error);
    }
  }
  return { moment: undefined, why };
}

async function openLogged(
  vault: Vault,
  group: string,
  { volume, atMs }: WantedMoment,
  signal: AbortSignal,
): Promise<LoggedMoment> {
  const { storage, keys } = vault.context;
  const archive = await openLogArchive({
    storage,
    group,
    logKey: keys.log,
    points: vaultPoints(vault),
    signal,
  });
  try {
    const last = archive.lastRecord;
    const { reader, timeMs, earlier } = await openAt(archive, volume, atMs, signal);
    const beyond = atMs !== null && atMs > last.timeMs;
    return {
      reader,
      volume,
      timeMs,
      sequence: reader.sequence,
      from: "log",
      point: null,
      earlier: beyond
        ? `what was shipped of the log ends at ${new Date(last.timeMs).toISOString()}`
        : earlier,
      async [Symbol.asyncDispose]() {
        await reader[Symbol.asyncDispose]();
        await archive[Symbol.asyncDispose]();
      },
    };
  } catch (error) {
    await archive[Symbol.asyncDispose]();
    throw error;
  }
}
