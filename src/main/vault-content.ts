/** The content of a disk, out of a vault: into a file, to standard output, or served by NBD. */
import { resolve } from "node:path";
import type { Writable } from "node:stream";
import { formatTime } from "#cli/table.ts";
import type { Terminal } from "#cli/terminal.ts";
import type { WantedContent, WrittenDiskView } from "#cli/vault-tools.ts";
import { systemClock } from "#kernel/clock.ts";
import type { Log } from "#kernel/log.ts";
import { speakProgress } from "#main/care-for-vault.ts";
import type { BlockReader } from "#model/block-device.ts";
import { singleExport } from "#nbd/export-provider.ts";
import { startNbdServer } from "#nbd/nbd-server.ts";
import { openOverlayDevice } from "#nbd/overlay-device.ts";
import { openFromStore, type StoreMoment } from "#recovery/open-from-store.ts";
import { inNewFile, writeDiskFile } from "#recovery/write-disk-file.ts";
import type { Vault } from "#vault/open-vault.ts";
import type { PointId } from "#vault/point-manifest.ts";
import { formatNbdUri } from "#wire/nbd/nbd-uri.ts";

async function openContent(vault: Vault, wanted: WantedContent, signal: AbortSignal): Promise<StoreMoment> {
  if ("volume" in wanted) {
    const { volume, atMs, environment } = wanted;
    return openFromStore(vault, { volume, atMs, group: environment }, signal);
  }
  const point = wanted.point as PointId;
  const { volumeId, timeMs, sequence } = await vault.pointFacts(point, signal);
  const reader = await vault.openPoint(point, { signal });
  return {
    reader,
    volume: volumeId,
    timeMs,
    sequence: sequence ?? null,
    from: "point",
    point,
    earlier: null,
    [Symbol.asyncDispose]: () => reader[Symbol.asyncDispose](),
  };
}

/** Says on stderr which moment it is: whoever asked for one wants to know how near this came. */
function sayWhich(terminal: Terminal, { volume, timeMs, sequence, earlier, from, point }: StoreMoment): void {
  const write = sequence === null ? "" : `, write ${sequence}`;
  const source = from === "log" ? "the write log" : `point ${point ?? ""}`;
  terminal.err(
    `${volume} as at ${formatTime(timeMs)} (${new Date(timeMs).toISOString()}${write}), from ${source}`,
  );
  if (earlier !== null) terminal.err(`an earlier moment than was asked for: ${earlier}`);
}

export async function catContent(
  terminal: Terminal,
  vault: Vault,
  wanted: WantedContent,
  output: string | undefined,
  signal: AbortSignal,
): Promise<WrittenDiskView> {
  await using content = await openContent(vault, wanted, signal);
  sayWhich(terminal, content);
  const { reader, volume, timeMs, sequence, from, point, earlier } = content;
  const onProgress = speakProgress(terminal, systemClock, "written");
  if (output === undefined) await copyOut(reader, process.stdout, signal, onProgress);
  else if (point === null) await writeDiskFile(reader, output, { signal, onProgress });
  else await inNewFile(output, (part) => vault.restoreToFile(point, part, { signal, onProgress }));
  return { volume, timeMs, sequence, from, sizeBytes: reader.sizeBytes, earlier };
}

export async function mountContent(
  terminal: Terminal,
  log: Log,
  vault: Vault,
  wanted: WantedContent,
  { socket, writable }: { readonly socket: string; readonly writable?: string },
  signal: AbortSignal,
): Promise<void> {
  await using content = await openContent(vault, wanted, signal);
  sayWhich(terminal, content);
  const { reader, volume, sequence, timeMs, point } = content;
  // Changes that were kept belong to exactly this content, and are refused over another.
  const baseId = point ?? `${volume} after write ${sequence} at ${timeMs}`;
  const overlay =
    writable === undefined
      ? undefined
      : await openOverlayDevice({ folder: resolve(writable), base: reader, baseId });
  try {
    const path = resolve(socket);
    await using _server = await startNbdServer({
      listen: { kind: "unix", path },
      provider: singleExport("", overlay ?? reader, { description: baseId }),
      clock: systemClock,
      log,
    });
    terminal.out(formatNbdUri({ address: { kind: "unix", path }, exportName: "", tls: false }));
    await aborted(signal);
  } finally {
    await overlay?.[Symbol.asyncDispose]();
  }
}

const pieceBytes = 1024 * 1024;

async function copyOut(
  reader: BlockReader,
  sink: Writable,
  signal: AbortSignal,
  onProgress: (doneBytes: number, totalBytes: number) => void,
): Promise<void> {
  for (let at = 0; at < reader.sizeBytes; at += pieceBytes) {
    const length = Math.min(pieceBytes, reader.sizeBytes - at);
    const piece = await reader.read(at, length, signal);
    await new Promise<void>((done, failed) => {
      sink.write(piece, (error) => (error ? failed(error) : done()));
    });
    onProgress(at + length, reader.sizeBytes);
  }
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
}
