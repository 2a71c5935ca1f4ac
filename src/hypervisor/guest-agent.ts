/** QEMU's guest agent (`qemu-ga`, QEMU document `interop/qemu-ga`): one question at a time over a serial port. */
import type { Socket } from "node:net";
import { join } from "node:path";
import { OperationalError } from "#kernel/errors.ts";
import type { Json } from "#kernel/json.ts";
import type { Random } from "#kernel/random.ts";
import { QmpDecoder } from "#wire/qmp/qmp-decoder.ts";
import type { JsonObject } from "#wire/qmp/qmp-message.ts";
import type { MachineView } from "./machine-view.ts";
import { machineFiles } from "./plan-command-line.ts";
import { connectUnix } from "#wire/local-api/unix-socket.ts";

const ANSWER_LIMIT_MS = 5000;
const POLL_MS = 50;

export interface ExecResult {
  readonly exitCode: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Errors of all calls: `machine.failing` when no agent answers in time, `machine.refused` when it refuses. */
export class GuestAgent {
  readonly #machine: MachineView;
  #queue: Promise<unknown> = Promise.resolve();

  constructor(machine: MachineView) {
    this.#machine = machine;
  }

  async ping(signal?: AbortSignal): Promise<void> {
    await this.ask("guest-ping", undefined, signal);
  }

  /** Returns how many file systems stand still. `thaw` must follow: QEMU's own agent has no time limit (see guests/freeze-watch.ts). */
  async freeze(signal?: AbortSignal): Promise<number> {
    return Number(await this.ask("guest-fsfreeze-freeze", undefined, signal));
  }

  async thaw(signal?: AbortSignal): Promise<number> {
    return Number(await this.ask("guest-fsfreeze-thaw", undefined, signal));
  }

  /** Waits for the program's end. */
  async exec(path: string, args: readonly string[], signal?: AbortSignal): Promise<ExecResult> {
    const request = { path, arg: args, "capture-output": true };
    const { pid } = (await this.ask("guest-exec", request, signal)) as { pid: number };
    for (;;) {
      const status = (await this.ask("guest-exec-status", { pid }, signal)) as {
        exited: boolean;
        exitcode?: number;
        "out-data"?: string;
        "err-data"?: string;
      };
      if (status.exited) {
        return {
          exitCode: status.exitcode ?? null,
          stdout: Buffer.from(status["out-data"] ?? "", "base64").toString(),
          stderr: Buffer.from(status["err-data"] ?? "", "base64").toString(),
        };
      }
      await this.#machine.deps.clock.sleep(POLL_MS, signal);
    }
  }

  /** Any command of the agent's. */
  ask(command: string, args?: JsonObject, signal?: AbortSignal): Promise<Json> {
    const asked = this.#queue.then(() => this.#exchange(command, args, signal));
    this.#queue = asked.catch(() => {});
    return asked;
  }

  async #exchange(
    command: string,
    args: JsonObject | undefined,
    signal: AbortSignal | undefined,
  ): Promise<Json> {
    const limits = [AbortSignal.timeout(ANSWER_LIMIT_MS), ...(signal === undefined ? [] : [signal])];
    const limit = AbortSignal.any(limits);
    if (!this.#machine.isOn)
      throw new OperationalError("machine.refused", `machine ${this.#machine.id} is off`);
    const socket = await connectUnix(
      join(this.#machine.folder, machineFiles.agentSocket),
      "machine.failing",
      limit,
    );
    try {
      return await converse(socket, this.#machine.deps.random, command, args, limit);
    } catch (error) {
      signal?.throwIfAborted();
      if (!limit.aborted) throw error;
      throw new OperationalError(
        "machine.failing",
        `no guest agent answered ${command} in machine ${this.#machine.id}`,
        {
          outcome: "unknown",
        },
      );
    } finally {
      socket.destroy();
    }
  }
}

/**
 * A byte 0xFF makes the agent forget half a command that an earlier connection left; the answer to `guest-sync-delimited` tells
 * where answers to that one's commands end.
 */
async function converse(
  socket: Socket,
  random: Random,
  command: string,
  args: JsonObject | undefined,
  limit: AbortSignal,
): Promise<Json> {
  const decoder = new QmpDecoder();
  const token = Math.floor(random.fraction() * 2 ** 31);
  const { promise, resolve, reject } = Promise.withResolvers<Json>();
  let synced = false;
  socket.on("data", (bytes: Buffer) => {
    for (const decoded of decoder.push(bytes)) {
      if (!decoded.ok) continue;
      const { message } = decoded;
      if (!synced) synced = message.kind === "return" && message.value === token;
      else if (message.kind === "return") resolve(message.value);
      else if (message.kind === "error") {
        reject(
          new OperationalError(
            "machine.refused",
            `the guest agent refused ${command}: ${message.description}`,
            {
              remoteCode: message.errorClass,
            },
          ),
        );
      }
    }
  });
  // A guest without an agent does not read: when its QEMU ends, the question is still there, and the connection is reset.
  const ended = (cause?: unknown): void =>
    reject(
      new OperationalError("machine.failing", "the guest agent's port closed", { outcome: "unknown", cause }),
    );
  socket.on("error", ended);
  socket.once("close", () => ended());
  limit.addEventListener("abort", () => reject(limit.reason as Error), { once: true });
  socket.write(Buffer.from([0xff]));
  socket.write(`${JSON.stringify({ execute: "guest-sync-delimited", arguments: { id: token } })}\n`);
  socket.write(`${JSON.stringify({ execute: command, ...(args && { arguments: args }) })}\n`);
  return promise;
}
