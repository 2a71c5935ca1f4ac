/** The port by which the NBD server finds what it exports. */
import type { BlockDevice, BlockReader } from "#model/block-device.ts";

/** A range of a dirty context; in order, without gaps, cut to the asked range. */
export interface DirtyExtent {
  readonly offset: number;
  readonly length: number;
  readonly dirty: boolean;
}

/** What changed in an export since a reference of its own, as a metadata context. */
export interface DirtyContext {
  /** `understudy:dirty`, or `qemu:dirty-bitmap:NAME`. */
  readonly name: string;
  extents(offset: number, length: number, signal?: AbortSignal): Promise<DirtyExtent[]>;
}

/** The connection by which an export is used. */
export interface ExportConnection {
  /**
   * Resolves when every request that the client had sent by the call has reached the device, or never will. Rejects with the signal's
   * reason.
   */
  caughtUp(signal: AbortSignal): Promise<void>;
}

interface ExportFacts extends AsyncDisposable {
  readonly description?: string;
  /**
   * A flush on one connection covers the writes that were answered on every other, and each sees the others' writes. True for a
   * device that all of them share; a client may then spread its requests over several connections.
   */
  readonly multiConn: boolean;
  readonly dirtyContexts?: readonly DirtyContext[];
  /** The unit in which access is fastest, a power of two from 512 to 32 MiB. Default 4096. Any other works too. */
  readonly preferredBlockBytes?: number;
  /** Whether a read should ask `extents` first, so that holes travel as holes. Only where asking is cheap. */
  readonly cheapExtents?: boolean;
  /** Called once, before the first request. */
  readonly attached?: (connection: ExportConnection) => void;
  /** Whether writing zeroes is faster than writing data; else a client's wish for fast zeroes is answered ENOTSUP. */
  readonly fastZero?: boolean;
}

/** One use of an export; disposing it ends the use, not necessarily the device, which others may use too. */
export type NbdExport = ExportFacts &
  (
    | { readonly writable: false; readonly device: BlockReader }
    | { readonly writable: true; readonly device: BlockDevice }
  );

export interface ListedNbdExport {
  readonly name: string;
  readonly description?: string;
}

export interface ExportProvider {
  /**
   * Undefined where there is no such export. `writable` says what this peer may have: a provider may give less, never more. The
   * empty name asks for the default export.
   * @throws OperationalError when there is one and it cannot be opened.
   */
  openExport(
    name: string,
    wish: { readonly writable: boolean; readonly signal: AbortSignal },
  ): Promise<NbdExport | undefined>;

  listExports(signal: AbortSignal): Promise<readonly ListedNbdExport[]>;
}

/** A provider of one device, under its own name and as the default. The device stays the caller's. */
export function singleExport(
  name: string,
  device: BlockDevice | BlockReader,
  facts: Partial<Omit<ExportFacts, keyof AsyncDisposable>> = {},
): ExportProvider {
  const shared = { multiConn: true, ...facts, [Symbol.asyncDispose]: async () => {} };
  return {
    openExport: async (asked, { writable }) => {
      if (asked !== name && asked !== "") return undefined;
      if (writable && isBlockDevice(device)) return { ...shared, writable: true, device };
      return { ...shared, writable: false, device };
    },
    listExports: async () => [{ name, ...(facts.description && { description: facts.description }) }],
  };
}

export function isBlockDevice(device: BlockReader): device is BlockDevice {
  return "write" in device;
}
