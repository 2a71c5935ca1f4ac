/** A host agent's errors in the contract's terms. */
import { type ErrorCode, OperationalError } from "#kernel/errors.ts";

const codes: Partial<Record<ErrorCode, ErrorCode>> = {
  "input.invalid": "cloud.refused",
  "input.too_large": "cloud.refused",
  "machine.refused": "cloud.refused",
  "machine.failing": "cloud.failing",
  "store.full": "cloud.failing",
  "store.failing": "cloud.failing",
  internal: "cloud.failing",
};

/** What the agent threw is one of its own; what it is told of the outcome stands, and a bug of the agent's says nothing of it. */
export function hostError(error: OperationalError, where: string): OperationalError {
  if (error.code.startsWith("cloud.")) return error;
  if (error.code === "not_found") {
    // A site's own is `cloud.not_found`: this one says that there is no such method.
    const message = `what answers at ${where} is no host agent with a site: name the address of "understudy host up"`;
    return new OperationalError("cloud.protocol", message, { retry: "never", cause: error });
  }
  const { code, message, outcome, detail, retryAfterMs } = error;
  return new OperationalError(codes[code] ?? "cloud.failing", `the host agent refused: ${message}`, {
    outcome: code === "internal" ? "unknown" : outcome,
    remoteCode: code,
    cause: error,
    ...(detail === undefined ? {} : { detail }),
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
  });
}
