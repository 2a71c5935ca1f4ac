import { OperationalError } from "#kernel/errors.ts";

const segment = /^[A-Za-z0-9_][A-Za-z0-9._-]*$/;
const LONGEST_NAME = 400;
const LONGEST_SEGMENT = 200;

/** Names are safe as file paths and as S3 keys: `/` between segments, none of which begins with a dot. */
export function checkBlobName(name: string): void {
  const parts = name.split("/");
  const good =
    name.length <= LONGEST_NAME &&
    parts.every((part) => part.length <= LONGEST_SEGMENT && segment.test(part));
  if (!good)
    throw new OperationalError("input.invalid", `not an object name: ${JSON.stringify(name.slice(0, 80))}`);
}

/** A prefix is a name cut anywhere, or nothing. */
export function checkBlobPrefix(prefix: string): void {
  const parts = prefix.split("/");
  const last = parts.pop() ?? "";
  const good =
    prefix.length <= LONGEST_NAME &&
    parts.every((part) => segment.test(part)) &&
    (last === "" || segment.test(last));
  if (!good)
    throw new OperationalError(
      "input.invalid",
      `not an object prefix: ${JSON.stringify(prefix.slice(0, 80))}`,
    );
}

/** Byte order, which for these names is the order of UTF-16 units too. */
export function compareNames(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
