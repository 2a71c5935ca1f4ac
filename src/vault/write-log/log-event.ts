/** What happens to a group besides writes. Events are records of the log, so that every moment knows its volumes' state. */

/** Why content is copied whole or in part, rather than written by the guest. */
const synchronisingReasons = [
  "first_copy",
  "bitmap_lost",
  "interruption",
  "size_changed",
  "capture_stopped",
  "target_changed",
  "requested",
  "snapshot",
  "taken_again",
] as const;
export type SynchronisingReason = (typeof synchronisingReasons)[number];

/** `released`: no longer captured; it has no part in the group's moments from then on. */
export type VolumeState = "synchronising" | "continuous" | "released";

/**
 * Content that comes as a whole picture of the disk at one instant, a cloud's snapshot, rather than write by write: nothing of it counts
 * before all of it is here.
 */
export interface VolumeImage {
  /** The cloud's own id of it. */
  readonly id: string;
  /** The instant that it shows, in milliseconds since the epoch. */
  readonly atMs: number;
  /** The image whose content was here before; null: this one came whole. */
  readonly base: string | null;
  /** Up to here the content is the image's. */
  readonly throughBytes: number;
}

export interface LogVolume {
  readonly index: number;
  readonly id: string;
  readonly sizeBytes: number;
  readonly state: VolumeState;
  /** While synchronising: why. */
  readonly reason: SynchronisingReason;
  /** Sequence of the event that brought this state. */
  readonly since: number;
  /** Sequence of the event that added the volume: before it there is nothing of it, and its content then was all zeroes. */
  readonly added: number;
  /** While continuous: the image that the content is. While synchronising: the one that it is to be. Absent: writes came by themselves. */
  readonly image?: VolumeImage;
}

/**
 * It is not whole for the first time yet, or for the first time since it was released: until it is, it is in no moment, and keeps no other
 * volume from being in one.
 */
export function isJoining({ state, reason }: Pick<LogVolume, "state" | "reason">): boolean {
  return state === "synchronising" && (reason === "first_copy" || reason === "taken_again");
}

export type Consistency = "crash" | "application";

export type LogEvent =
  | { readonly type: "volume_added"; readonly index: number; readonly id: string; readonly sizeBytes: number }
  | { readonly type: "volume_released"; readonly index: number }
  | { readonly type: "volume_resized"; readonly index: number; readonly sizeBytes: number }
  | {
      readonly type: "synchronising";
      readonly index: number;
      readonly reason: SynchronisingReason;
      /** Said again as more of it has come. */
      readonly image?: VolumeImage;
    }
  | {
      readonly type: "continuous";
      readonly index: number;
      readonly movedBytes: number;
      readonly image?: VolumeImage;
    }
  | {
      readonly type: "cut";
      readonly name: string;
      readonly consistency: Consistency;
      /** Why it is not application-consistent although that was asked for. */
      readonly reason?: string;
    }
  /**
   * The log was brought back from the store: what came between the record before this one and this one is lost, so that no volume is what its
   * host has made of it until it was copied whole.
   */
  | { readonly type: "resumed" };

const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;
const isReason = (value: unknown): value is SynchronisingReason =>
  (synchronisingReasons as readonly unknown[]).includes(value);

/** Undefined: it is none. */
function imageOf(value: unknown): VolumeImage | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  const { id, atMs, base, throughBytes } = value as Partial<Record<keyof VolumeImage, unknown>>;
  if (typeof id !== "string" || !isCount(atMs) || !isCount(throughBytes)) return undefined;
  return base === null || typeof base === "string" ? { id, atMs, base, throughBytes } : undefined;
}

function parseObject(bytes: Buffer): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(bytes.toString("utf8"));
    return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}

export const encodeEvent = (event: LogEvent): Buffer => Buffer.from(JSON.stringify(event));

