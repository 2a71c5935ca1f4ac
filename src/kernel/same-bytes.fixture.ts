/** For tests: disks and files compared. `assert.deepEqual` draws every byte when two differ: with a few MiB that ends the process. */
import { AssertionError } from "node:assert";

/** @throws AssertionError with both lengths, the first byte that differs, and 16 bytes of each from there. */
export function assertSameBytes(actual: Uint8Array, expected: Uint8Array, what = "the bytes"): void {
  if (Buffer.compare(actual, expected) === 0) return;
  const shorter = Math.min(actual.length, expected.length);
  let at = 0;
  while (at < shorter && actual[at] === expected[at]) at += 1;
  let differing = 0;
  for (let index = at; index < shorter; index += 1) if (actual[index] !== expected[index]) differing += 1;
  const shown = (bytes: Uint8Array): string => Buffer.from(bytes.subarray(at, at + 16)).toString("hex");
  throw new AssertionError({
    message: [
      `${what} differ from byte ${at} on, ${differing} of ${shorter} in all`,
      `  actual   (${actual.length} bytes): ${shown(actual)}`,
      `  expected (${expected.length} bytes): ${shown(expected)}`,
    ].join("\n"),
    stackStartFn: assertSameBytes,
  });
}
