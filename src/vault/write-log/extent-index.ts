/**
 * Which record of the log holds what of a volume: a sorted list of disjoint extents in typed arrays, cut into leaves so that an insertion moves
 * little. 52 bytes an extent, nothing per extent on the heap. The newest `put` wins.
 */
import { invariant } from "#kernel/invariant.ts";

/** Where an extent's bytes lie; without data (zero, trim) only `sequence` and `kind` mean something. */
export interface ExtentSource {
  /** `data`: bytes in the log. `zero` and `hole` read as zeroes. */
  readonly kind: "data" | "zero" | "hole";
  readonly sequence: number;
  readonly segment: number;
  readonly frameNumber: number;
  /** Position of the frame's data area in the segment. */
  readonly dataPosition: number;
  /** Length of that area, unencrypted. */
  readonly dataBytes: number;
  /** Where the extent's bytes begin in it. */
  readonly at: number;
}

export interface IndexedExtent {
  readonly offset: number;
  readonly length: number;
  readonly source: ExtentSource;
}

const leafExtents = 256;
const floats = 4;
const words = 5;
const kinds = ["data", "zero", "hole"] as const;

class Leaf {
  count = 0;
  /** start, end, sequence, dataPosition */
  readonly f = new Float64Array(leafExtents * floats);
  /** segment, frameNumber, dataBytes, at, kind */
  readonly u = new Uint32Array(leafExtents * words);

  start(index: number): number {
    return this.f[index * floats] as number;
  }

  end(index: number): number {
    return this.f[index * floats + 1] as number;
  }

  sequence(index: number): number {
    return this.f[index * floats + 2] as number;
  }

  /** First extent that ends behind `offset`. */
  find(offset: number): number {
    let [low, high] = [0, this.count];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.end(middle) > offset) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  openGap(index: number): void {
    this.f.copyWithin((index + 1) * floats, index * floats, this.count * floats);
    this.u.copyWithin((index + 1) * words, index * words, this.count * words);
    this.count += 1;
  }

  remove(from: number, to: number): void {
    this.f.copyWithin(from * floats, to * floats, this.count * floats);
    this.u.copyWithin(from * words, to * words, this.count * words);
    this.count -= to - from;
  }

  copyFrom(other: Leaf, from: number, to: number, at: number): void {
    this.f.set(other.f.subarray(from * floats, to * floats), at * floats);
    this.u.set(other.u.subarray(from * words, to * words), at * words);
  }

  set(index: number, start: number, end: number, source: ExtentSource): void {
    this.f.set([start, end, source.sequence, source.dataPosition], index * floats);
    this.u.set(
      [source.segment, source.frameNumber, source.dataBytes, source.at, kinds.indexOf(source.kind)],
      index * words,
    );
  }

  source(index: number): ExtentSource {
    const [f, u] = [index * floats, index * words];
    return {
      kind: kinds[this.u[u + 4] as number] ?? "data",
      sequence: this.f[f + 2] as number,
      segment: this.u[u] as number,
      frameNumber: this.u[u + 1] as number,
      dataPosition: this.f[f + 3] as number,
      dataBytes: this.u[u + 2] as number,
      at: this.u[u + 3] as number,
    };
  }
}

export class ExtentIndex {
  #leaves: Leaf[] = [new Leaf()];
  #count = 0;

  /** Number of extents. */
  get count(): number {
    return this.#count;
  }

