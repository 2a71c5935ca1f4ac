/** OpenStack's error answers as operational errors. Pure. */
import { OperationalError } from "#kernel/errors.ts";
import type { ErrorCode, Outcome, RetryClass } from "#kernel/errors.ts";
import type { OpenstackService } from "#wire/openstack/keystone.ts";
import { decodeOpenstackError } from "#wire/openstack/openstack-errors.ts";
import type { OpenstackError } from "#wire/openstack/openstack-errors.ts";
import type { HttpAnswer } from "./http-client.ts";

export interface FailedCall {
  readonly service: OpenstackService;
  readonly method: string;
  readonly path: string;
  readonly change: boolean;
}

interface Verdict {
  readonly code: ErrorCode;
  readonly advice?: string;
  readonly retry?: RetryClass;
  readonly outcome?: Outcome;
}

const quotaText =
  /quota|no more ip addresses|exceeds allowed|maximum number of|too many metadata|limit.*exceeded/i;
const missingText = /could not be found|can ?not find|unable to find|not found|invalid key_name/i;
/** Cinder and Nova answer 400 for a volume that is busy. */
const busyText = /invalid volume: .*(status|already attached|in-use|attached)|volume status must be/i;
const unreadyNetwork = new Set(["IpAddressGenerationFailure"]);

/** Seconds or an HTTP date (RFC 9110, 10.2.3), as milliseconds; `undefined`: none, or unreadable. */
export function retryAfterMs(value: string | undefined, nowMs: number): number | undefined {
  if (value === undefined) return undefined;
  if (/^\d{1,6}(\.\d+)?$/.test(value.trim())) return Math.round(Number(value) * 1000);
  const at = Date.parse(value);
  return Number.isNaN(at) ? undefined : Math.max(0, at - nowMs);
}

const loginVerdict: Verdict = {
  code: "cloud.credentials",
  advice: "check the site's credentials, project and domain",
};

function verdictOn(service: OpenstackService, error: OpenstackError, asked: number | undefined): Verdict {
  const { status, code, message } = error;
  // Keystone answers 404 for a token or an application credential that it does not know.
  const unknownLogin = service === "identity" && status === 404 && /token|credential/i.test(message);
  if (unknownLogin) return loginVerdict;
  const quota = quotaText.test(message) || code === "OverQuota" || unreadyNetwork.has(code);
  switch (status) {
    case 400:
      if (busyText.test(message)) return { code: "cloud.conflict" };
      if (missingText.test(message)) return { code: "cloud.not_found", advice: "check the id or name" };
      return { code: quota ? "cloud.quota" : "cloud.refused" };
    case 401:
      return loginVerdict;
    case 403:
      return quota
        ? { code: "cloud.quota", advice: "raise the project's quota or free resources" }
        : { code: "cloud.refused", advice: "check the roles that the credentials have in the project" };
    case 404:
      return { code: "cloud.not_found" };
    case 405:
    case 406:
    case 501:
      return { code: "cloud.unsupported" };
    case 409:
      return quota
        ? { code: "cloud.quota", advice: "raise the project's quota or free resources" }
        : { code: "cloud.conflict" };
    case 413:
      // Cinder's quota errors come with a Retry-After of 0.
      return quota && !asked ? { code: "cloud.quota" } : { code: "cloud.throttled" };
    case 429:
      return { code: "cloud.throttled" };
    case 503:
      return asked === undefined
        ? { code: "cloud.failing", outcome: "unknown" }
        : { code: "cloud.throttled", outcome: "unknown" };
    default:
      if (status >= 500) return { code: "cloud.failing", outcome: "unknown" };
      return { code: status >= 300 && status < 400 ? "cloud.protocol" : "cloud.refused" };
  }
}

/** What an answer of status 300 and above means. `nowMs` is the time against which a `Retry-After` date counts. */
export function errorFromAnswer(call: FailedCall, answer: HttpAnswer, nowMs: number): OperationalError {
  const error = decodeOpenstackError(answer.status, answer.text);
  const asked = retryAfterMs(answer.headers.get("retry-after"), nowMs);
  const verdict = verdictOn(call.service, error, asked);
  const advice = verdict.advice === undefined ? "" : `: ${verdict.advice}`;
  const words = error.message === "" ? `HTTP ${error.status}` : error.message;
  const requestId = answer.headers.get("x-openstack-request-id");
  return new OperationalError(verdict.code, `OpenStack (${call.service}) says: ${words}${advice}`, {
    outcome: call.change ? (verdict.outcome ?? "not_applied") : "not_applied",
    remoteCode: error.code,
    detail: `${call.method} ${call.path}: HTTP ${error.status}${requestId === undefined ? "" : `, ${requestId}`}`,
    ...(asked === undefined ? {} : { retryAfterMs: asked }),
    ...(verdict.retry === undefined ? {} : { retry: verdict.retry }),
  });
}
