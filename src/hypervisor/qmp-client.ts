/** One connection to a QEMU's monitor. QEMU serves one at a time: a second waits until the first is closed. */
import type { Socket } from "node:net";
import { OperationalError } from "#kernel/errors.ts";
import { invariant } from "#kernel/invariant.ts";
import type { Json } from "#kernel/json.ts";
import { QmpDecoder } from "#wire/qmp/qmp-decoder.ts";
import {
  encodeQmpCommand,
  type JsonObject,
  type QmpError,
  type QmpEvent,
  type QmpGreeting,
  type QmpMessage,
} from "#wire/qmp/qmp-message.ts";
import { connectUnix } from "#wire/local-api/unix-socket.ts";

interface Pending {
  readonly command: string;
  readonly resolve: (value: Json) => void;
  readonly reject: (error: Error) => void;
}

export type QmpListener = (event: QmpEvent) => void;

/** Connects, reads the greeting, and leaves the mode in which only capabilities may be asked for. Errors: `machine.failing`. */
export async function connectQmp(socketPath: string, signal?: AbortSignal): Promise<QmpClient> {
  const socket = await connectUnix(socketPath, "machine.failing", signal);
  const client = new QmpClient(socket);
  try {
    const { capabilities } = await client.greeting(signal);
    const enable = capabilities.filter((name) => name === "oob");
    await client.execute("qmp_capabilities", { enable }, signal);
    return client;
  } catch (error) {
    await client[Symbol.asyncDispose]();
    throw error;
  }
}

export class QmpClient implements AsyncDisposable {
  readonly #socket: Socket;
  readonly #decoder = new QmpDecoder();
  readonly #pending = new Map<string, Pending>();
  readonly #listeners = new Set<QmpListener>();
  readonly #greeted = Promise.withResolvers<QmpGreeting>();
  readonly #closed = Promise.withResolvers<void>();
  #isClosed = false;
  #nextId = 1;

  constructor(socket: Socket) {
    this.#socket = socket;
    // Nobody may be waiting for it when the connection ends.
    this.#greeted.promise.catch(() => {});
    socket.on("data", (bytes: Buffer) => this.#receive(bytes));
    socket.on("error", () => {});
    socket.once("close", () => this.#end());
  }

  /** Resolves when the connection is over: QEMU is gone, or has closed it. */
  get closed(): Promise<void> {
    return this.#closed.promise;
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  greeting(signal?: AbortSignal): Promise<QmpGreeting> {
    return abortable(this.#greeted.promise, signal);
  }

  /**
   * What the command returned. Errors: `machine.refused` with QEMU's error class as `remoteCode`; `machine.failing`, outcome
   * unknown, when the connection ended before the answer. An abort ends the waiting, not the command: its outcome is unknown.
   */
  execute(command: string, args?: JsonObject, signal?: AbortSignal): Promise<Json> {
    return this.#send(command, args, signal, false);
  }

  /**
   * Breaks the connections of NBD nodes, whatever they wait for, and so frees the guest's writes from a target that does not
   * answer. Served even while QEMU's main loop stands. A node that is not there, or not connected, is an error.
   */
  async yank(nodeNames: readonly string[], signal?: AbortSignal): Promise<void> {
    const instances = nodeNames.map((name) => ({ type: "block-node", "node-name": name }));
    await this.#send("yank", { instances }, signal, true);
  }

  async #send(
    command: string,
    args: JsonObject | undefined,
    signal: AbortSignal | undefined,
    outOfBand: boolean,
  ): Promise<Json> {
    signal?.throwIfAborted();
    if (this.#isClosed) throw gone(command, "not_applied");
    const id = String(this.#nextId++);
    const { promise, resolve, reject } = Promise.withResolvers<Json>();
    this.#pending.set(id, { command, resolve, reject });
    this.#socket.write(encodeQmpCommand(id, command, args, { outOfBand }));
    return abortable(promise, signal);
  }

  /** Called for every event until the returned function is called. */
  onEvent(listener: QmpListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /**
   * Events from this call on (not from the first `next`), until the connection ends or the signal aborts; both end the
   * iteration without an error. At most `limit` are kept for a slow reader; older ones are dropped.
   */
  events(signal?: AbortSignal, limit = 10_000): AsyncIterableIterator<QmpEvent> {
    const queue: QmpEvent[] = [];
    let wake = (): void => {};
    let over = this.#isClosed || signal?.aborted === true;
    const stop = this.onEvent((event) => {
      queue.push(event);
      if (queue.length > limit) queue.shift();
      wake();
    });
    const end = (): void => {
      over = true;
      stop();
      wake();
    };
    void this.closed.then(end);
    signal?.addEventListener("abort", end, { once: true });
    const next = async (): Promise<IteratorResult<QmpEvent, undefined>> => {
      for (;;) {
        const event = queue.shift();
        if (event !== undefined) return { value: event, done: false };
        if (over) return { value: undefined, done: true };
        const woken = Promise.withResolvers<void>();
        wake = woken.resolve;
        await woken.promise;
      }
    };
    return {
      next,
      return: () => {
        end();
        return Promise.resolve({ value: undefined, done: true });
      },
      [Symbol.asyncIterator]() {
        return this;
      },
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#socket.destroy();
    await this.closed;
  }

  #receive(bytes: Buffer): void {
    for (const decoded of this.#decoder.push(bytes)) {
      if (decoded.ok) this.#handle(decoded.message);
      else {
        // Which answer it was cannot be told: every waiting command would wait for ever.
        this.#socket.destroy(new Error(`not QMP: ${decoded.fault}`));
        return;
      }
    }
  }

  #handle(message: QmpMessage): void {
    if (message.kind === "greeting") this.#greeted.resolve(message);
    else if (message.kind === "event") for (const listener of this.#listeners) listener(message);
    else {
      const pending = message.id === null ? undefined : this.#pending.get(message.id);
      if (message.id === null || pending === undefined) return;
      this.#pending.delete(message.id);
      if (message.kind === "return") pending.resolve(message.value);
      else pending.reject(refusal(pending.command, message));
    }
  }

  #end(): void {
    invariant(!this.#isClosed, "a connection ends once");
    this.#isClosed = true;
    this.#greeted.reject(gone("the greeting", "not_applied"));
    for (const { command, reject } of this.#pending.values()) reject(gone(command, "unknown"));
    this.#pending.clear();
    this.#closed.resolve();
  }
}

function refusal(command: string, { errorClass, description }: QmpError): OperationalError {
  return new OperationalError("machine.refused", `QEMU refused ${command}: ${description}`, {
    remoteCode: errorClass,
  });
}

function gone(command: string, outcome: "not_applied" | "unknown"): OperationalError {
  return new OperationalError(
    "machine.failing",
    `the machine's monitor closed before it answered ${command}`,
    {
      outcome,
    },
  );
}

function abortable<Value>(promise: Promise<Value>, signal: AbortSignal | undefined): Promise<Value> {
  if (signal === undefined) return promise;
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(signal.reason as Error);
    if (signal.aborted) onAbort();
    signal.addEventListener("abort", onAbort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", onAbort));
  });
}
