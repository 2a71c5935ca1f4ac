/** The gateway's own problems in AWS's words: codes and statuses that SDKs retry where a retry can help, and only there. */
import type { AwsService } from "#wire/aws/service-model.ts";
import { encodeQueryError } from "#wire/aws/xml-encode.ts";
import type { Answer, Problem } from "#gateway/dialect.ts";

export interface AwsRefusal {
  readonly code: string;
  readonly status: number;
  readonly message: string;
  readonly retryAfterSeconds?: number;
}

export function renderRefusal(service: AwsService, refusal: AwsRefusal, requestId: string): Answer {
  const { code, status, message, retryAfterSeconds } = refusal;
  const headers = ["content-type", "text/xml;charset=UTF-8", "x-amzn-requestid", requestId];
  if (retryAfterSeconds !== undefined) headers.push("retry-after", String(retryAfterSeconds));
  return { status, headers, body: encodeQueryError(service, { code, message, requestId, status }) };
}

/** 5xx: the SDK repeats the request by itself, a few times. 4xx: it does not. */
export function refusalOf(problem: Problem): AwsRefusal {
  switch (problem.kind) {
    case "too_large":
      return {
        code: "RequestEntityTooLarge",
        status: 413,
        message: `The request body is larger than ${problem.limitBytes} bytes. Split the request.`,
      };
    case "forbidden":
      return {
        code: "UnauthorizedOperation",
        status: 403,
        message: `The access key ${problem.principal} may only read, and ${problem.operation} is a change. Use a key with the right to change.`,
      };
    case "overloaded":
      return {
        code: "RequestLimitExceeded",
        status: 503,
        retryAfterSeconds: problem.retryAfterSeconds,
        message: "Request limit exceeded: too many requests are in progress. Slow down, then repeat.",
      };
    case "no_upstream":
      return {
        code: "UnsupportedOperation",
        status: 400,
        message: `The active site of environment ${problem.environment} is no AWS with the service ${problem.service}. See "understudy status ${problem.environment}" for where it is: after a failover to a cloud of another kind, this gateway takes that cloud's own commands.`,
      };
    case "unreachable":
      return {
        code: "Unavailable",
        status: 503,
        retryAfterSeconds: 5,
        message: `The active site of environment ${problem.environment} did not answer. Nothing was changed by this request.`,
      };
    case "no_answer":
      return {
        code: "InternalError",
        status: 504,
        message: `${problem.operation} was sent to the active site of environment ${problem.environment}, and no answer came. Whether it took effect is being found out. Repeat it with the same token, or look before repeating it.`,
      };
    case "earlier_open":
      return {
        code: "Unavailable",
        status: 503,
        retryAfterSeconds: 5,
        message: `An earlier change of the same resources, or with the same token, is not settled after ${Math.round(problem.waitedMs / 1000)} s in environment ${problem.environment}. Nothing was changed by this request. Repeat it later.`,
      };
    case "not_recorded":
      return {
        code: "Unavailable",
        status: 503,
        retryAfterSeconds: 10,
        message: `${storeTrouble(problem.full)}, so the change could not be recorded and was not forwarded. Nothing was changed by this request.`,
      };
    case "outcome_not_recorded":
      return {
        code: "InternalError",
        status: 500,
        message: `${storeTrouble(problem.full)}, so the outcome of this change could not be recorded. The active site has answered it; it will be recorded as soon as that is possible. Look before repeating it.`,
      };
    case "fenced":
      return { code: "OperationNotPermitted", status: 400, message: movedMessage(problem) };
    case "closing":
      return {
        code: "Unavailable",
        status: 503,
        retryAfterSeconds: 5,
        message: "The gateway is closing. Repeat the request.",
      };
    case "internal":
      return {
        code: "InternalError",
        status: 500,
        message: "An internal error of the gateway. Its log says more; look before repeating a change.",
      };
  }
}

function storeTrouble(full: boolean): string {
  return full ? "The gateway's disk is full" : "The gateway's journal cannot be written";
}

function movedMessage({ environment, moved }: Problem & { kind: "fenced" }): string {
  if (moved === null) {
    return `Environment ${environment} has been moved by a failover. This gateway takes no changes for it; use the gateway of the active site.`;
  }
  const at = new Date(moved.at).toISOString();
  const advice = moved.advice ?? `Use the site ${moved.site} until the environment is back.`;
  return `Environment ${environment} has been failed over to site ${moved.site} at ${at}. This gateway takes no changes for it. ${advice}`;
}
