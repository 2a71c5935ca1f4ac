/**
 * A request or an answer that breaks the protocol. An expected outcome, not an operational failure: the dialect that
 * caught it renders it with `encodeQueryError`, in the code and status that AWS itself would use.
 */
export class AwsProtocolError extends Error {
  override readonly name = "AwsProtocolError";
  /** AWS's own error code, e.g. `InvalidParameterValue`. */
  readonly code: string;
  /** HTTP status that goes with it. */
  readonly status: number;

  constructor(code: string, message: string, status = 400) {
    super(message);
    this.code = code;
    this.status = status;
  }
}
