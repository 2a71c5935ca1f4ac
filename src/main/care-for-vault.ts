/** Verification, garbage collection and repair of a vault, with words on how far they are. */
import type { LostRangeView, VaultRepairView, VaultVerifyView } from "#cli/vault-tools.ts";
import type { Terminal } from "#cli/terminal.ts";
import { formatBytes } from "#cli/table.ts";
import { OperationalError } from "#kernel/errors.ts";
import { type Clock, systemClock } from "#kernel/clock.ts";
import type { Log } from "#kernel/log.ts";
import { systemRandom } from "#kernel/random.ts";
import type { BlockReader } from "#model/block-device.ts";
import { openNbdClient } from "#nbd/nbd-client.ts";
import { keptGroups, listKeptPoints } from "#recovery/kept-points.ts";
import { shippedGroups, verifyShippedLog } from "#recovery/shipped-logs.ts";
import { openFileSource } from "#vault/file-source.ts";
import type { Vault } from "#vault/open-vault.ts";
import type { LostRange } from "#vault/verify-vault.ts";
import { parseNbdUri } from "#wire/nbd/nbd-uri.ts";

const sayEveryMs = 2000;

/** A line on stderr now and then: for what takes longer than a moment. */
export function speakProgress(
  terminal: Terminal,
  clock: Clock,
  what: string,
): (doneBytes: number, totalBytes: number) => void {
  let saidMs = clock.monotonicMs();
  return (doneBytes, totalBytes) => {
    if (clock.monotonicMs() - saidMs < sayEveryMs || totalBytes === 0) return;
    saidMs = clock.monotonicMs();
    const percent = Math.floor((100 * doneBytes) / totalBytes);
    terminal.err(`${what}: ${formatBytes(doneBytes)} of ${formatBytes(totalBytes)} (${percent} %)`);
  };
}

/** Damage is an answer here, not an error. */
export async function verifyWhole(
  terminal: Terminal,
  vault: Vault,
  depth: "quick" | "full",
  signal: AbortSignal,
): Promise<VaultVerifyView> {
  const { storage, keys } = vault.context;
  const onProgress = speakProgress(terminal, systemClock, "verified");
  const report = await vault.verify({ depth, onProgress, signal });
  const logs = [];
  for (const group of await shippedGroups(storage, signal)) {
    terminal.err(`reading the write log of ${group}`);
    logs.push(await verifyShippedLog({ storage, group, logKey: keys.log, depth, signal }));
  }
  const findings = [...report.findings, ...logs.flatMap((one) => one.findings)];
  for (const group of await keptGroups(vault, signal)) {
    findings.push(...(await listKeptPoints(vault, group, signal)).damaged);
  }
  return {
    depth,
    whole: findings.length === 0 && report.lost.length === 0,
    findings,
    lost: report.lost.map(lostView),
    points: report.points,
    packs: report.packs,
    bytes: report.bytes + logs.reduce((sum, { bytes }) => sum + bytes, 0),
    logs: logs.map(({ group, segments }) => ({ group, segments })),
  };
}

/** Mends, and says what is still lost after it: as found by reading again. */
export async function repairFrom(
  terminal: Terminal,
  vault: Vault,
  source: { readonly volume: string; readonly from: string } | undefined,
  log: Log,
  signal: AbortSignal,
): Promise<VaultRepairView> {
  const disk = source === undefined ? undefined : await openSource(source.from, log, signal);
  try {
    const sources = new Map<string, BlockReader>();
    if (disk !== undefined && source !== undefined) sources.set(source.volume, disk);
    const onProgress = speakProgress(terminal, systemClock, "verified before the repair");
    const { found, ...mended } = await vault.repair({ sources, onProgress, signal });
    const after = await vault.verify({ depth: "full", signal });
    return { ...mended, findings: found.findings, lost: after.lost.map(lostView) };
  } finally {
    await disk?.[Symbol.asyncDispose]();
  }
}

/** A file, a block device, or an export. */
async function openSource(from: string, log: Log, signal: AbortSignal): Promise<BlockReader> {
  if (!/^nbds?(\+unix)?:\/\//iu.test(from)) return openFile(from);
  const { address, exportName } = parseNbdUri(from);
  return openNbdClient({ address, exportName, clock: systemClock, random: systemRandom, log }, signal);
}

async function openFile(path: string): Promise<BlockReader> {
  try {
    return await openFileSource(path);
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    if (code === undefined || cause instanceof OperationalError) throw cause;
    throw new OperationalError(
      code === "ENOENT" ? "not_found" : "disk.failing",
      code === "ENOENT" ? `there is no ${path}` : `${path} cannot be read (${code})`,
      { cause },
    );
  }
}

function lostView({ point, offset, length, object }: LostRange): LostRangeView {
  return { point, offset, length, object };
}
