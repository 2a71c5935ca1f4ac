/**
 * Recovery points as sealed objects of the vault, so that they outlive the control plane's database: `recovery/GROUP/TIME-ID/point` says what
 * the point ties together and which points of the vault hold its disks, `.../verdict-TIME` that it was booted and probed. Each is
 * written once. The point's object is the last thing written of it and the first removed: one that is listed is whole.
 */
import { gunzipSync, gzipSync } from "node:zlib";
import { z } from "zod";
import { isOperational, OperationalError, publicMessage } from "#kernel/errors.ts";
import type { Vault } from "#vault/open-vault.ts";
import { seal, sealKinds, unseal } from "#vault/sealed-object.ts";
import type { VaultKeys } from "#vault/vault-keys.ts";

export const keptPointSchema = z.strictObject({
  id: z.string().regex(/^[a-z0-9-]{1,60}$/u),
  /** When its last write was captured, in milliseconds since the epoch. */
  at: z.int().nonnegative(),
  sequence: z.int().nonnegative(),
  journalPosition: z.int().nonnegative(),
  consistency: z.enum(["crash", "application"]),
  /** Why it is only crash-consistent, where more was asked for. */
  consistencyNote: z.string().max(2000).optional(),
  /** Where the environment was then: whose ids the volumes bear. */
  site: z.string().max(100),
  resources: z.int().nonnegative(),
  /** Id of each volume -> its name in the vault. */
  volumes: z.record(z.string(), z.string()),
  /** What the environment was made of then: see `packConfiguration`. */
  configuration: z.string(),
});
export const keptVerdictSchema = z.strictObject({
  at: z.int().nonnegative(),
  summary: z.string().max(10_000),
});

export type KeptPoint = z.output<typeof keptPointSchema>;
export type KeptVerdict = z.output<typeof keptVerdictSchema>;

const storedSchema = keptPointSchema.extend({
  format: z.literal(1),
  /** Name of each volume in the vault -> the point that holds it. */
  disks: z.record(z.string(), z.string()),
});

export interface StoredPoint extends KeptPoint {
  readonly disks: Readonly<Record<string, string>>;
  /** Null: it was never booted and probed. */
  readonly verdict: KeptVerdict | null;
  /** When the evidence was found that is kept of it last; null: none is. */
  readonly evidenceAt: number | null;
}

export interface StoredPoints {
  /** Newest first. */
  readonly points: readonly StoredPoint[];
  /** What could not be read: the other points are none the worse for it. */
  readonly damaged: readonly { readonly object: string; readonly problem: string }[];
}

/** Small enough for one message, also with thousands of resources. */
export function packConfiguration(resources: readonly unknown[]): string {
  return gzipSync(JSON.stringify(resources)).toString("base64");
}

/** Errors: `vault.damaged`. */
export function unpackConfiguration(packed: string): readonly unknown[] {
  try {
    const limit = { maxOutputLength: 256 * 1024 * 1024 };
    const value: unknown = JSON.parse(gunzipSync(Buffer.from(packed, "base64"), limit).toString("utf8"));
    if (Array.isArray(value)) return value;
  } catch (cause) {
    throw new OperationalError("vault.damaged", "a recovery point's configuration cannot be read", { cause });
  }
  throw new OperationalError("vault.damaged", "a recovery point's configuration is no list");
}

const prefix = "recovery/";
const shape =
  /^recovery\/([A-Za-z0-9_][A-Za-z0-9._-]*)\/(\d{15})-([a-z0-9-]{1,60})\/(point|verdict-\d{15}|evidence-(\d{15}))$/u;
const digits = (ms: number): string => String(ms).padStart(15, "0");

function folderOf(group: string, { id, at }: Pick<KeptPoint, "id" | "at">): string {
  return `${prefix}${group}/${digits(at)}-${id}/`;
}

/** Durable when it returns; said again, it is as it was. */
export async function storeKeptPoint(
  vault: Vault,
  group: string,
  point: KeptPoint,
  disks: Readonly<Record<string, string>>,
  signal?: AbortSignal,
): Promise<void> {
  await putSealed(vault, `${folderOf(group, point)}point`, { format: 1, ...point, disks }, signal);
}

/** As for `storeKeptPoint`. */
export async function storeVerdict(
  vault: Vault,
  group: string,
  point: Pick<KeptPoint, "id" | "at">,
  verdict: KeptVerdict,
  signal?: AbortSignal,
): Promise<void> {
  await putSealed(vault, `${folderOf(group, point)}verdict-${digits(verdict.at)}`, verdict, signal);
}

