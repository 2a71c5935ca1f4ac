/** Finds the route of a request. Literal segments win over `{...}`, in the order in which routes are listed. */
import type { OpenstackService } from "#wire/openstack/keystone.ts";
import type { Route } from "./api-call.ts";

export interface FoundRoute {
  readonly route: Route;
  readonly params: readonly string[];
}

interface Compiled {
  readonly route: Route;
  /** Null: any one segment. */
  readonly segments: readonly (string | null)[];
}

function split(path: string): string[] {
  return path.split("/").filter((segment) => segment !== "");
}

export class RouteTable {
  readonly #byShape = new Map<string, Compiled[]>();

  constructor(routes: readonly Route[]) {
    for (const route of routes) {
      const segments = split(route.path).map((segment) => (segment.startsWith("{") ? null : segment));
      const shape = this.#shape(route.service, route.method, segments.length);
      const list = this.#byShape.get(shape);
      if (list === undefined) this.#byShape.set(shape, [{ route, segments }]);
      else list.push({ route, segments });
    }
  }

  find(service: OpenstackService, method: string, path: string): FoundRoute | undefined {
    const given = split(path);
    for (const { route, segments } of this.#byShape.get(this.#shape(service, method, given.length)) ?? []) {
      if (!segments.every((segment, index) => segment === null || segment === given[index])) continue;
      const params = given.filter((_, index) => segments[index] === null).map(decoded);
      if (params.every((value) => value !== undefined)) return { route, params };
    }
    return undefined;
  }

  #shape(service: string, method: string, length: number): string {
    return `${service} ${method} ${length}`;
  }
}

function decoded(segment: string): string | undefined {
  try {
    return decodeURIComponent(segment);
  } catch {
    // A broken escape names nothing.
    return undefined;
  }
}
