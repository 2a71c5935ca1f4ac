/** The OpenStack APIs on the core: one port, a path prefix for each service, Keystone tokens before all but the versions. */
import type { Cloud } from "#devcloud/core/cloud.ts";
import type { Compute } from "#devcloud/core/compute.ts";
import type { ApiCall, ApiRequest, ApiResponse, Dialect, InjectedFailure } from "#devcloud/core/dialect.ts";
import { createNetwork, createSubnet } from "#devcloud/core/networks.ts";
import { Refusal } from "#devcloud/core/refusal.ts";
import { isOperational } from "#kernel/errors.ts";
import type { OpenstackService } from "#wire/openstack/keystone.ts";
import { parseJson } from "#wire/openstack/openstack-json.ts";
import type { Answer } from "./answer.ts";
import type { Call, Openstack, Route } from "./api-call.ts";
import { ApiError, errorAnswer, noSuchRoute, unauthorized } from "./api-error.ts";
import { cinderCommonRoutes } from "./cinder-common-routes.ts";
import { volumeActionName, volumeRoutes } from "./cinder-volume-routes.ts";
import { glanceRoutes } from "./glance-routes.ts";
import { type Identity, readToken } from "./keystone-identity.ts";
import { keystoneRoutes } from "./keystone-routes.ts";
import { askedVersion, versionHeaders } from "./microversion.ts";
import { addressRoutes } from "./neutron-address-routes.ts";
import { neutronCommonRoutes } from "./neutron-common-routes.ts";
import { defaultGroup, groupRoutes } from "./neutron-group-routes.ts";
import { networkRoutes } from "./neutron-network-routes.ts";
import { portRoutes } from "./neutron-port-routes.ts";
import { routerRoutes } from "./neutron-router-routes.ts";
import { attachmentRoutes } from "./nova-attachment-routes.ts";
import { novaCatalogRoutes } from "./nova-catalog-routes.ts";
import { keyPairRoutes } from "./nova-key-pair-routes.ts";
import { metadataRoutes } from "./nova-metadata.ts";
import { actionName } from "./nova-server-actions.ts";
import { serverRoutes } from "./nova-server-routes.ts";
import { errorOfRefusal } from "./refusal-error.ts";
import { RouteTable } from "./route-table.ts";
import { locate } from "./service-path.ts";

export const openstackRoutes: readonly Route[] = [
  ...keystoneRoutes,
  ...serverRoutes,
  ...metadataRoutes,
  ...attachmentRoutes,
  ...keyPairRoutes,
  ...novaCatalogRoutes,
  ...networkRoutes,
  ...routerRoutes,
  ...portRoutes,
  ...groupRoutes,
  ...addressRoutes,
  ...neutronCommonRoutes,
  ...glanceRoutes,
  ...volumeRoutes,
  ...cinderCommonRoutes,
];

/** The network from which floating IPs come. */
export const publicNetworkName = "public";

export interface OpenstackDialectOptions {
  readonly identity: Identity;
  readonly resizeMs: number;
}

export function openOpenstackDialect(
  cloud: Cloud,
  compute: Compute,
  options: OpenstackDialectOptions,
): Dialect {
  return new OpenstackDialect({ cloud, compute, ...options });
}

/** What a request asks for, as far as its head tells. */
interface Opened {
  readonly service: OpenstackService;
  readonly base: string;
  readonly accept: string;
  readonly version: string;
}

class OpenstackDialect implements Dialect {
  readonly name = "openstack";
  readonly #openstack: Openstack;
  readonly #routes = new RouteTable(openstackRoutes);

  constructor(openstack: Openstack) {
    this.#openstack = openstack;
  }

  bootstrap(cloud: Cloud): void {
    const network = createNetwork(cloud, {
      name: publicNetworkName,
      external: true,
      extra: { description: "Public addresses" },
    });
    createSubnet(cloud, { name: "public-subnet", networkId: network.id, cidr: cloud.pool.cidr });
    defaultGroup(cloud);
  }

