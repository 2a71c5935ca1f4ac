import type { Random } from "#kernel/random.ts";

/** mulberry32 (Tommy Ettinger): small, and the same on every machine. Not for secrets. */
export function createSeededRandom(seed: number): Random {
  let state = seed >>> 0;
  const fraction = (): number => {
    state = (state + 0x6d_2b_79_f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  const hex = (bytes: number): string =>
    Array.from({ length: bytes }, () =>
      Math.floor(fraction() * 256)
        .toString(16)
        .padStart(2, "0"),
    ).join("");
  return {
    fraction,
    hex,
    uuid: () => [4, 2, 2, 2, 6].map(hex).join("-"),
  };
}
