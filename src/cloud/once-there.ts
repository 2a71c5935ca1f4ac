/** The honest outcome of an operation that takes several calls. */
import { isOperational, OperationalError } from "#kernel/errors.ts";

/**
 * The steps of a create that follow once the resource is there: tags, routes, power, the wait until a listing shows it. Whatever
 * fails in them, the resource exists: an error that says `not_applied` of its own call says `applied` of the whole, so that
 * nobody takes it for proof that a second one may be made.
 */
export async function onceThere<T>(steps: () => Promise<T>): Promise<T> {
  try {
    return await steps();
  } catch (error) {
    if (!isOperational(error) || error.outcome !== "not_applied") throw error;
    const { code, message, retry, detail, remoteCode, retryAfterMs } = error;
    throw new OperationalError(code, message, {
      outcome: "applied",
      retry,
      cause: error,
      ...(detail === undefined ? {} : { detail }),
      ...(remoteCode === undefined ? {} : { remoteCode }),
      ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
    });
  }
}
