/** EC2's filters: values of one filter are alternatives, filters add up; `*` and `?` match, `\` takes them literally. */
import type { Filter } from "@aws-sdk/client-ec2";
import type { Tags } from "#devcloud/core/records.ts";
import { AwsProtocolError } from "#wire/aws/aws-protocol-error.ts";

type FieldValue = string | number | boolean | null | undefined;
/** What each filter looks at; a list matches if one of it does. */
export type FilterFields<T> = Readonly<Record<string, (record: T) => FieldValue | readonly FieldValue[]>>;

const MAX_VALUES = 200;

interface Pattern {
  /** Per character: a literal, or null for `?`; `*` stands as undefined. */
  readonly parts: readonly (string | null | undefined)[];
  /** Set when there is no wildcard in it. */
  readonly literal: string | null;
}

function parsePattern(text: string): Pattern {
  const parts: (string | null | undefined)[] = [];
  let wild = false;
  for (let at = 0; at < text.length; at += 1) {
    const char = text[at] ?? "";
    if (char === "\\" && at + 1 < text.length) {
      at += 1;
      parts.push(text[at] ?? "");
    } else if (char === "*" || char === "?") {
      wild = true;
      if (char === "?") parts.push(null);
      else if (parts.at(-1) !== undefined || parts.length === 0) parts.push(undefined);
    } else parts.push(char);
  }
  return { parts, literal: wild ? null : parts.join("") };
}

/** Without backtracking further than the last `*`: quadratic at worst, whatever the pattern. */
function matches(pattern: Pattern, text: string): boolean {
  if (pattern.literal !== null) return pattern.literal === text;
  const { parts } = pattern;
  let at = 0;
  let part = 0;
  let starPart = -1;
  let starAt = 0;
  while (at < text.length) {
    if (part < parts.length && parts[part] === undefined) {
      starPart = part;
      starAt = at;
      part += 1;
    } else if (part < parts.length && (parts[part] === null || parts[part] === text[at])) {
      part += 1;
      at += 1;
    } else if (starPart >= 0) {
      part = starPart + 1;
      starAt += 1;
      at = starAt;
    } else return false;
  }
  while (part < parts.length && parts[part] === undefined) part += 1;
  return part === parts.length;
}

function tagField(
  name: string,
): ((record: { readonly tags: Tags }) => FieldValue | readonly FieldValue[]) | undefined {
  if (name === "tag-key") return (record) => Object.keys(record.tags);
  if (name === "tag-value") return (record) => Object.values(record.tags);
  if (!name.startsWith("tag:")) return undefined;
  const key = name.slice(4);
  return (record) => (Object.hasOwn(record.tags, key) ? record.tags[key] : undefined);
}

/** A test for all filters at once. Throws `InvalidParameterValue` for a filter that the operation does not have. */
export function compileFilters<T extends { readonly tags: Tags }>(
  filters: readonly Filter[] | undefined,
  fields: FilterFields<T>,
): (record: T) => boolean {
  const tests = (filters ?? []).map((filter) => {
    const name = filter.Name ?? "";
    const field = (Object.hasOwn(fields, name) ? fields[name] : undefined) ?? tagField(name);
    if (field === undefined) {
      throw new AwsProtocolError("InvalidParameterValue", `The filter '${name.slice(0, 100)}' is invalid`);
    }
    if ((filter.Values?.length ?? 0) === 0) {
      throw new AwsProtocolError("InvalidParameterValue", "The filter 'null' is invalid");
    }
    if ((filter.Values?.length ?? 0) > MAX_VALUES) {
      throw new AwsProtocolError(
        "FilterLimitExceeded",
        `The maximum number of filter values specified on a single call is ${MAX_VALUES}`,
      );
    }
    const patterns = (filter.Values ?? []).map((value) => parsePattern(value));
    const one = (value: FieldValue): boolean =>
      value !== undefined && value !== null && patterns.some((pattern) => matches(pattern, String(value)));
    return (record: T): boolean => {
      const value = field(record);
      return typeof value === "object" && value !== null ? value.some(one) : one(value);
    };
  });
  return (record) => tests.every((test) => test(record));
}
