import { z } from "zod";
import type { Id } from "#kernel/ids.ts";
import { OperationalError } from "#kernel/errors.ts";
import { BLOCK_BYTES, LARGEST_DISK, type MapEntry } from "./block-ref.ts";
import { seal, sealKinds, unseal } from "./sealed-object.ts";
import { damaged } from "./vault-damage.ts";
import type { VaultKeys } from "./vault-keys.ts";

/** `<volume, encoded>/<time>-<random>`: names the manifest's object, so that opening needs no list. */
export type PointId = Id<"point">;

export interface PointManifest {
  readonly id: PointId;
  readonly volumeId: string;
  readonly sizeBytes: number;
  readonly root: MapEntry;
  /** The moment that the point shows, in milliseconds since the epoch. */
  readonly timeMs: number;
  /** `crash`: what a machine would find after losing power. `application`: the guest had frozen its file systems. */
  readonly consistency: "crash" | "application";
  /** Position in the group's one sequence of writes, where the point comes from a write log. */
  readonly sequence?: number;
  readonly base?: PointId;
  readonly attributes: Readonly<Record<string, string>>;
  readonly cost: PointCost;
}

/** What writing it took, in bytes. */
export interface PointCost {
  /** Read from the source. */
  readonly readBytes: number;
  /** Of them, not known before. */
  readonly newBytes: number;
  /** What the store grew by, without index and manifest. */
  readonly storedBytes: number;
}

export interface PointName {
  readonly id: PointId;
  readonly volumeId: string;
  readonly timeMs: number;
}

const uint = z.int().min(0);
const hex = z.string().regex(/^[0-9a-f]{40}$/);
const ref = z.strictObject({
  id: hex,
  pack: hex,
  offset: uint.max(2 ** 32 - 1),
  storedLength: uint.max(2 ** 24),
  plainLength: uint.max(4 * BLOCK_BYTES),
  codec: uint.max(1),
});
const manifestSchema = z.strictObject({
  version: z.literal(1),
  id: z.string(),
  volumeId: z.string().min(1).max(64),
  sizeBytes: z.int().min(1).max(LARGEST_DISK),
  blockBytes: z.literal(BLOCK_BYTES),
  root: z.union([
    z.strictObject({ kind: z.enum(["hole", "zero"]) }),
    z.strictObject({ kind: z.literal("blob"), ref }),
  ]),
  timeMs: z.int(),
  consistency: z.enum(["crash", "application"]),
  sequence: uint.optional(),
  base: z.string().optional(),
  attributes: z.record(z.string().max(128), z.string().max(65_536)),
  cost: z.strictObject({ readBytes: uint, newBytes: uint, storedBytes: uint }),
});

export const pointObject = (id: PointId): string => `points/${id}`;

/** `random` is 16 hexadecimal digits. */
export function makePointId(volumeId: string, timeMs: number, random: string): PointId {
  const time = new Date(timeMs).toISOString().replaceAll(/[-:]/g, "");
  return `${encodeVolume(volumeId)}/${time}-${random}` as PointId;
}

const nameShape = /^([A-Za-z0-9_.-]+)\/(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d\.\d{3})Z-[0-9a-f]{16}$/;

/** What a point's name says by itself; undefined for what is no point's name. */
export function parsePointId(text: string): PointName | undefined {
  const parts = nameShape.exec(text);
  if (parts === null) return undefined;
  const [, volume = "", year, month, day, hour, minute, second] = parts;
  const timeMs = Date.parse(`${year}-${month}-${day}T${hour}:${minute}:${second}Z`);
  const volumeId = decodeVolume(volume);
  if (volumeId === undefined || Number.isNaN(timeMs)) return undefined;
  return { id: text as PointId, volumeId, timeMs };
}

/** As a folder of `points/`: every byte outside `A-Za-z0-9.-` (and `.`, `-` in front) as `_xx`. */
export function encodeVolume(volumeId: string): string {
  const bytes = Buffer.from(volumeId);
  if (bytes.length === 0 || bytes.length > 64)
    throw new OperationalError(
      "input.invalid",
      `a volume's id has 1 to 64 bytes: ${JSON.stringify(volumeId.slice(0, 80))}`,
    );
  return Array.from(bytes, (byte, at) => {
    const char = String.fromCodePoint(byte);
    const plain = at === 0 ? /[A-Za-z0-9]/ : /[A-Za-z0-9.-]/;
    return plain.test(char) ? char : `_${byte.toString(16).padStart(2, "0")}`;
  }).join("");
}

function decodeVolume(text: string): string | undefined {
  const parts = text.match(/_[0-9a-f]{2}|[A-Za-z0-9.-]/g) ?? [];
  if (parts.join("") !== text) return undefined;
  const bytes = parts.map((part) =>
    part.length === 3 ? Number.parseInt(part.slice(1), 16) : part.charCodeAt(0),
  );
  const volumeId = Buffer.from(bytes).toString("utf8");
  return volumeId.length > 0 && encodeVolume(volumeId) === text ? volumeId : undefined;
}

export function encodeManifest(keys: VaultKeys, manifest: PointManifest): Buffer {
  const document = { version: 1, blockBytes: BLOCK_BYTES, ...manifest };
  return seal(keys, sealKinds.point, pointObject(manifest.id), Buffer.from(JSON.stringify(document)));
}

/** Throws `vault.damaged`. */
export function decodeManifest(keys: VaultKeys, id: PointId, bytes: Buffer): PointManifest {
  const name = pointObject(id);
  const plain = unseal(keys, sealKinds.point, name, bytes);
  let document: unknown;
  try {
    document = JSON.parse(plain.toString("utf8"));
  } catch (error) {
    throw damaged(name, "is not a manifest", error);
  }
  const parsed = manifestSchema.safeParse(document);
  if (!parsed.success || parsed.data.id !== id) throw damaged(name, "is not a manifest", parsed.error);
  const { version: _version, blockBytes: _blockBytes, ...manifest } = parsed.data;
  return manifest as PointManifest;
}
