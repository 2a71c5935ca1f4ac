import { connect } from "node:net";
import { OperationalError } from "#kernel/errors.ts";

/** Where HAProxy's `stats socket` listens. */
export type HaproxySocket = { readonly path: string } | { readonly host: string; readonly port: number };

const MAX_ANSWER_BYTES = 16 * 1024 * 1024;

function placeOf(socket: HaproxySocket): string {
  return "path" in socket ? socket.path : `${socket.host}:${socket.port}`;
}

/**
 * One command on a connection of its own, as the runtime API's non-interactive mode has it: HAProxy answers and
 * closes. `outcome` of a failure says what is known of the command.
 */
export function askHaproxy(
  socket: HaproxySocket,
  command: string,
  timeoutMs: number,
  signal: AbortSignal,
): Promise<string> {
  return new Promise((resolve, reject) => {
    let sent = false;
    let settled = false;
    let size = 0;
    const chunks: Buffer[] = [];
    const connection = connect(socket);
    const settle = (act: () => void): void => {
      if (settled) return;
      settled = true;
      clearTimeout(timer);
      signal.removeEventListener("abort", onAbort);
      connection.destroy();
      act();
    };
    const fail = (what: string, cause?: Error): void =>
      settle(() =>
        reject(
          new OperationalError(
            "traffic.unreachable",
            `HAProxy's runtime socket ${placeOf(socket)} ${what}: check that HAProxy runs and has this \`stats socket\``,
            {
              outcome: sent ? "unknown" : "not_applied",
              detail: `${command}: ${cause instanceof Error ? cause.message : what}`,
              cause,
            },
          ),
        ),
      );
    const timer = setTimeout(() => fail(`gave no answer within ${timeoutMs} ms`), timeoutMs);
    const onAbort = (): void =>
      settle(() =>
        reject(
          new OperationalError("aborted", "the switch at HAProxy was aborted", {
            outcome: sent ? "unknown" : "not_applied",
            cause: signal.reason,
          }),
        ),
      );
    if (signal.aborted) {
      onAbort();
      return;
    }
    signal.addEventListener("abort", onAbort, { once: true });
    connection.on("connect", () => {
      sent = true;
      connection.write(`${command}\n`);
    });
    connection.on("data", (chunk: Buffer) => {
      size += chunk.length;
      if (size > MAX_ANSWER_BYTES) fail("sent more than an answer can be");
      else chunks.push(chunk);
    });
    connection.on("error", (cause: NodeJS.ErrnoException) =>
      fail(cause.code === "EACCES" ? "may not be opened by this user" : "does not answer", cause),
    );
    connection.on("close", () => settle(() => resolve(Buffer.concat(chunks).toString("latin1").trim())));
  });
}