/** As for `storeKeptPoint`. `text`: JSON; it may be large, and is read for itself alone. */
export async function storeEvidence(
  vault: Vault,
  group: string,
  point: Pick<KeptPoint, "id" | "at">,
  evidence: { readonly at: number; readonly text: string },
  signal?: AbortSignal,
): Promise<void> {
  const { at, text } = evidence;
  await putSealed(vault, `${folderOf(group, point)}evidence-${digits(at)}`, { text }, signal);
}

/** Errors: `not_found`, `vault.damaged`. */
export async function readEvidence(
  { context: { storage, keys } }: Vault,
  group: string,
  point: Pick<StoredPoint, "id" | "at" | "evidenceAt">,
  signal?: AbortSignal,
): Promise<string> {
  if (point.evidenceAt === null) {
    throw new OperationalError("not_found", `the vault keeps no evidence of recovery point ${point.id}`);
  }
  const name = `${folderOf(group, point)}evidence-${digits(point.evidenceAt)}`;
  const plain = readSealed(keys, name, await storage.get(name, undefined, signal));
  return z.strictObject({ text: z.string() }).parse(plain).text;
}

async function putSealed(
  { context: { storage, keys } }: Vault,
  name: string,
  value: object,
  signal?: AbortSignal,
): Promise<void> {
  try {
    const sealed = seal(keys, sealKinds.recovery, name, Buffer.from(JSON.stringify(value)));
    await storage.put(name, [sealed], signal);
  } catch (error) {
    // Sealed anew, it has other bytes; its name says that it is the same.
    if (!isOperational(error, "state.conflict")) throw error;
  }
}

/** Environments of which a recovery point is kept. */
export async function keptGroups({ context }: Vault, signal?: AbortSignal): Promise<readonly string[]> {
  const groups = new Set<string>();
  for await (const { name } of context.storage.list(prefix, signal)) {
    const group = shape.exec(name)?.[1];
    if (group !== undefined) groups.add(group);
  }
  return [...groups];
}

/** What was read before, by name: no object ever changes. For one that asks again and again; emptied of what is gone. */
export type KeptPointsCache = Map<string, unknown>;

/** Errors: those of the store. */
export async function listKeptPoints(
  vault: Vault,
  group: string,
  signal?: AbortSignal,
  cache: KeptPointsCache = new Map(),
): Promise<StoredPoints> {
  const { storage, keys } = vault.context;
  const points = new Map<string, StoredPoint>();
  const verdicts = new Map<string, KeptVerdict>();
  const evidence = new Map<string, number>();
  const damaged: { object: string; problem: string }[] = [];
  const seen = new Set<string>();
  for await (const { name } of storage.list(`${prefix}${group}/`, signal)) {
    const [, , time, id, kind, evidenceAt] = shape.exec(name) ?? [];
    if (id === undefined || kind === undefined) continue;
    const key = `${time}-${id}`;
    if (evidenceAt !== undefined) {
      evidence.set(key, Number(evidenceAt));
      continue;
    }
    seen.add(name);
    try {
      const plain: unknown =
        cache.get(name) ?? readSealed(keys, name, await storage.get(name, undefined, signal));
      cache.set(name, plain);
      if (kind === "point") {
        const { format: _format, ...point } = storedSchema.parse(plain);
        points.set(key, { ...point, verdict: null, evidenceAt: null });
      } else verdicts.set(key, keptVerdictSchema.parse(plain));
    } catch (error) {
      // Let go between the two looks.
      if (isOperational(error, "not_found")) continue;
      if (isOperational(error) && !isOperational(error, "vault.damaged")) throw error;
      damaged.push({ object: name, problem: publicMessage(error) });
    }
  }
  for (const name of cache.keys()) {
    if (name.startsWith(`${prefix}${group}/`) && !seen.has(name)) cache.delete(name);
  }
  // Names are in the order of time.
  const listed = [...points].map(([key, point]) => ({
    ...point,
    verdict: verdicts.get(key) ?? null,
    evidenceAt: evidence.get(key) ?? null,
  }));
  return { points: listed.toReversed(), damaged };
}

function readSealed(keys: VaultKeys, name: string, sealed: Buffer): unknown {
  return JSON.parse(unseal(keys, sealKinds.recovery, name, sealed).toString("utf8"));
}

/** The point first: without it, its verdicts mean nothing. */
export async function removeKeptPoint(
  { context: { storage } }: Vault,
  group: string,
  point: Pick<KeptPoint, "id" | "at">,
  signal?: AbortSignal,
): Promise<void> {
  const folder = folderOf(group, point);
  await storage.delete(`${folder}point`, signal);
  const rest: string[] = [];
  for await (const { name } of storage.list(folder, signal)) rest.push(name);
  for (const name of rest) await storage.delete(name, signal);
}
