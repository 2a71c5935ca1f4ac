import { randomBytes, randomUUID } from "node:crypto";

/** Randomness comes in through this port, so that a seed replays a run. */
export interface Random {
  uuid(): string;
  /** Lower-case hexadecimal of `bytes` random bytes. */
  hex(bytes: number): string;
  /** In [0, 1). Not for secrets. */
  fraction(): number;
}

export const systemRandom: Random = {
  uuid: () => randomUUID(),
  hex: (bytes) => randomBytes(bytes).toString("hex"),
  fraction: () => Math.random(),
};
