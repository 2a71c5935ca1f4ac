import type { Cloud } from "#cloud/contract.ts";
import { isOperational } from "#kernel/errors.ts";
import type { ResourceId } from "#kernel/ids.ts";
import type { ResourceKind } from "#model/resource.ts";
import { resourceKinds } from "#model/resource.ts";
import type { CallLimiter } from "./call-limiter.ts";
import type { Pairings } from "./pairings.ts";

export interface Leftover {
  readonly kind: ResourceKind;
  readonly id: ResourceId;
}

/** These end with what they belong to, and clouds do not mark them. */
const unmarked: ReadonlySet<ResourceKind> = new Set([
  "securityGroupRule",
  "volumeAttachment",
  "addressAssociation",
]);

const background = 0;

/**
 * What bears our scope in the site and stands for nothing: an interrupted run of a time whose record is lost. While any
 * pairing is still `creating`, what it may have made is not known yet: then nothing is found.
 */
export async function findLeftovers(
  cloud: Cloud,
  limiter: CallLimiter,
  cloudScope: string,
  pairings: Pairings,
  signal: AbortSignal,
): Promise<Leftover[]> {
  const known = new Set<string>();
  for (const { kind, standbyId, state } of pairings.values()) {
    if (state === "creating") return [];
    if (standbyId !== null) known.add(`${kind}:${standbyId}`);
  }
  const found: Leftover[] = [];
  // What refers to others goes first.
  for (const kind of resourceKinds.toReversed()) {
    if (unmarked.has(kind) || !cloud.facts.kinds[kind]) continue;
    const pages = cloud.list(kind, { scope: cloudScope }, signal)[Symbol.asyncIterator]();
    for (;;) {
      const page = await limiter.run(() => pages.next(), { priority: background, signal, once: true });
      if (page.done === true) break;
      for (const { resource } of page.value) {
        if (!known.has(`${kind}:${resource.id}`)) found.push({ kind, id: resource.id });
      }
    }
  }
  return found;
}

/** Removes them; answers with those that the site would not let go. */
export async function removeLeftovers(
  cloud: Cloud,
  limiter: CallLimiter,
  leftovers: readonly Leftover[],
  signal: AbortSignal,
): Promise<Leftover[]> {
  const kept: Leftover[] = [];
  for (const one of leftovers) {
    try {
      await limiter.run(() => cloud.delete(one.kind, one.id, signal), { priority: background, signal });
    } catch (error) {
      if (signal.aborted || !isOperational(error)) throw error;
      kept.push(one);
    }
  }
  return kept;
}
