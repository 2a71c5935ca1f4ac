/**
 * Numbers after a loss. A log that was brought back from the store lacks what had not been shipped, and those records had numbers that others
 * may know: points of the vault, whoever noted a moment. So it goes on from the next multiple of 2^32, at the beginning of a segment. No number
 * means two things, and a gap that was not made so is damage.
 */
const stride = 2 ** 32;

/** The last number that is not given, of a log whose numbers up to `highest` were. */
export function lastBeforeResumed(highest: number): number {
  return (Math.floor(highest / stride) + 1) * stride;
}

/** Whether a loss may lie between the two: it takes a look at where the first one's segment ends. */
export function mayHaveLost(first: number, next: number): boolean {
  return Math.floor((next - 1) / stride) > Math.floor((first - 1) / stride);
}

/** Whether a segment that begins with `first` may follow one that ends before `next`. */
export function follows(first: number, next: number): boolean {
  return first === next || (first > next && (first - 1) % stride === 0);
}
