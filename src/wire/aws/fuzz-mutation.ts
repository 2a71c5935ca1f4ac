/** Hostile input for the fuzz tests of the codecs: valid text, damaged; and noise. Seeded, so that a run can be replayed. */
import { type Fraction, seededFraction } from "./shape-sample.ts";

/** Inputs per fuzz test: 20,000 in the normal run, FUZZ_RUNS for more. */
export function fuzzRuns(): number {
  const wanted = Number(process.env["FUZZ_RUNS"] ?? "20000");
  if (!Number.isSafeInteger(wanted) || wanted < 1)
    throw new RangeError("FUZZ_RUNS must be a whole number above 0");
  return wanted;
}

/** FUZZ_SEED replays; without it the first seed is always the same. */
export function fuzzSeed(): number {
  return Number(process.env["FUZZ_SEED"] ?? "1");
}

/** Calls `each` for every run with its own generator; a failure names the seed that replays it with FUZZ_RUNS=1. */
export function fuzz(each: (fraction: Fraction, run: number) => void): void {
  const runs = fuzzRuns();
  const first = fuzzSeed();
  const before = process.memoryUsage().rss;
  for (let run = 0; run < runs; run += 1) {
    try {
      each(seededFraction(first + run), run);
    } catch (error) {
      throw new Error(`replay with FUZZ_SEED=${first + run} FUZZ_RUNS=1`, { cause: error });
    }
  }
  const grown = process.memoryUsage().rss - before;
  if (grown > 512 * 1024 * 1024) throw new Error(`memory grew by ${grown} bytes over ${runs} inputs`);
}

export function pick<T>(fraction: Fraction, from: readonly T[]): T {
  const chosen = from[Math.floor(fraction() * from.length)];
  if (chosen === undefined) throw new RangeError("nothing to pick from");
  return chosen;
}

/** One to four edits: delete, duplicate, swap, insert a token, change a character. */
export function mutated(text: string, tokens: readonly string[], fraction: Fraction): string {
  let changed = text;
  const edits = 1 + Math.floor(fraction() * 4);
  for (let edit = 0; edit < edits; edit += 1) {
    const at = Math.floor(fraction() * (changed.length + 1));
    const length = Math.floor(fraction() ** 3 * 40) + 1;
    const piece = changed.slice(at, at + length);
    const rest = changed.slice(at + length);
    const head = changed.slice(0, at);
    switch (Math.floor(fraction() * 6)) {
      case 0:
        changed = head + rest;
        break;
      case 1:
        changed = head + piece.repeat(1 + Math.floor(fraction() * 3)) + piece + rest;
        break;
      case 2:
        changed = rest + head + piece;
        break;
      case 3:
        changed = head + pick(fraction, tokens) + piece + rest;
        break;
      case 4:
        changed = head + pick(fraction, tokens) + rest;
        break;
      default:
        changed = head + String.fromCharCode(Math.floor(fraction() ** 2 * 0x10000)) + piece.slice(1) + rest;
    }
    if (changed.length > 20_000) changed = changed.slice(0, 20_000);
  }
  return changed;
}

/** Text of nothing but tokens and odd characters. */
export function noise(tokens: readonly string[], fraction: Fraction): string {
  const parts = Math.floor(fraction() ** 2 * 60);
  let text = "";
  for (let part = 0; part < parts; part += 1) {
    text += fraction() < 0.8 ? pick(fraction, tokens) : String.fromCharCode(Math.floor(fraction() * 0x10000));
  }
  return text;
}
