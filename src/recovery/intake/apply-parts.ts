/**
 * Writes staged parts into the write log as a host's mirror would, so that what follows (points, retention, recovery) knows no
 * difference. While it does, the disks are being synchronised: no moment between two passes can be named.
 */
import type { BlockDevice } from "#model/block-device.ts";
import type { VaultDesk } from "#recovery/vault-desk.ts";
import { decodePart, type PassRecord, type PassVolume } from "#wire/agent/pass-part.ts";
import type { PartStage } from "./part-stage.ts";

export interface ApplyOptions {
  readonly desk: VaultDesk;
  readonly group: string;
  readonly epoch: number;
  readonly openDisk: (uri: string, signal: AbortSignal) => Promise<BlockDevice>;
  readonly stage: PartStage;
  readonly numbers: readonly number[];
  /** The disks whose content is one moment's once all is written; undefined: it is not yet. */
  readonly whole: readonly PassVolume[] | undefined;
}

/** Written again, it is as it was. Errors: `state.fenced` once the environment has moved, those of the log. */
export async function applyParts(options: ApplyOptions, signal: AbortSignal): Promise<void> {
  const { stage, numbers, whole, desk, group } = options;
  const disks = new OpenDisks(options);
  try {
    // The first write of each begins its synchronisation: no disk may be whole again before the last one has begun.
    const begun = new Set<string>();
    for await (const { volume, record } of recordsOf(stage, numbers, signal)) {
      if (begun.has(volume.volume)) continue;
      begun.add(volume.volume);
      await writeRecord(await disks.of(volume, signal), record, signal);
    }
    for await (const { volume, record } of recordsOf(stage, numbers, signal))
      await writeRecord(await disks.of(volume, signal), record, signal);
    if (whole === undefined) return;
    const before = await desk.volumes(group, signal);
    for (const volume of whole) {
      const known = before.find((one) => one.volume === volume.volume);
      if (known?.state !== "continuous") await disks.of(volume, signal);
    }
    const sessions = await desk.volumes(group, signal);
    for (const name of disks.names) {
      const session = sessions.find(({ volume }) => volume === name)?.session ?? 0;
      await desk.markWhole(group, name, session, signal);
    }
  } finally {
    await disks[Symbol.asyncDispose]();
  }
}

async function* recordsOf(
  stage: PartStage,
  numbers: readonly number[],
  signal: AbortSignal,
): AsyncGenerator<{ readonly volume: PassVolume; readonly record: PassRecord }> {
  for (const number of numbers) {
    signal.throwIfAborted();
    const { header, records } = decodePart(await stage.read(number));
    for (const record of records) {
      const volume = header.volumes[record.volume];
      if (volume !== undefined) yield { volume, record };
    }
  }
}

async function writeRecord(
  disk: BlockDevice,
  { offset, length, data }: PassRecord,
  signal: AbortSignal,
): Promise<void> {
  if (data === null) await disk.trim(offset, length, { signal });
  else await disk.write(offset, data, { signal });
}

/** Connected when first asked for, and no sooner: a connection is a session of its own at the desk. */
class OpenDisks implements AsyncDisposable {
  readonly #options: ApplyOptions;
  readonly #disks = new Map<string, BlockDevice>();

  constructor(options: ApplyOptions) {
    this.#options = options;
  }

  get names(): readonly string[] {
    return [...this.#disks.keys()];
  }

  async of(volume: PassVolume, signal: AbortSignal): Promise<BlockDevice> {
    const present = this.#disks.get(volume.volume);
    if (present !== undefined) return present;
    const disk = await openCapture(this.#options, volume, signal);
    this.#disks.set(volume.volume, disk);
    return disk;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const disk of this.#disks.values()) await disk[Symbol.asyncDispose]();
  }
}

/** The volume's content in the log, as it is now. Errors: `state.fenced`. */
export async function openCapture(
  { desk, group, epoch, openDisk }: Pick<ApplyOptions, "desk" | "group" | "epoch" | "openDisk">,
  volume: PassVolume,
  signal: AbortSignal,
): Promise<BlockDevice> {
  const { uri } = await desk.protect(group, { ...volume, epoch }, signal);
  return openDisk(uri, signal);
}
