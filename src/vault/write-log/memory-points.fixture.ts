/** Points in memory. Content comes from the base and the changed ranges alone, as in the vault. */
import type { BlockReader } from "#model/block-device.ts";
import type { CommittedPoint, NewPoint, PointStore } from "./point-store.ts";

export class MemoryPoints implements PointStore {
  readonly points: CommittedPoint[] = [];
  readonly #contents = new Map<string, Buffer>();
  /** Readers that are open. */
  openReaders = 0;
  /** Throws in the midst of the next write: before the point is committed, or after. */
  failNext: "before" | "after" | undefined;

  async list(group: string, volumeId: string): Promise<CommittedPoint[]> {
    return this.points
      .filter((point) => point.group === group && point.volumeId === volumeId)
      .sort((a, b) => a.sequence - b.sequence);
  }

  async open(point: CommittedPoint): Promise<BlockReader> {
    // Opening takes its time, as it does with a vault.
    for (let turn = 0; turn < 3; turn += 1) await new Promise((resolve) => void setImmediate(resolve));
    const content = this.content(point);
    this.openReaders += 1;
    return {
      sizeBytes: content.length,
      read: async (offset, length) => Buffer.from(content.subarray(offset, offset + length)),
      extents: async (offset, length) => [{ offset, length, kind: "data" }],
      [Symbol.asyncDispose]: async () => void (this.openReaders -= 1),
    };
  }

  async write(point: NewPoint): Promise<CommittedPoint> {
    const { source, changed, base, ...facts } = point;
    const content = Buffer.alloc(point.sizeBytes);
    if (base !== undefined) this.content(base).copy(content);
    for (const { offset, length } of changed) (await source.read(offset, length)).copy(content, offset);
    const failing = this.failNext;
    this.failNext = undefined;
    if (failing === "before") throw new Error("killed before the point was committed");
    const committed = { ...facts, id: `point-${this.points.length + 1}` };
    this.points.push(committed);
    this.#contents.set(committed.id, content);
    if (failing === "after") throw new Error("killed after the point was committed");
    return committed;
  }

  content(point: CommittedPoint): Buffer {
    return this.#contents.get(point.id) ?? Buffer.alloc(0);
  }
}
