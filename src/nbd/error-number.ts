/** What a failure is called on the wire, and what a number on the wire means here. */
import { type ErrorCode, OperationalError, type Outcome } from "#kernel/errors.ts";
import { nbdError } from "#wire/nbd/protocol.ts";

const byCode: Partial<Record<ErrorCode, number>> = {
  "store.full": nbdError.ENOSPC,
  "cloud.quota": nbdError.ENOSPC,
  "auth.forbidden": nbdError.EPERM,
  "state.fenced": nbdError.EPERM,
  "input.invalid": nbdError.EINVAL,
  "disk.range": nbdError.EINVAL,
  "input.too_large": nbdError.EOVERFLOW,
  "cloud.unsupported": nbdError.ENOTSUP,
  aborted: nbdError.ESHUTDOWN,
};

const byErrno: Readonly<Record<string, number>> = {
  ENOSPC: nbdError.ENOSPC,
  // The document asks for these two to be told as ENOSPC.
  EDQUOT: nbdError.ENOSPC,
  EFBIG: nbdError.ENOSPC,
  EPERM: nbdError.EPERM,
  EACCES: nbdError.EPERM,
  EROFS: nbdError.EPERM,
  EINVAL: nbdError.EINVAL,
  ENOTSUP: nbdError.ENOTSUP,
  EOPNOTSUPP: nbdError.ENOTSUP,
};

/** EIO for whatever has no number of its own. */
export function errorNumberOf(error: unknown): number {
  if (error instanceof OperationalError) return byCode[error.code] ?? nbdError.EIO;
  const errno = (error as { readonly code?: unknown } | null)?.code;
  return (typeof errno === "string" ? byErrno[errno] : undefined) ?? nbdError.EIO;
}

const names = new Map<number, string>(Object.entries(nbdError).map(([name, value]) => [value, name]));

/** A server's answer as an error. `said` is the server's own text, for the log. */
export function errorFromNumber(
  error: number,
  request: { readonly what: string; readonly outcome: Outcome; readonly said?: string },
): OperationalError {
  const name = names.get(error) ?? `error ${error}`;
  const codes: Partial<Record<number, ErrorCode>> = {
    [nbdError.ENOSPC]: "store.full",
    [nbdError.EPERM]: "auth.forbidden",
    [nbdError.EINVAL]: "nbd.refused",
    [nbdError.EOVERFLOW]: "nbd.refused",
    [nbdError.ENOTSUP]: "nbd.refused",
    [nbdError.ESHUTDOWN]: "nbd.unreachable",
  };
  return new OperationalError(
    codes[error] ?? "disk.failing",
    `the NBD server answered ${name} to ${request.what}`,
    {
      outcome: request.outcome,
      remoteCode: name,
      ...(request.said && { detail: request.said }),
    },
  );
}
