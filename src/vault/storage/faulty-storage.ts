import { OperationalError } from "#kernel/errors.ts";
import type { BlobFacts, BlobStorage } from "./blob-storage.ts";

export type StorageOperation = "put" | "get" | "size" | "list" | "delete";

/** What befalls one call: `before`, nothing was done; `after`, it was done but the caller is told that it failed. */
export type StorageFault = "none" | "before" | "after";

/** Passes every call through, numbered from 1, and fails those that `fault` names, with outcome `unknown`. For tests. */
export interface FaultyStorage extends BlobStorage {
  /** Calls so far, by kind and over all. */
  readonly calls: Readonly<Record<StorageOperation, number>>;
  readonly total: number;
}

export function faultyStorage(
  inner: BlobStorage,
  fault: (operation: StorageOperation, number: number, name: string) => StorageFault = () => "none",
): FaultyStorage {
  const calls = { put: 0, get: 0, size: 0, list: 0, delete: 0 };
  let total = 0;
  const broken = (operation: StorageOperation, name: string): OperationalError =>
    new OperationalError("vault.unreachable", `${operation} ${name} failed: a fault was asked for`, {
      outcome: "unknown",
    });
  const call = async <T>(operation: StorageOperation, name: string, work: () => Promise<T>): Promise<T> => {
    calls[operation] += 1;
    total += 1;
    const what = fault(operation, total, name);
    if (what === "before") throw broken(operation, name);
    const result = await work();
    if (what === "after") throw broken(operation, name);
    return result;
  };
  return {
    description: `faulty ${inner.description}`,
    calls,
    get total() {
      return total;
    },
    put: (name, parts, signal) => call("put", name, () => inner.put(name, parts, signal)),
    get: (name, range, signal) => call("get", name, () => inner.get(name, range, signal)),
    size: (name, signal) => call("size", name, () => inner.size(name, signal)),
    delete: (name, signal) => call("delete", name, () => inner.delete(name, signal)),
    async *list(prefix, signal): AsyncGenerator<BlobFacts> {
      await call("list", prefix, async () => {});
      yield* inner.list(prefix, signal);
    },
    close: () => inner.close(),
  };
}
