/**
 * A disk as the rooms pass it to one another: the vault opens points as one, the NBD server exports one, the NBD client is
 * one, recovery copies from one to another. Offsets and lengths are in bytes. Nothing here needs alignment.
 */

/** `data`: read it. `zero`: reads as zeroes and holds space. `hole`: reads as zeroes and holds none. */
export type ExtentKind = "data" | "zero" | "hole";

export interface Extent {
  readonly offset: number;
  readonly length: number;
  readonly kind: ExtentKind;
}

export interface WriteOptions {
  /** Durable before the call returns, without a flush. */
  readonly fua?: boolean;
  readonly signal?: AbortSignal;
}

export interface BlockReader extends AsyncDisposable {
  readonly sizeBytes: number;

  /** Exactly `length` bytes. The range must lie within the device. The buffer is the caller's. */
  read(offset: number, length: number, signal?: AbortSignal): Promise<Buffer>;

  /** `read` into a buffer that is there, where a device can; the buffer is the device's until the call is settled. */
  readInto?(target: Buffer, offset: number, signal?: AbortSignal): Promise<void>;

  /**
   * What the range holds, in order, without gaps or overlaps, cut to the range; neighbours differ in kind. A device that does
   * not know says `data`.
   */
  extents(offset: number, length: number, signal?: AbortSignal): Promise<Extent[]>;
}

export interface BlockDevice extends BlockReader {
  /**
   * Applied when it returns: a later read sees it. Durable after `flush`, or with `fua`. The data is the caller's again once the call
   * is settled, and may be overwritten then: a device that keeps it longer keeps a copy.
   */
  write(offset: number, data: Uint8Array, options?: WriteOptions): Promise<void>;

  /** The range reads as zeroes afterwards. `keepSpace` asks not to punch a hole. */
  zero(
    offset: number,
    length: number,
    options?: WriteOptions & { readonly keepSpace?: boolean },
  ): Promise<void>;

  /** The range's content is no longer needed: it may read as anything afterwards. */
  trim(offset: number, length: number, options?: WriteOptions): Promise<void>;

  /** Every write that returned before this call is durable when it returns. */
  flush(signal?: AbortSignal): Promise<void>;
}
