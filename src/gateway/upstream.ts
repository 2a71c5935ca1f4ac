/** The way to an environment's active cloud: pooled connections, and an honest word on how far a request got. */
import { type Dispatcher, Pool } from "undici";
import { OperationalError } from "#kernel/errors.ts";
import { invariant } from "#kernel/invariant.ts";
import { hopByHop } from "#wire/http/hop-by-hop.ts";
import type { CloudAnswer, FlatHeaders, SignedRequest, UpstreamService } from "./dialect.ts";

/** `sent: false`: nothing left this process, so nothing can have been changed. */
export type Exchange =
  | { readonly ok: true; readonly answer: CloudAnswer }
  | { readonly ok: false; readonly sent: boolean; readonly error: Error };

/** Where a streamed answer goes. `write` returns false when it wants to be waited for. */
export interface AnswerSink {
  start(status: number, headers: FlatHeaders): void;
  write(chunk: Buffer): boolean;
  end(): void;
  /** Calls back whenever the sink can take more. */
  onDrain(resume: () => void): void;
  /** Calls back if whoever reads the answer is gone. */
  onGone(abort: () => void): void;
}

export type StreamEnd =
  | { readonly ok: true; readonly status: number }
  /** `started`: a part of the answer has gone out, so no other can follow. */
  | { readonly ok: false; readonly sent: boolean; readonly started: boolean; readonly error: Error };

export interface UpstreamLimits {
  readonly connections: number;
  readonly connectTimeoutMs: number;
  /** Between sending a request and the answer's head, and between two pieces of its body. */
  readonly answerTimeoutMs: number;
}

export class UpstreamConnections {
  readonly #options: Pool.Options;
  readonly #answerTimeoutMs: number;
  readonly #home: string;
  /** By origin: the endpoint's own, and those that signed requests name. */
  readonly #pools = new Map<string, Pool>();
  #closed = false;

  constructor(service: UpstreamService, limits: UpstreamLimits) {
    this.#answerTimeoutMs = limits.answerTimeoutMs;
    this.#options = {
      connections: limits.connections,
      pipelining: 1,
      headersTimeout: limits.answerTimeoutMs,
      bodyTimeout: limits.answerTimeoutMs,
      connect: {
        timeout: limits.connectTimeoutMs,
        ...(service.ca === undefined ? {} : { ca: service.ca }),
      },
    };
    this.#home = new URL(service.endpoint).origin;
  }

  /** Sends, and reads the answer whole, up to `maxBytes`. Never rejects. */
  exchange(request: SignedRequest, maxBytes: number, signal?: AbortSignal): Promise<Exchange> {
    return new Promise((resolve) => {
      this.#poolFor(request).dispatch(this.#dispatch(request), new WholeAnswer(maxBytes, signal, resolve));
    });
  }

  /** Sends, and passes the answer on piece by piece at the pace of the sink. Never rejects. */
  stream(request: SignedRequest, sink: AnswerSink): Promise<StreamEnd> {
    return new Promise((resolve) => {
      this.#poolFor(request).dispatch(this.#dispatch(request), new StreamedAnswer(sink, resolve));
    });
  }

  /** Ends idle connections; those in use end when their request does, or after `graceMs`. */
  async close(graceMs: number): Promise<void> {
    this.#closed = true;
    const pools = [...this.#pools.values()];
    const timer = setTimeout(() => {
      for (const pool of pools) void pool.destroy();
    }, graceMs);
    try {
      await Promise.all(pools.map((pool) => pool.close()));
    } finally {
      clearTimeout(timer);
    }
  }

  #poolFor({ origin = this.#home }: SignedRequest): Pool {
    let pool = this.#pools.get(origin);
    if (pool === undefined) {
      pool = new Pool(origin, this.#options);
      if (this.#closed) void pool.close();
      this.#pools.set(origin, pool);
    }
    return pool;
  }

  #dispatch(request: SignedRequest): Dispatcher.DispatchOptions {
    return {
      method: request.method,
      path: request.path,
      headers: request.headers as string[],
      body: request.body,
      headersTimeout: this.#answerTimeoutMs,
      bodyTimeout: this.#answerTimeoutMs,
    };
  }
}

