/** Reading the cloud as it is now, for what a command's own bodies do not tell. */
import { OperationalError } from "#kernel/errors.ts";
import type { OpenstackService } from "#wire/openstack/keystone.ts";
import type { OpenstackLookup } from "#wire/openstack/openstack-effect.ts";
import { parseJson } from "#wire/openstack/openstack-json.ts";
import { decodeOpenstackError } from "#wire/openstack/openstack-errors.ts";
import { leastNovaVersion } from "#wire/openstack/nova.ts";
import type { AskCloud } from "#gateway/dialect.ts";
import { type ForwardedService, forwardedServices, serviceBases } from "./service-paths.ts";

export type Found = { readonly found: true; readonly body: unknown } | { readonly found: false };

/** `path` from the gateway's root. `found: false` for 404 and 410. Rejects with a `cloud.*` error: ask again later. */
export async function readPath(ask: AskCloud, path: string): Promise<Found> {
  const headers = ["accept", "application/json", "openstack-api-version", `compute ${leastNovaVersion}`];
  const answer = await ask("openstack", { method: "GET", path, headers, body: "" });
  const { status } = answer;
  if (status === 404 || status === 410) return { found: false };
  const text = answer.body.toString("utf8");
  if (status >= 200 && status < 300) {
    if (text === "") return { found: true, body: undefined };
    const parsed = parseJson(text);
    if (parsed.ok) return { found: true, body: parsed.value };
    throw new OperationalError(
      "cloud.protocol",
      `the cloud answered GET ${path} with something else than JSON`,
    );
  }
  const { code, message } = decodeOpenstackError(status, text);
  throw new OperationalError("cloud.failing", `the cloud answered GET ${path} with status ${status}`, {
    detail: `${code}: ${message}`,
  });
}

export function basePathOf(service: OpenstackService, path: string): string {
  const known = forwardedServices.find((candidate) => candidate === service);
  if (known === undefined)
    throw new OperationalError("cloud.unsupported", `the ${service} service is not read here`);
  return `${serviceBases[known satisfies ForwardedService]}${path}`;
}

export function cloudLookup(ask: AskCloud, known: OpenstackLookup["known"]): OpenstackLookup {
  return {
    get: async (service, path) => {
      const answer = await readPath(ask, basePathOf(service, path));
      return answer.found ? answer.body : undefined;
    },
    ...(known === undefined ? {} : { known }),
  };
}