  open(request: ApiRequest): ApiCall | { readonly turnedAway: ApiResponse } {
    const base = baseOf(request);
    let opened: Opened = {
      service: "identity",
      base,
      accept: request.headers["accept"] ?? "",
      version: "",
    };
    try {
      const place = locate(request.target, this.#openstack.identity.project.id);
      if (place === undefined) throw noSuchRoute();
      opened = { ...opened, service: place.service };
      const found = this.#routes.find(place.service, request.method, place.path);
      const open = found?.route.access === "open";
      const token = request.headers["x-auth-token"];
      const { cloud, identity } = this.#openstack;
      const grant = open || token === undefined ? undefined : readToken(identity, cloud, token);
      // The token comes first: who has none does not learn which routes there are.
      if (!open && grant === undefined) throw unauthorized();
      if (found === undefined) throw noSuchRoute();
      const version = askedVersion(place.service, request.headers);
      opened = { ...opened, version };
      if (!open && place.service !== "identity" && grant?.projectId === null) {
        throw new ApiError(403, "The token has no project: ask for a scoped one.", "Forbidden");
      }
      const call: Call = {
        openstack: this.#openstack,
        cloud,
        service: place.service,
        params: found.params,
        query: place.query,
        headers: request.headers,
        body: request.body,
        base,
        microversion: version,
        grant: grant ?? null,
      };
      return { operation: operationOf(found.route, call), run: () => this.#run(found.route, call, opened) };
    } catch (error) {
      return { turnedAway: this.#refused(error, opened) };
    }
  }

  fail(failure: InjectedFailure, operation: string | null): ApiResponse {
    const service = serviceOf(operation);
    const opened = { service, base: "", accept: "application/json", version: "" };
    return this.#respond(errorAnswer(service, injected(failure), opened), opened);
  }

  #run(route: Route, call: Call, opened: Opened): ApiResponse {
    try {
      return this.#respond(
        call.cloud.data.transact(() => route.handler(call)),
        opened,
      );
    } catch (error) {
      return this.#refused(error, opened);
    }
  }

  #refused(error: unknown, opened: Opened): ApiResponse {
    return this.#respond(errorAnswer(opened.service, apiError(opened.service, error), opened), opened);
  }

  #respond(answer: Answer, { service, version }: Opened): ApiResponse {
    const requestId = `req-${this.#openstack.cloud.random.uuid()}`;
    return {
      status: answer.status,
      headers: {
        "x-openstack-request-id": requestId,
        ...(service === "compute" ? { "x-compute-request-id": requestId } : {}),
        ...versionHeaders(service, version),
        ...answer.headers,
      },
      body: answer.body,
    };
  }
}

/** For faults, limits and counters: `POST /compute/servers/{id}/action os-stop`. */
function operationOf(route: Route, call: Call): string {
  const path = route.path === "/" ? "" : route.path;
  const name = `${route.method} /${route.service}${path}`;
  if (route.method !== "POST" || !path.endsWith("/action")) return name;
  const parsed = parseJson(call.body.toString("utf8"));
  const body = parsed.ok ? parsed.value : undefined;
  const action = route.service === "compute" ? actionName(body) : volumeActionName(body);
  return action === undefined ? name : `${name} ${action}`;
}

const services: readonly OpenstackService[] = ["identity", "compute", "network", "image", "volume"];

function serviceOf(operation: string | null): OpenstackService {
  const name = operation?.split("/", 2)[1]?.split(" ", 1)[0];
  return services.find((service) => service === name) ?? "compute";
}

/** As the client reaches us: links and the catalogue name the same host. */
function baseOf(request: ApiRequest): string {
  const host = request.headers["host"] ?? "";
  return `http://${/^[A-Za-z0-9.\-:[\]]{1,255}$/.test(host) ? host : "127.0.0.1"}`;
}

function apiError(service: OpenstackService, error: unknown): ApiError {
  if (error instanceof ApiError) return error;
  if (error instanceof Refusal) return errorOfRefusal(service, error.reason);
  if (isOperational(error)) return new ApiError(500, error.message, "InternalServerError");
  throw error;
}

function injected(failure: InjectedFailure): ApiError {
  switch (failure.kind) {
    case "throttled": {
      const seconds = Math.max(1, Math.ceil(failure.retryAfterMs / 1000));
      return new ApiError(429, "This request was rate-limited.", "OverLimit", seconds);
    }
    case "internal":
      return new ApiError(
        500,
        "Unexpected API Error. Please report this at http://bugs.launchpad.net/nova/ and attach the Nova API log if possible.",
        "HTTPInternalServerError",
      );
    case "unavailable":
      return new ApiError(503, "The service is currently unavailable.", "ServiceUnavailable");
    case "code":
      return new ApiError(failure.status, failure.message, failure.code);
  }
}
