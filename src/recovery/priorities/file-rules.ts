/** Which files of a disk matter most, by rules over their attributes. Pure. */
import { REGION_BYTES } from "./read-trace.ts";
import type { ByteRange, FoundFile } from "./file-system/read-ext.ts";

/** A rule holds for a file when all that it says holds. */
export interface FileRule {
  /** `/var/lib/**`: `*` and `?` within a name, `**` over any number of them. */
  readonly path?: string;
  readonly kind?: "executable" | "library" | "file" | "directory";
  /** Milliseconds before the moment of the disk. */
  readonly modifiedWithinMs?: number;
  readonly smallerThanBytes?: number;
  readonly largerThanBytes?: number;
  /** Added up over the rules that hold; a file with no more than nothing is not fetched first. */
  readonly weight: number;
}

const library = /\.so(\.[0-9.]+)?$/u;

export function holds(rule: FileRule, file: FoundFile, path: string, nowMs: number): boolean {
  const { kind } = rule;
  const isKind =
    kind === undefined ||
    (kind === "executable" && file.isExecutable) ||
    (kind === "library" && file.kind === "file" && library.test(path)) ||
    kind === file.kind;
  return (
    isKind &&
    (rule.modifiedWithinMs === undefined || nowMs - file.modifiedMs <= rule.modifiedWithinMs) &&
    (rule.smallerThanBytes === undefined || file.sizeBytes < rule.smallerThanBytes) &&
    (rule.largerThanBytes === undefined || file.sizeBytes > rule.largerThanBytes) &&
    (rule.path === undefined || matchesPath(rule.path, path))
  );
}

export function weightOf(rules: readonly FileRule[], file: FoundFile, path: string, nowMs: number): number {
  let weight = 0;
  for (const rule of rules) if (holds(rule, file, path, nowMs)) weight += rule.weight;
  return weight;
}

/** Takes time in proportion to the product of both lengths at most, whatever the path is. */
export function matchesPath(pattern: string, path: string): boolean {
  const wanted = pattern.split("/");
  const names = path.split("/");
  // For the pattern's part so far: after which names it may have ended.
  let ends = new Set([0]);
  for (const part of wanted) {
    const next = new Set<number>();
    for (const at of ends) {
      if (part === "**") for (let end = at; end <= names.length; end += 1) next.add(end);
      else if (at < names.length && matchesName(part, names[at] as string)) next.add(at + 1);
    }
    if (next.size === 0) return false;
    ends = next;
  }
  return ends.has(names.length);
}

function matchesName(pattern: string, name: string): boolean {
  let at = 0;
  let star = -1;
  let mark = 0;
  let from = 0;
  while (from < name.length) {
    const wanted = pattern[at];
    if (wanted === "*") {
      star = at;
      mark = from;
      at += 1;
    } else if (wanted !== undefined && (wanted === "?" || wanted === name[from])) {
      at += 1;
      from += 1;
    } else if (star >= 0) {
      // The last star takes one character more.
      at = star + 1;
      mark += 1;
      from = mark;
    } else return false;
  }
  while (pattern[at] === "*") at += 1;
  return at === pattern.length;
}

interface Candidate {
  readonly weight: number;
  readonly file: FoundFile;
}

/** So many files are held; with more, the least of them go. */
const mostCandidates = 20_000;

/** Gathers files, and says in the end which regions of the disk to fetch first. */
export class FileRanking {
  readonly #rules: readonly FileRule[];
  readonly #nowMs: number;
  #candidates: Candidate[] = [];

  constructor(rules: readonly FileRule[], nowMs: number) {
    this.#rules = rules;
    this.#nowMs = nowMs;
  }

  /** `mount`: where the file system was mounted, so that paths are as the machine knows them; empty: they begin at its root. */
  add(file: FoundFile, mount: string): void {
    const inside = mount === "" || mount === "/" ? null : `${mount}${file.path === "/" ? "" : file.path}`;
    const weight = Math.max(
      weightOf(this.#rules, file, file.path, this.#nowMs),
      inside === null ? 0 : weightOf(this.#rules, file, inside, this.#nowMs),
    );
    if (weight <= 0) return;
    this.#candidates.push({ weight, file });
    if (this.#candidates.length >= 2 * mostCandidates) this.#cut();
  }

  get matched(): number {
    return this.#candidates.length;
  }

  /** Each once; what leads to a file before the file. */
  regions(most: number): readonly number[] {
    this.#cut();
    const found = new Set<number>();
    const add = (ranges: readonly ByteRange[]): void => {
      for (const { offset, length } of ranges) {
        const last = Math.floor((offset + length - 1) / REGION_BYTES);
        for (let region = Math.floor(offset / REGION_BYTES); region <= last; region += 1) {
          if (found.size >= most) return;
          found.add(region);
        }
      }
    };
    for (const { file } of this.#candidates) {
      if (found.size >= most) break;
      for (let trail = file.trail; trail !== null; trail = trail.parent) add(trail.ranges);
      add(file.ranges);
    }
    return [...found];
  }

  #cut(): void {
    this.#candidates.sort((a, b) => b.weight - a.weight || b.file.modifiedMs - a.file.modifiedMs);
    this.#candidates = this.#candidates.slice(0, mostCandidates);
  }
}