  put(start: number, end: number, source: ExtentSource): void {
    if (start >= end) return;
    this.#splitAt(start);
    this.#splitAt(end);
    this.#removeInside(start, end);
    if (!this.#extendBefore(start, end, source)) this.#insert(start, end, source);
  }

  /** Extents that touch the range, cut to it, in order. */
  overlapping(start: number, end: number): IndexedExtent[] {
    const found: IndexedExtent[] = [];
    let li = this.#leafFor(start);
    let leaf = this.#leaves[li];
    let index = leaf?.find(start) ?? 0;
    while (leaf !== undefined) {
      for (; index < leaf.count; index += 1) {
        const [from, to] = [leaf.start(index), leaf.end(index)];
        if (from >= end) return found;
        const [low, high] = [Math.max(from, start), Math.min(to, end)];
        const source = leaf.source(index);
        const at = source.at + (source.kind === "data" ? low - from : 0);
        if (low < high) found.push({ offset: low, length: high - low, source: { ...source, at } });
      }
      li += 1;
      leaf = this.#leaves[li];
      index = 0;
    }
    return found;
  }

  /** Forgets what lies at or before `sequence`: a committed point holds it now. */
  dropThrough(sequence: number): void {
    const kept: Leaf[] = [];
    let count = 0;
    for (const leaf of this.#leaves) {
      let to = 0;
      for (let from = 0; from < leaf.count; from += 1) {
        if (leaf.sequence(from) <= sequence) continue;
        if (to !== from) leaf.copyFrom(leaf, from, from + 1, to);
        to += 1;
      }
      leaf.count = to;
      count += to;
      if (to > 0) kept.push(leaf);
    }
    this.#leaves = kept.length > 0 ? kept : [new Leaf()];
    this.#count = count;
  }

  /** The last leaf whose first extent starts at or before `offset`. */
  #leafFor(offset: number): number {
    let [low, high] = [0, this.#leaves.length - 1];
    while (low < high) {
      const middle = (low + high + 1) >>> 1;
      if (this.#leafAt(middle).start(0) <= offset) low = middle;
      else high = middle - 1;
    }
    return low;
  }

  #leafAt(index: number): Leaf {
    const leaf = this.#leaves[index];
    invariant(leaf !== undefined, "a leaf of the extent index");
    return leaf;
  }

  #splitAt(offset: number): void {
    const leaf = this.#leafAt(this.#leafFor(offset));
    const index = leaf.find(offset);
    if (index === leaf.count || leaf.start(index) >= offset) return;
    const [end, source] = [leaf.end(index), leaf.source(index)];
    const at = source.at + (source.kind === "data" ? offset - leaf.start(index) : 0);
    leaf.f[index * floats + 1] = offset;
    this.#insert(offset, end, { ...source, at });
  }

  #removeInside(start: number, end: number): void {
    let li = this.#leafFor(start);
    const emptied: number[] = [];
    for (let leaf = this.#leaves[li]; leaf !== undefined; leaf = this.#leaves[li]) {
      const from = leaf.find(start);
      const to = leaf.find(end - 1);
      // `to` itself holds `end - 1` if it starts before `end`; after the splits it then ends at `end`.
      const behind = to < leaf.count && leaf.start(to) < end ? to + 1 : to;
      if (behind > from) {
        this.#count -= behind - from;
        leaf.remove(from, behind);
        if (leaf.count === 0) emptied.push(li);
      }
      if (leaf.count > 0 && leaf.start(leaf.count - 1) >= end) break;
      li += 1;
    }
    if (emptied.length > 0) this.#removeLeaves(emptied);
  }

  #removeLeaves(emptied: readonly number[]): void {
    const [first, last] = [emptied[0] ?? 0, emptied.at(-1) ?? 0];
    // What is emptied lies side by side: a leaf in the middle of a removed range is removed whole.
    invariant(last - first + 1 === emptied.length, "emptied leaves are neighbours");
    this.#leaves.splice(first, emptied.length);
    if (this.#leaves.length === 0) this.#leaves.push(new Leaf());
  }

  /** A sequential writer's records in one frame become one extent. */
  #extendBefore(start: number, end: number, source: ExtentSource): boolean {
    if (start === 0) return false;
    const leaf = this.#leafAt(this.#leafFor(start - 1));
    const index = leaf.find(start - 1);
    if (index === leaf.count || leaf.end(index) !== start) return false;
    const before = leaf.source(index);
    const same =
      before.kind === source.kind &&
      before.segment === source.segment &&
      before.frameNumber === source.frameNumber &&
      (before.kind !== "data" || before.at + (start - leaf.start(index)) === source.at);
    if (!same) return false;
    leaf.f[index * floats + 1] = end;
    // The extent is dropped only when all of it is folded.
    leaf.f[index * floats + 2] = Math.max(before.sequence, source.sequence);
    return true;
  }

  #insert(start: number, end: number, source: ExtentSource): void {
    let li = this.#leafFor(start);
    let leaf = this.#leafAt(li);
    if (leaf.count === leafExtents) {
      const right = new Leaf();
      const half = leafExtents >>> 1;
      right.copyFrom(leaf, half, leafExtents, 0);
      right.count = leafExtents - half;
      leaf.count = half;
      this.#leaves.splice(li + 1, 0, right);
      if (start >= right.start(0)) {
        li += 1;
        leaf = right;
      }
    }
    const index = leaf.find(start);
    leaf.openGap(index);
    leaf.set(index, start, end, source);
    this.#count += 1;
  }
}
