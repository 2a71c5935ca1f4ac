/** A refusal as one of OpenStack's services words it. */
import type { OpenstackService } from "#wire/openstack/keystone.ts";
import { encodeOpenstackError } from "#wire/openstack/openstack-errors.ts";
import type { Answer } from "./answer.ts";

export class ApiError extends Error {
  override readonly name = "ApiError";
  readonly status: number;
  /** Neutron's exception type; the other services derive their code from the status. */
  readonly type: string;
  readonly retryAfterSeconds: number | undefined;

  constructor(status: number, message: string, type = "HTTPBadRequest", retryAfterSeconds?: number) {
    super(message);
    this.status = status;
    this.type = type;
    this.retryAfterSeconds = retryAfterSeconds;
  }
}

export function badRequest(message: string, type = "HTTPBadRequest"): ApiError {
  return new ApiError(400, message, type);
}

/** Of a field or name that came from the network: bounded and on one line. */
export function quoted(text: string): string {
  return text.replaceAll(/\s+/g, " ").slice(0, 200);
}

export function noSuchRoute(): ApiError {
  return new ApiError(404, "The resource could not be found.", "HTTPNotFound");
}

export function unauthorized(): ApiError {
  return new ApiError(401, "The request you have made requires authentication.");
}

/**
 * `base`: of the address of Keystone. `accept`: the client's header. A path that no route has is answered by WebOb before Nova
 * and Cinder have a say, in the form that Glance uses for all.
 */
export function errorAnswer(
  service: OpenstackService,
  error: ApiError,
  { base, accept }: { readonly base: string; readonly accept: string },
): Answer {
  const { status, message, type, retryAfterSeconds } = error;
  const noRoute = type === "HTTPNotFound";
  const encoded = encodeOpenstackError(
    noRoute && service !== "network" && service !== "identity" ? "image" : service,
    { status, code: type, message },
    retryAfterSeconds,
    accept,
  );
  return {
    status,
    body: encoded.body,
    headers: {
      "content-type": encoded.contentType,
      ...(retryAfterSeconds === undefined ? {} : { "retry-after": String(retryAfterSeconds) }),
      ...(status === 401 ? { "www-authenticate": `Keystone uri="${base}/identity"` } : {}),
    },
  };
}