class WholeAnswer implements Dispatcher.DispatchHandler {
  readonly #maxBytes: number;
  readonly #signal: AbortSignal | undefined;
  readonly #done: (exchange: Exchange) => void;
  readonly #chunks: Buffer[] = [];
  #abort: (() => void) | undefined;
  #sent = false;
  #size = 0;
  #status = 0;
  #headers: FlatHeaders = [];

  constructor(maxBytes: number, signal: AbortSignal | undefined, done: (exchange: Exchange) => void) {
    this.#maxBytes = maxBytes;
    this.#signal = signal;
    this.#done = done;
  }

  /** Called right before the first byte is written to a socket: from here on, the request may have been received. */
  onRequestStart(controller: Dispatcher.DispatchController): void {
    const signal = this.#signal;
    if (signal !== undefined) {
      this.#abort = () => controller.abort(signal.reason as Error);
      if (signal.aborted) {
        this.#abort();
        return;
      }
      signal.addEventListener("abort", this.#abort, { once: true });
    }
    this.#sent = true;
  }

  onResponseStart(controller: Dispatcher.DispatchController, status: number): void {
    this.#status = status;
    this.#headers = endToEnd(controller.rawHeaders);
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    this.#size += chunk.length;
    if (this.#size > this.#maxBytes) {
      controller.abort(new OperationalError("cloud.protocol", "the cloud's answer is too large"));
      return;
    }
    this.#chunks.push(chunk);
  }

  onResponseEnd(): void {
    this.#forget();
    const [only] = this.#chunks;
    const body = this.#chunks.length === 1 && only !== undefined ? only : Buffer.concat(this.#chunks);
    this.#done({ ok: true, answer: { status: this.#status, headers: this.#headers, body } });
  }

  onResponseError(_controller: Dispatcher.DispatchController, error: Error): void {
    this.#forget();
    this.#done({ ok: false, sent: this.#sent, error });
  }

  #forget(): void {
    if (this.#abort !== undefined) this.#signal?.removeEventListener("abort", this.#abort);
  }
}

class StreamedAnswer implements Dispatcher.DispatchHandler {
  readonly #sink: AnswerSink;
  readonly #done: (end: StreamEnd) => void;
  #controller: Dispatcher.DispatchController | undefined;
  #gone = false;
  #started = false;
  #status = 0;

  constructor(sink: AnswerSink, done: (end: StreamEnd) => void) {
    this.#sink = sink;
    this.#done = done;
    sink.onDrain(() => this.#controller?.resume());
    sink.onGone(() => {
      this.#gone = true;
      this.#controller?.abort(gone());
    });
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller;
    if (this.#gone) controller.abort(gone());
  }

  onResponseStart(controller: Dispatcher.DispatchController, status: number): void {
    // An interim answer (1xx) is not passed on.
    if (status < 200) return;
    this.#started = true;
    this.#status = status;
    this.#sink.start(status, endToEnd(controller.rawHeaders));
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    if (!this.#sink.write(chunk)) controller.pause();
  }

  onResponseEnd(): void {
    this.#sink.end();
    this.#done({ ok: true, status: this.#status });
  }

  onResponseError(controller: Dispatcher.DispatchController | undefined, error: Error): void {
    this.#done({ ok: false, sent: controller !== undefined, started: this.#started, error });
  }
}

function gone(): OperationalError {
  return new OperationalError("aborted", "whoever asked is gone");
}

/** The headers that belong to the answer itself, as the cloud wrote them. */
function endToEnd(raw: Dispatcher.DispatchController["rawHeaders"]): FlatHeaders {
  invariant(Array.isArray(raw), "undici hands over the raw headers of an HTTP/1.1 answer");
  const kept: string[] = [];
  for (let at = 0; at + 1 < raw.length; at += 2) {
    const name = String(raw[at]);
    if (!hopByHop.has(name.toLowerCase())) kept.push(name, latin1(raw[at + 1]));
  }
  return kept;
}

function latin1(value: Buffer | string | undefined): string {
  return typeof value === "string" ? value : (value?.toString("latin1") ?? "");
}
