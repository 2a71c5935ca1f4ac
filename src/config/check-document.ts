/** A YAML text against a schema; every problem with its line. Pure. */
import { isNode, LineCounter, parseDocument, type Document } from "yaml";
import type { z } from "zod";

export interface ConfigProblem {
  /** 1-based; 0 when it concerns the whole file. */
  readonly line: number;
  /** `environments.shop.reserve` */
  readonly path: string;
  readonly message: string;
}

export type DocumentCheck<T> =
  | {
      readonly ok: true;
      readonly value: T;
      /** 1-based, of the deepest part of the path that stands in the text. */
      readonly lineOf: (path: readonly PropertyKey[]) => number;
    }
  | { readonly ok: false; readonly problems: readonly ConfigProblem[] };

export function checkDocument<S extends z.ZodType>(text: string, schema: S): DocumentCheck<z.output<S>> {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, uniqueKeys: true });
  if (document.errors.length > 0) {
    return {
      ok: false,
      problems: document.errors.map((error) => ({
        line: error.linePos?.[0].line ?? 0,
        path: "",
        message: error.message.split("\n")[0] ?? "not YAML",
      })),
    };
  }
  const lineOf = (path: readonly PropertyKey[]): number => lineOfPath(document, lines, path);
  const parsed = schema.safeParse(document.toJS({ maxAliasCount: 100 }));
  if (parsed.success) return { ok: true, value: parsed.data, lineOf };
  return { ok: false, problems: parsed.error.issues.flatMap((issue) => describeIssue(issue, lineOf)) };
}

export function formatProblems(path: string, problems: readonly ConfigProblem[]): string {
  return problems
    .map(
      ({ line, path: key, message }) =>
        `${path}${line > 0 ? `:${line}` : ""}: ${key ? `${key}: ` : ""}${message}`,
    )
    .join("\n");
}

type Issue = z.core.$ZodIssue;

function describeIssue(issue: Issue, lineOf: (path: readonly PropertyKey[]) => number): ConfigProblem[] {
  if (issue.code === "unrecognized_keys") {
    return issue.keys.map((key) => ({
      line: lineOf([...issue.path, key]),
      path: issue.path.join("."),
      message: `unknown key "${key}"`,
    }));
  }
  if (issue.code === "invalid_union") {
    // The branch that came furthest says the most useful thing.
    const branches = issue.errors.filter((branch) => branch.length > 0);
    const best = [...branches].sort(
      (a, b) => depth(b) - depth(a) || a.length - b.length || unknownKeys(a) - unknownKeys(b),
    )[0];
    if (best !== undefined && depth(best) > 0) {
      return best.flatMap((inner) =>
        describeIssue({ ...inner, path: [...issue.path, ...inner.path] }, lineOf),
      );
    }
  }
  return [{ line: lineOf(issue.path), path: issue.path.join("."), message: issue.message }];
}

function unknownKeys(issues: readonly Issue[]): number {
  return issues.reduce((sum, issue) => sum + (issue.code === "unrecognized_keys" ? issue.keys.length : 0), 0);
}

function depth(issues: readonly Issue[]): number {
  return Math.max(
    ...issues.map((issue) => issue.path.length + (issue.code === "unrecognized_keys" ? 0.5 : 0)),
  );
}

function lineOfPath(document: Document, lines: LineCounter, path: readonly PropertyKey[]): number {
  for (let length = path.length; length > 0; length -= 1) {
    const parent = document.getIn(path.slice(0, length - 1), true);
    const key = path[length - 1];
    const pairs: unknown = isNode(parent) && "items" in parent ? parent.items : undefined;
    if (!Array.isArray(pairs)) continue;
    for (const [index, item] of pairs.entries()) {
      const node: unknown = item !== null && typeof item === "object" && "key" in item ? item.key : item;
      const matches =
        index === key || (isNode(node) && "value" in node && String(node.value) === String(key));
      if (matches && isNode(node) && node.range) return lines.linePos(node.range[0]).line;
    }
  }
  return 0;
}
