/**
 * EC2's error codes and a socket's, as the contract's errors.
 * https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
 */
import type { ErrorCode, OperationalErrorOptions, RetryClass } from "#kernel/errors.ts";
import { OperationalError } from "#kernel/errors.ts";

interface Verdict {
  readonly code: ErrorCode;
  readonly retry?: RetryClass;
  /** Completes `EC2 ... RunInstances: `. */
  readonly advice: string;
}

const conflictLater = (advice: string): Verdict => ({ code: "cloud.conflict", retry: "later", advice });

/** The first that matches counts. */
const verdicts: readonly (readonly [RegExp, Verdict])[] = [
  [
    /^(Request(Limit|Rate)?(Exceeded|Throttled|LimitExceeded)|Throttl.*|EC2ThrottledException|RequestThrottledException|ConcurrentLimitExceededException|TooManyRequests.*|SlowDown)$/,
    { code: "cloud.throttled", advice: "the account's request rate is used up: call it less often" },
  ],
  [
    /^(AuthFailure|UnauthorizedOperation|InvalidClientTokenId|SignatureDoesNotMatch|MissingAuthenticationToken|IncompleteSignature|OptInRequired|PendingVerification|Request(Has)?Expired|ExpiredToken.*|UnrecognizedClientException|AccessDenied.*|Blocked)$/,
    {
      code: "cloud.credentials",
      advice: "check the site's access key, its permissions and this machine's clock",
    },
  ],
  [/^TagLimitExceeded$/, { code: "cloud.refused", advice: "it would have too many tags" }],
  [
    /(LimitExceeded|QuotaExceeded(Exception)?|MaxSpotInstanceCountExceeded|ResourceCountExceeded)$/,
    {
      code: "cloud.quota",
      advice: "the account's limit is reached: ask for a higher one or delete something",
    },
  ],
  [
    /(NotFound|^ResourceNotFoundException|\.Malformed|^InvalidInstanceID|^NoSuch.*|^InvalidID)$/,
    { code: "cloud.not_found", advice: "something that it names does not exist" },
  ],
  [
    /(Duplicate|AlreadyExists|AlreadyAssociated|InvalidSubnet\.Conflict|IdempotentParameterMismatch|InstanceAlreadyLinked)$/,
    { code: "cloud.conflict", retry: "never", advice: "it exists already" },
  ],
  [
    /^(DependencyViolation|Incorrect.*State|IncorrectState|VolumeInUse|Invalid.*\.InUse|ConcurrentTagAccess|VolumeModificationRateExceeded|Conflict.*|ResourceInUse.*)$/,
    conflictLater("something else uses it or changes it: repeat it later"),
  ],
  [/^Insufficient.*Capacity$/, { code: "cloud.refused", advice: "the cloud has no capacity for it now" }],
  [
    /^(Unsupported.*|InvalidAction|NotImplemented.*|UnknownOperation.*)$/,
    { code: "cloud.unsupported", advice: "this cloud cannot do it" },
  ],
];

interface SdkError {
  readonly name?: string;
  readonly code?: string;
  readonly message?: string;
  readonly $metadata?: { readonly httpStatusCode?: number; readonly requestId?: string };
  readonly $response?: { readonly headers?: Readonly<Record<string, string | undefined>> };
}

/** The connection never came about, so that nothing was sent. */
const neverSent: ReadonlySet<string> = new Set([
  "ECONNREFUSED",
  "ENOTFOUND",
  "EAI_AGAIN",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "ERR_TLS_CERT_ALTNAME_INVALID",
  "DEPTH_ZERO_SELF_SIGNED_CERT",
  "SELF_SIGNED_CERT_IN_CHAIN",
  "UNABLE_TO_VERIFY_LEAF_SIGNATURE",
  "CERT_HAS_EXPIRED",
]);

function retryAfterMs(error: SdkError): number | undefined {
  const seconds = Number(error.$response?.headers?.["retry-after"]);
  return Number.isFinite(seconds) && seconds >= 0 ? seconds * 1000 : undefined;
}

function fromSocket(error: SdkError, operation: string, change: boolean): OperationalError {
  const socketCode = error.code ?? error.name ?? "unknown";
  const detail = `${socketCode}: ${error.message ?? ""}`;
  const connecting = /without establishing a connection|Connection timed out/i.test(error.message ?? "");
  if (neverSent.has(socketCode) || connecting) {
    const message = `EC2 cannot be reached for ${operation} (${socketCode}): check the site's endpoint and the network`;
    return new OperationalError("cloud.unreachable", message, { detail, cause: error });
  }
  const timedOut = error.name === "TimeoutError" || socketCode === "ETIMEDOUT";
  return new OperationalError(
    timedOut ? "cloud.timeout" : "cloud.unreachable",
    `EC2 did not answer ${operation} (${socketCode})`,
    { outcome: change ? "unknown" : "not_applied", detail, cause: error },
  );
}

/** `change`: whether the operation changes something, so that a lost answer leaves its outcome open. */
export function ec2Error(thrown: unknown, operation: string, change: boolean): OperationalError {
  if (thrown instanceof OperationalError) return thrown;
  const error = (thrown ?? {}) as SdkError;
  const status = error.$metadata?.httpStatusCode;
  if (status === undefined) return fromSocket(error, operation, change);
  const remoteCode = error.name ?? "unknown";
  const text = (error.message ?? "").slice(0, 500);
  const waitMs = retryAfterMs(error);
  const options: OperationalErrorOptions = {
    remoteCode,
    detail: `${remoteCode}: ${text} (HTTP ${status}, request ${error.$metadata?.requestId ?? "-"})`,
    cause: thrown,
    ...(waitMs === undefined ? {} : { retryAfterMs: waitMs }),
  };
  const verdict = verdicts.find(([pattern]) => pattern.test(remoteCode))?.[1];
  if (verdict !== undefined) {
    const message = `EC2 refused ${operation} (${remoteCode}): ${verdict.advice}`;
    return new OperationalError(verdict.code, message, {
      ...options,
      ...(verdict.retry === undefined ? {} : { retry: verdict.retry }),
    });
  }
  if (status >= 500) {
    const message = `EC2 failed at ${operation} (${remoteCode}, HTTP ${status})`;
    return new OperationalError("cloud.failing", message, {
      ...options,
      outcome: change ? "unknown" : "not_applied",
    });
  }
  if (status < 400) {
    const message = `EC2's answer to ${operation} cannot be read: is the endpoint an EC2 API?`;
    return new OperationalError("cloud.protocol", message, {
      ...options,
      outcome: change ? "unknown" : "not_applied",
    });
  }
  return new OperationalError("cloud.refused", `EC2 refused ${operation} (${remoteCode}): ${text}`, options);
}
