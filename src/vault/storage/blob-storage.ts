/**
 * What the vault and the write log ask of a store: a flat set of named objects, each written once and whole. A folder and an
 * S3 bucket serve it; `storage-conformance.ts` is this contract as tests, and every implementation and wrapper passes it.
 *
 * Guarantees:
 * - Atomic: an object is seen whole or not at all, by `get`, `size` and `list` alike, also after a crash in the midst of a put.
 * - Durable: when `put` or `delete` returns, the change outlives a crash of the process and of the machine.
 * - Read after write: what a put or delete that has returned did is seen by every later `get`, `size` and `list`, of any client.
 * - Flat, but a name is never also the folder of another (`a` beside `a/b`): a folder could not hold both.
 * - Never rewritten: an object's bytes do not change. This is what makes stores with a retention lock usable.
 *
 * Errors: `not_found`; `state.conflict` (a put whose name holds other bytes); `store.full`; `vault.unreachable` (network, may
 * pass); `store.failing` (the disk or the store refuses); `auth.invalid`, `auth.forbidden`; `disk.range` (a range outside the object);
 * `input.invalid` (a name outside the rules); `aborted`. `outcome` is `unknown` where a change may have happened although it failed.
 */
export interface BlobStorage {
  /** For people and logs, without secrets: `folder /srv/vault`, `s3 bucket/prefix`. */
  readonly description: string;

  /**
   * Stores an object under a name that is free. The parts are one after another the object's bytes; they are read before the
   * call returns and not kept. If the name already holds exactly these bytes (a put repeated after an unknown outcome), the
   * answer is `present`; if it holds others, the put fails with `state.conflict` and changes nothing.
   */
  put(name: string, parts: readonly Uint8Array[], signal?: AbortSignal): Promise<"stored" | "present">;

  /** The object's bytes, or exactly `range`. The buffer is the caller's. */
  get(name: string, range?: ByteRange, signal?: AbortSignal): Promise<Buffer>;

  /** In bytes. */
  size(name: string, signal?: AbortSignal): Promise<number>;

  /**
   * Every object whose name begins with `prefix` (not necessarily a whole folder), sorted by name in ascending byte order. An object
   * put or deleted meanwhile may or may not be among them.
   */
  list(prefix: string, signal?: AbortSignal): AsyncIterable<BlobFacts>;

  /** Removes the object; a name that holds nothing is no error. A retention lock makes it fail with `auth.forbidden`. */
  delete(name: string, signal?: AbortSignal): Promise<void>;

  /** Frees connections and descriptors. Nothing durable depends on it. */
  close(): Promise<void>;
}

export interface ByteRange {
  readonly offset: number;
  /** At least 1. */
  readonly length: number;
}

export interface BlobFacts {
  readonly name: string;
  readonly sizeBytes: number;
  /** When it was put, in milliseconds since the epoch, by the store's own clock: good for "older than a day", not for order. */
  readonly storedAtMs: number;
}
