/** How batches go to the thread that commits them, and what comes back: one flat array each way, cheap to clone. */
import { type ErrorCode, OperationalError, type Outcome } from "#kernel/errors.ts";
import { invariant } from "#kernel/invariant.ts";
import type { Statement } from "./contract.ts";
import { BatchFailed, type CallResult } from "./sqlite-batch.ts";

/** SQL texts by number: each goes over once, and is a number from then on. */
const keptTexts = 512;

/** `[known texts to forget, count of new texts, text..., (statements of the call, (text, expected rows, own error, count, parameter...)...)...]` */
export type BatchMessage = readonly unknown[];

/** What became of a call that did not take effect. */
export interface FailedCall {
  readonly at: number;
  /** The statement whose own `onMismatch` says what is wrong; else `error`. */
  readonly mismatch: number | undefined;
  readonly error: PlainError | undefined;
}

export type BatchReply =
  | { readonly kind: "recorded"; readonly failed: readonly FailedCall[] }
  /** `lasting`: nothing more can be recorded until the store is opened anew. */
  | { readonly kind: "failed"; readonly error: PlainError; readonly lasting: boolean };

/** An error without its class: another thread's classes are not ours. */
export interface PlainError {
  readonly code: ErrorCode | undefined;
  readonly outcome: Outcome;
  readonly message: string;
  readonly detail: string | undefined;
  readonly stack: string | undefined;
}

export class BatchEncoder {
  readonly #numbers = new Map<string, number>();

  encode(calls: readonly (readonly Statement[])[]): BatchMessage {
    const forget = this.#numbers.size > keptTexts;
    if (forget) this.#numbers.clear();
    const texts: string[] = [];
    const body: unknown[] = [];
    for (const statements of calls) {
      body.push(statements.length);
      for (const { query, expectRows, onMismatch } of statements) {
        let number = this.#numbers.get(query.sql);
        if (number === undefined) {
          number = this.#numbers.size;
          this.#numbers.set(query.sql, number);
          texts.push(query.sql);
        }
        body.push(number, expectRows ?? -1, onMismatch !== undefined, query.parameters.length);
        for (const parameter of query.parameters) body.push(parameter);
      }
    }
    return [forget, texts.length, ...texts, body];
  }
}

/** Stands for a statement whose caller has words of its own for what went wrong. */
export class OwnMismatch extends Error {
  override readonly name = "OwnMismatch";
  readonly statement: number;

  constructor(statement: number) {
    super("another number of rows than expected");
    this.statement = statement;
  }
}

export class BatchDecoder {
  #texts: string[] = [];

  decode(message: BatchMessage): readonly (readonly Statement[])[] {
    const [forget, count] = message as [boolean, number];
    if (forget) this.#texts = [];
    for (let at = 0; at < count; at += 1) this.#texts.push(message[2 + at] as string);
    const body = message[2 + count] as readonly unknown[];
    const calls: Statement[][] = [];
    let at = 0;
    while (at < body.length) {
      const statements: Statement[] = [];
      const size = body[at++] as number;
      for (let index = 0; index < size; index += 1) {
        const sql = this.#texts[body[at] as number];
        const expected = body[at + 1] as number;
        const own = body[at + 2] as boolean;
        const end = at + 4 + (body[at + 3] as number);
        invariant(sql !== undefined, "a statement's text goes over before its number");
        statements.push({
          query: { sql, parameters: body.slice(at + 4, end) } as unknown as Statement["query"],
          ...(expected < 0 ? {} : { expectRows: expected }),
          ...(own ? { onMismatch: () => new OwnMismatch(index) } : {}),
        });
        at = end;
      }
      calls.push(statements);
    }
    return calls;
  }
}

const allRecorded: BatchReply = { kind: "recorded", failed: [] };

export function encodeResults(results: readonly CallResult[]): BatchReply {
  let failed: FailedCall[] | undefined;
  for (const [at, result] of results.entries()) {
    if (result === undefined) continue;
    const { error } = result;
    failed ??= [];
    failed.push(
      error instanceof OwnMismatch
        ? { at, mismatch: error.statement, error: undefined }
        : { at, mismatch: undefined, error: plainError(error) },
    );
  }
  return failed === undefined ? allRecorded : { kind: "recorded", failed };
}

/** Throws `BatchFailed` if nothing of the batch is recorded. */
export function decodeReply(
  reply: BatchReply,
  calls: readonly (readonly Statement[])[],
): readonly CallResult[] {
  if (reply.kind === "failed") throw new BatchFailed(errorOf(reply.error), reply.lasting);
  const results: CallResult[] = calls.map(() => undefined);
  for (const { at, mismatch, error } of reply.failed) {
    const own = mismatch === undefined ? undefined : calls[at]?.[mismatch]?.onMismatch?.();
    results[at] = { error: own ?? (error === undefined ? undefined : errorOf(error)) };
  }
  return results;
}

export function plainError(error: unknown): PlainError {
  const operational = error instanceof OperationalError ? error : undefined;
  return {
    code: operational?.code,
    outcome: operational?.outcome ?? "unknown",
    message: error instanceof Error ? error.message : String(error),
    detail: operational?.detail,
    stack: error instanceof Error ? error.stack : undefined,
  };
}

export function errorOf({ code, outcome, message, detail, stack }: PlainError): Error {
  if (code !== undefined)
    return new OperationalError(code, message, detail === undefined ? { outcome } : { outcome, detail });
  const error = new Error(message);
  if (stack !== undefined) error.stack = stack;
  return error;
}
