/** Pages of a listing in order of creation. A token names the last record shown, so that deletions do not shift pages. */
import { AwsProtocolError } from "#wire/aws/aws-protocol-error.ts";

export interface PageInput {
  readonly MaxResults?: number | undefined;
  readonly NextToken?: string | undefined;
}

export interface PageLimits {
  readonly least: number;
  readonly most: number;
}

export interface Page<T> {
  readonly items: readonly T[];
  readonly nextToken: string | undefined;
}

interface Listed {
  readonly id: string;
  readonly createdAt: number;
}

function readToken(token: string): { createdAt: number; id: string } {
  const [createdAt, id] = Buffer.from(token, "base64url").toString("utf8").split("/", 2);
  if (id === undefined || !/^[0-9]{1,15}$/.test(createdAt ?? "")) {
    throw new AwsProtocolError(
      "InvalidNextToken",
      "The specified NextToken is invalid. Use the one of the last answer.",
    );
  }
  return { createdAt: Number(createdAt), id };
}

export function pageOf<T extends Listed>(
  records: Iterable<T>,
  keep: (record: T) => boolean,
  input: PageInput,
  limits: PageLimits = { least: 5, most: 1000 },
): Page<T> {
  const size = input.MaxResults ?? limits.most;
  if (!Number.isInteger(size) || size < limits.least || size > Math.max(limits.most, 1000)) {
    throw new AwsProtocolError(
      "InvalidParameterValue",
      `Value ( ${size} ) for parameter maxResults is invalid. Expecting a value between ${limits.least} and ${limits.most}.`,
    );
  }
  const all = [...records];
  const items: T[] = [];
  let at =
    input.NextToken === undefined || input.NextToken === "" ? 0 : startAfter(all, readToken(input.NextToken));
  for (; at < all.length; at += 1) {
    const record = all[at] as T;
    if (!keep(record)) continue;
    const last = items.at(-1);
    if (items.length === size && last !== undefined) {
      return { items, nextToken: Buffer.from(`${last.createdAt}/${last.id}`).toString("base64url") };
    }
    items.push(record);
  }
  return { items, nextToken: undefined };
}

function startAfter(all: readonly Listed[], token: { createdAt: number; id: string }): number {
  const known = all.findIndex((record) => record.id === token.id);
  if (known >= 0) return known + 1;
  const later = all.findIndex((record) => record.createdAt >= token.createdAt);
  return later < 0 ? all.length : later;
}
