import type { TestContext } from "node:test";

const stacks = new WeakMap<TestContext, (() => unknown)[]>();

/** At the test's end, in the reverse of the order in which it was asked for: each on its own, and the first failure is told. */
export function undo(t: TestContext, work: () => unknown): void {
  const present = stacks.get(t);
  if (present !== undefined) {
    present.push(work);
    return;
  }
  const stack = [work];
  stacks.set(t, stack);
  t.after(async () => {
    const failures: unknown[] = [];
    for (const one of stack.toReversed()) {
      try {
        await one();
      } catch (error) {
        failures.push(error);
      }
    }
    if (failures.length > 0) throw failures[0];
  });
}
