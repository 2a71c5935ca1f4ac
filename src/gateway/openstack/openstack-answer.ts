/** Answers of the gateway's own in the form of each OpenStack service. */
import type { OpenstackService } from "#wire/openstack/keystone.ts";
import { encodeOpenstackError } from "#wire/openstack/openstack-errors.ts";
import type { Answer, FlatHeaders, Problem } from "#gateway/dialect.ts";

export function jsonAnswer(status: number, body: unknown, headers: FlatHeaders = []): Answer {
  return { status, headers: ["content-type", "application/json", ...headers], body: JSON.stringify(body) };
}

export interface OpenstackRefusal {
  readonly status: number;
  /** Neutron's type of the error. */
  readonly type?: string;
  readonly message: string;
  readonly retryAfterSeconds?: number;
}

export function refuse(
  service: OpenstackService,
  refusal: OpenstackRefusal,
  headers: FlatHeaders = [],
): Answer {
  const { status, type = neutronTypes[status] ?? "BadRequest", message, retryAfterSeconds } = refusal;
  const { contentType, body } = encodeOpenstackError(
    service,
    { status, code: type, message },
    retryAfterSeconds,
  );
  const retry = retryAfterSeconds === undefined ? [] : ["retry-after", String(retryAfterSeconds)];
  return { status, headers: ["content-type", contentType, ...retry, ...headers], body };
}

const neutronTypes: Readonly<Record<number, string>> = {
  403: "PolicyNotAuthorized",
  404: "HTTPNotFound",
  409: "Conflict",
  413: "OverLimit",
  500: "HTTPInternalServerError",
  503: "ServiceUnavailable",
};

/** As Keystone and the token middleware before every other service say it. */
export function unauthorized(
  base: string,
  message = "The request you have made requires authentication.",
): Answer {
  return refuse("identity", { status: 401, message }, [
    "www-authenticate",
    `Keystone uri="${base}/identity"`,
    "vary",
    "X-Auth-Token",
  ]);
}

/** 413 with Retry-After is Nova's own way to say "slow down"; 503 is repeated by most clients, 409 and 4xx by none. */
export function refusalOf(problem: Problem): OpenstackRefusal {
  switch (problem.kind) {
    case "too_large":
      return {
        status: 413,
        message: `The request body is larger than ${problem.limitBytes} bytes. Upload images to the cloud itself: their data does not pass through this gateway.`,
      };
    case "forbidden":
      return {
        status: 403,
        message: `The access key ${problem.principal} may only read, and ${problem.operation} is a change. Use a key with the right to change.`,
      };
    case "overloaded":
      return {
        status: 413,
        retryAfterSeconds: problem.retryAfterSeconds,
        message: "Too many requests are in progress. Slow down, then repeat.",
      };
    case "no_upstream":
      return {
        status: 503,
        message: `The active site of environment ${problem.environment} is no OpenStack with the service ${problem.service}. See "understudy env show ${problem.environment}" for where it is.`,
      };
    case "unreachable":
      return {
        status: 503,
        retryAfterSeconds: 5,
        message: `The active site of environment ${problem.environment} did not answer. Nothing was changed by this request.`,
      };
    case "no_answer":
      return {
        status: 504,
        message: `${problem.operation} was sent to the active site of environment ${problem.environment}, and no answer came. Whether it took effect is being found out. Look before repeating it.`,
      };
    case "earlier_open":
      return {
        status: 503,
        retryAfterSeconds: 5,
        message: `An earlier change of the same resources is not settled after ${Math.round(problem.waitedMs / 1000)} s in environment ${problem.environment}. Nothing was changed by this request. Repeat it later.`,
      };
    case "not_recorded":
      return {
        status: 503,
        retryAfterSeconds: 10,
        message: `${storeTrouble(problem.full)}, so the change could not be recorded and was not forwarded. Nothing was changed by this request.`,
      };
    case "outcome_not_recorded":
      return {
        status: 500,
        message: `${storeTrouble(problem.full)}, so the outcome of this change could not be recorded. The active site has answered it; it will be recorded as soon as that is possible. Look before repeating it.`,
      };
    case "fenced":
      return { status: 409, message: movedMessage(problem) };
    case "closing":
      return { status: 503, retryAfterSeconds: 5, message: "The gateway is closing. Repeat the request." };
    case "internal":
      return {
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
