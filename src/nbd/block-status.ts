/** The answer to `NBD_CMD_BLOCK_STATUS`: for every selected context what the range holds, as far as looking costs little. */
import type { Extent } from "#model/block-device.ts";
import type { MetaContext } from "#wire/nbd/handshake.ts";
import { allocationContext, allocationState, commandFlag, dirtyState } from "#wire/nbd/protocol.ts";
import { type NbdRequest, type StatusExtent, encodeStatusChunk } from "#wire/nbd/transmission.ts";
import type { DirtyExtent } from "./export-provider.ts";
import type { Negotiated } from "./server-handshake.ts";

/** Descriptors of one answer; a client asks again for the rest. */
const maxDescriptors = 8192;
/** First look; doubled while little was found, so that a disk that must be read to be known is read in small steps. */
const firstWindowBytes = 4 * 1024 * 1024;
const maxWindowBytes = 1024 * 1024 * 1024;
/** After this long an answer that says something is better than a longer one. Milliseconds. */
const patienceMs = 100;

interface FlaggedRange {
  readonly length: number;
  readonly flags: number;
}

type Look = (offset: number, length: number) => Promise<FlaggedRange[]>;

/** One chunk for each context, the last with the done flag. */
export async function answerBlockStatus(
  request: NbdRequest,
  negotiated: Negotiated,
  signal: AbortSignal,
): Promise<Buffer[]> {
  const chunks: Buffer[] = [];
  const { contexts } = negotiated;
  for (const [index, context] of contexts.entries()) {
    const extents = await describe(request, lookOf(context, negotiated, signal));
    const done = index === contexts.length - 1;
    chunks.push(encodeStatusChunk(request, { contextId: context.id, extents, done }));
  }
  return chunks;
}

function lookOf(context: MetaContext, { opened }: Negotiated, signal: AbortSignal): Look {
  if (context.name === allocationContext)
    return async (offset, length) =>
      (await opened.device.extents(offset, length, signal)).map((extent) => ({
        length: extent.length,
        flags: allocationFlags(extent),
      }));
  const dirty = opened.dirtyContexts?.find(({ name }) => name === context.name);
  // Unknown after all: dirty is the answer that loses nothing.
  if (dirty === undefined) return async (_offset, length) => [{ length, flags: dirtyState.dirty }];
  return async (offset, length) =>
    (await dirty.extents(offset, length, signal)).map((extent: DirtyExtent) => ({
      length: extent.length,
      flags: extent.dirty ? dirtyState.dirty : 0,
    }));
}

function allocationFlags({ kind }: Extent): number {
  if (kind === "data") return 0;
  return kind === "hole" ? allocationState.hole | allocationState.zero : allocationState.zero;
}

async function describe(request: NbdRequest, look: Look): Promise<StatusExtent[]> {
  const one = (request.flags & commandFlag.requestOne) !== 0;
  const found: FlaggedRange[] = [];
  const end = performance.now() + patienceMs;
  let at = 0;
  let window = firstWindowBytes;
  while (at < request.length && found.length < maxDescriptors && performance.now() < end) {
    const length = Math.min(window, request.length - at);
    for (const range of await look(request.offset + at, length)) append(found, range);
    if (one && found.length > 1) break;
    at += length;
    window = Math.min(window * 2, maxWindowBytes);
  }
  return found.slice(0, one ? 1 : maxDescriptors);
}

function append(found: FlaggedRange[], next: FlaggedRange): void {
  const last = found.at(-1);
  if (last?.flags === next.flags)
    found[found.length - 1] = { flags: last.flags, length: last.length + next.length };
  else found.push(next);
}
