/** Waits on a state, and fails with what was last seen of it. */
export async function until<T>(
  what: string,
  look: () => Promise<T>,
  done: (seen: T) => boolean,
  limitMs = 30_000,
): Promise<T> {
  const deadline = performance.now() + limitMs;
  for (;;) {
    const seen = await look();
    if (done(seen)) return seen;
    if (performance.now() > deadline) {
      throw new Error(
        `waited ${limitMs / 1000} s for ${what}; last seen: ${JSON.stringify(seen).slice(0, 3000)}`,
      );
    }
    await new Promise((resolve) => {
      setTimeout(resolve, 50);
    });
  }
}