export function decodeEvent(bytes: Buffer): LogEvent | undefined {
  const value = parseObject(bytes);
  if (value === undefined) return undefined;
  const { type, index, id, sizeBytes, reason, movedBytes, name, consistency } = value;
  const image = imageOf(value["image"]);
  if (value["image"] !== undefined && image === undefined) return undefined;
  const shown = image === undefined ? {} : { image };
  if (type === "resumed") return { type };
  if (type === "cut") {
    const sound =
      typeof name === "string" &&
      (consistency === "crash" || consistency === "application") &&
      (reason === undefined || typeof reason === "string");
    return sound ? { type, name, consistency, ...(reason === undefined ? {} : { reason }) } : undefined;
  }
  if (!isCount(index)) return undefined;
  if (type === "volume_added" && typeof id === "string" && isCount(sizeBytes))
    return { type, index, id, sizeBytes };
  if (type === "volume_resized" && isCount(sizeBytes)) return { type, index, sizeBytes };
  if (type === "volume_released") return { type, index };
  if (type === "synchronising" && isReason(reason)) return { type, index, reason, ...shown };
  if (type === "continuous" && isCount(movedBytes)) return { type, index, movedBytes, ...shown };
  return undefined;
}

/** Changes the table in place. False: the event does not fit the table, which only damage explains. */
export function applyEvent(table: Map<number, LogVolume>, event: LogEvent, sequence: number): boolean {
  if (event.type === "cut") return true;
  if (event.type === "resumed") {
    loseTouch(table, sequence);
    return true;
  }
  const volume = table.get(event.index);
  if (event.type === "volume_added") {
    if (volume !== undefined) return false;
    const { index, id, sizeBytes } = event;
    const fresh = { state: "synchronising", reason: "first_copy", since: sequence, added: sequence } as const;
    table.set(index, { index, id, sizeBytes, ...fresh });
    return true;
  }
  if (volume === undefined) return false;
  if (event.type === "volume_resized") {
    table.set(event.index, { ...volume, sizeBytes: event.sizeBytes });
    return true;
  }
  const { image: _before, ...rest } = volume;
  const since = sequence;
  if (event.type === "volume_released") table.set(event.index, { ...rest, state: "released", since });
  else {
    const shown = event.image === undefined ? {} : { image: event.image };
    const reason = event.type === "synchronising" ? event.reason : volume.reason;
    table.set(event.index, { ...rest, state: event.type, reason, since, ...shown });
  }
  return true;
}

/** Nothing of what their hosts have sent is known to be here: each is to be copied whole. Said again, it is as it was. */
export function loseTouch(table: Map<number, LogVolume>, since: number): void {
  for (const volume of table.values()) {
    if (volume.state === "released") continue;
    const { image: _lost, ...rest } = volume;
    const reason = isJoining(volume) ? volume.reason : "target_changed";
    table.set(volume.index, { ...rest, state: "synchronising", reason, since });
  }
}

export interface Opening {
  readonly group: string;
  readonly volumes: readonly LogVolume[];
}

export const encodeOpening = (opening: Opening): Buffer => Buffer.from(JSON.stringify(opening));

export function decodeOpening(bytes: Buffer): Opening | undefined {
  const value = parseObject(bytes);
  if (value === undefined || typeof value["group"] !== "string" || !Array.isArray(value["volumes"]))
    return undefined;
  const volumes = value["volumes"] as Partial<LogVolume>[];
  const sound = volumes.every(
    (volume) =>
      typeof volume === "object" &&
      volume !== null &&
      isCount(volume.index) &&
      typeof volume.id === "string" &&
      isCount(volume.sizeBytes) &&
      (volume.state === "synchronising" || volume.state === "continuous" || volume.state === "released") &&
      isReason(volume.reason) &&
      isCount(volume.since) &&
      isCount(volume.added) &&
      (volume.image === undefined || imageOf(volume.image) !== undefined),
  );
  return sound ? { group: value["group"], volumes: volumes as LogVolume[] } : undefined;
}
