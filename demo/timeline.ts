// What people watch while the demo runs: one line an event, with the seconds since the curtain rose.
const begun = performance.now();

export function now(): number {
  return performance.now();
}

export function say(text: string): void {
  const seconds = ((performance.now() - begun) / 1000).toFixed(1).padStart(6);
  process.stderr.write(`${seconds} s  ${text}\n`);
}

export function heading(text: string): void {
  process.stderr.write(`\n          ${text}\n`);
}

/** Waits on a state, and fails with what was last seen of it. */
export async function until<T>(
  what: string,
  look: () => Promise<T>,
  done: (seen: T) => boolean,
  limitMs: number,
): Promise<T> {
  const deadline = performance.now() + limitMs;
  for (;;) {
    const seen = await look();
    if (done(seen)) return seen;
    if (performance.now() > deadline) {
      throw new Error(
        `waited ${limitMs / 1000} s for ${what}; last seen: ${JSON.stringify(seen).slice(0, 2000)}`,
      );
    }
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}
