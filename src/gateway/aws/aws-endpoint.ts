import type { UpstreamService } from "#gateway/dialect.ts";

export interface Endpoint {
  readonly host: string;
  /** The endpoint's own path, for servers that do not serve the protocol at `/`. */
  readonly path: string;
}

const parsed = new WeakMap<UpstreamService, Endpoint>();

/** Parsed once per configured service, not once per request. */
export function endpointOf(upstream: UpstreamService): Endpoint {
  let endpoint = parsed.get(upstream);
  if (endpoint === undefined) {
    const url = new URL(upstream.endpoint);
    endpoint = { host: url.host, path: url.pathname };
    parsed.set(upstream, endpoint);
  }
  return endpoint;
}
