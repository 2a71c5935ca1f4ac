/** Injected faults: which calls they hit, and what they do. A seed makes the sequence of hits the same in each run. */
import { z } from "zod";

export const faultSpec = z.strictObject({
  /** `RunInstances`, `Describe*`, `*`. */
  operation: z.string().min(1).max(100).default("*"),
  /**
   * `refuse`: answered with an error, not applied. `timeout`: never answered, not applied. `slow`: applied after `delayMs`.
   * `fail-after`: applied, then `answer`. `corrupt`: applied, and one bit of the answer's body is another one.
   */
  effect: z.enum(["refuse", "timeout", "slow", "fail-after", "corrupt"]),
  /** For refuse and fail-after; null is the protocol's own internal error. */
  status: z.int().min(400).max(599).default(500),
  /** The dialect's own error code, e.g. `InsufficientInstanceCapacity`; absent: by status. */
  code: z.string().min(1).max(100).optional(),
  message: z.string().max(1000).default("This failure was injected."),
  /** For fail-after: an error, a cut connection, or no answer at all. */
  answer: z.enum(["error", "cut", "silence"]).default("error"),
  /** For slow, in milliseconds. */
  delayMs: z.int().min(0).max(600_000).default(1000),
  /** Matching calls let through before the first hit. */
  skip: z.int().min(0).default(0),
  /** Hits until the rule is spent; absent: no end. */
  count: z.int().min(1).optional(),
  /** Of a matching call being hit. */
  probability: z.number().min(0).max(1).default(1),
  seed: z.int().default(1),
});

export type FaultSpec = z.infer<typeof faultSpec>;
export const faultList = z.array(faultSpec).max(1000);

export interface ShownFault extends FaultSpec {
  readonly id: number;
  readonly matched: number;
  readonly hits: number;
}

interface Rule {
  readonly id: number;
  readonly spec: FaultSpec;
  readonly pattern: RegExp;
  readonly draw: () => number;
  matched: number;
  hits: number;
}

/** mulberry32: small, seeded, good enough for a coin. */
function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}

export class FaultRules {
  #rules: Rule[] = [];
  #nextId = 1;

  constructor(specs: readonly FaultSpec[] = []) {
    for (const spec of specs) this.add(spec);
  }

  add(spec: FaultSpec): number {
    const id = this.#nextId;
    this.#nextId += 1;
    const text = spec.operation.replaceAll(/[.+?^${}()|[\]\\]/g, "\\$&").replaceAll("*", ".*");
    const pattern = new RegExp(`^${text}$`);
    this.#rules.push({ id, spec, pattern, draw: seeded(spec.seed), matched: 0, hits: 0 });
    return id;
  }

  clear(): void {
    this.#rules = [];
  }

  /** False if there is no such rule. */
  remove(id: number): boolean {
    const kept = this.#rules.filter((rule) => rule.id !== id);
    const found = kept.length < this.#rules.length;
    this.#rules = kept;
    return found;
  }

  /** The first rule that hits this call; counts it. */
  hit(operation: string): FaultSpec | undefined {
    for (const rule of this.#rules) {
      if (rule.spec.count !== undefined && rule.hits >= rule.spec.count) continue;
      if (!rule.pattern.test(operation)) continue;
      rule.matched += 1;
      if (rule.matched <= rule.spec.skip) continue;
      if (rule.spec.probability < 1 && rule.draw() >= rule.spec.probability) continue;
      rule.hits += 1;
      return rule.spec;
    }
    return undefined;
  }

  list(): ShownFault[] {
    return this.#rules.map(({ id, spec, matched, hits }) => ({ id, ...spec, matched, hits }));
  }
}
