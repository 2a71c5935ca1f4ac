/** What SQLite's result codes mean to a user (https://www.sqlite.org/rescode.html). */
import { OperationalError } from "#kernel/errors.ts";
import type { Outcome } from "#kernel/errors.ts";

const primary = {
  perm: 3,
  busy: 5,
  locked: 6,
  noMemory: 7,
  readOnly: 8,
  ioError: 10,
  corrupt: 11,
  full: 13,
  cantOpen: 14,
  protocol: 15,
  constraint: 19,
  notADatabase: 26,
} as const;

/** `SQLITE_IOERR_SHMSIZE`: the shared-memory file could not grow, which is a full disk by another name. */
const ioErrorShmSize = 4874;

interface SqliteError extends Error {
  readonly errcode: number;
  readonly errstr: string;
}

function isSqliteError(error: unknown): error is SqliteError {
  return error instanceof Error && "errcode" in error && typeof error.errcode === "number";
}

function primaryCode(error: SqliteError): number {
  return error.errcode & 0xff;
}

/** True for failures of the disk or the file, after which the whole transaction is void; false for one statement's own. */
export function voidsTransaction(error: unknown): boolean {
  if (!isSqliteError(error)) return false;
  const code = primaryCode(error);
  return code !== primary.constraint && Object.values<number>(primary).includes(code);
}

export function isBusy(error: unknown): boolean {
  return isSqliteError(error) && primaryCode(error) === primary.busy;
}

export function isConstraint(error: unknown): boolean {
  return isSqliteError(error) && primaryCode(error) === primary.constraint;
}

const noSpace = (path: string): string =>
  `no space left for ${path}: nothing was recorded; free space on its disk (or raise the quota), then repeat`;

const notWritable = (path: string): string =>
  `${path} cannot be written: give this process's user write permission on it and its directory`;

interface SystemError extends Error {
  readonly code: string;
}

export function isSystemError(error: unknown): error is SystemError {
  return error instanceof Error && "syscall" in error && "code" in error && typeof error.code === "string";
}

/** The same for what the operating system said before SQLite had the file. */
function fileError(error: SystemError, path: string, outcome: Outcome): OperationalError {
  const options = { outcome, detail: error.message, cause: error };
  switch (error.code) {
    case "ENOSPC":
    case "EDQUOT":
      return new OperationalError("store.full", noSpace(path), options);
    case "EACCES":
    case "EPERM":
    case "EROFS":
      return new OperationalError("store.failing", notWritable(path), options);
    default:
      return new OperationalError("store.failing", `${path} cannot be opened: ${error.message}`, options);
  }
}

/** Names what is wrong with the file and what to do. What is not the disk's fault comes back as it was. */
export function storeError(error: unknown, path: string, outcome: Outcome = "not_applied"): unknown {
  if (isSystemError(error)) return fileError(error, path, outcome);
  if (!isSqliteError(error)) return error;
  const detail = `${error.errstr} (SQLite ${error.errcode}): ${error.message}`;
  const failing = (message: string): OperationalError =>
    new OperationalError("store.failing", message, { outcome, detail, cause: error });
  if (error.errcode === ioErrorShmSize || primaryCode(error) === primary.full) {
    return new OperationalError("store.full", noSpace(path), { outcome, detail, cause: error });
  }
  switch (primaryCode(error)) {
    case primary.constraint:
      return new OperationalError("state.conflict", `the store refused the record: ${error.message}`, {
        detail,
        cause: error,
      });
    case primary.busy:
    case primary.locked:
      return failing(`another process is writing ${path}: stop it, since one engine at a time may write`);
    case primary.corrupt:
    case primary.notADatabase:
      return failing(`${path} is damaged or not a SQLite database: keep a copy and restore it from a backup`);
    case primary.readOnly:
    case primary.perm:
    case primary.cantOpen:
      return failing(notWritable(path));
    case primary.ioError:
    case primary.protocol:
      return failing(`the disk under ${path} fails: look at the system log, then restart understudy`);
    case primary.noMemory:
      return failing(`not enough memory to use ${path}: give this process more, then repeat`);
    default:
      return error;
  }
}

/** A record that was acknowledged before the database had judged it. */
export function cannotFollow(error: unknown): OperationalError {
  return new OperationalError(
    "store.failing",
    "the database refuses a record that was acknowledged: nothing more is recorded. Keep a copy of the data directory and report this",
    { outcome: "unknown", detail: String(error), cause: error },
  );
}
