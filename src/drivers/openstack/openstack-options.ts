import type { Clock } from "#kernel/clock.ts";
import type { Log } from "#kernel/log.ts";
import type { OpenstackCredentials, OpenstackService, ScopedRef } from "#wire/openstack/keystone.ts";
import type { HttpLimits } from "./http-client.ts";

export interface OpenstackCloudOptions {
  /** Keystone, e.g. `https://cloud.example:5000/v3`; `/v3` is added where it is missing. */
  readonly authUrl: string;
  /** Absent: the first one that the catalogue names. */
  readonly region?: string;
  readonly credentials: OpenstackCredentials;
  /** By id, or name and domain. Not needed by application credentials, which belong to a project. */
  readonly project?: ScopedRef;
  /** Which of the catalogue's endpoints; default `public`. */
  readonly interface?: "public" | "internal" | "admin";
  /** Addresses to use instead of the catalogue's. */
  readonly endpointOverrides?: Readonly<Partial<Record<Exclude<OpenstackService, "identity">, string>>>;
  /** Name or id of the network that routers' gateways and floating IPs come from; absent: the only external one. */
  readonly publicNetwork?: string;
  /** PEM of an authority besides the system's, for clouds with a certificate of their own. */
  readonly certificateAuthority?: string;
  readonly limits?: Partial<HttpLimits>;
  /** Items of a listing's page; default 500. */
  readonly pageSize?: number;
  readonly clock: Clock;
  readonly log: Log;
}
