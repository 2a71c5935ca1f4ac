/** An acknowledged change of an OpenStack API as changes of the model; what has no place there is a named gap. */
import type { OpenstackService } from "./keystone.ts";
import { computeTranslators, volumeTranslators } from "./openstack-compute-changes.ts";
import { noEffect, operationGap } from "./openstack-effect.ts";
import type {
  OpenstackEffect,
  OpenstackExchange,
  OpenstackLookup,
  OpenstackTranslators,
} from "./openstack-effect.ts";
import { networkTranslators } from "./openstack-network-changes.ts";
import { openstackOperation } from "./openstack-operation.ts";

const translators: Readonly<Partial<Record<OpenstackService, OpenstackTranslators>>> = {
  compute: computeTranslators,
  network: networkTranslators,
  volume: volumeTranslators,
};

/** Every operation that is understood, e.g. `compute POST /servers`: the support matrix's source. */
export function translatedOperations(): string[] {
  return Object.entries(translators).flatMap(([service, table]) =>
    [...table.keys()].map((operation) => `${service} ${operation}`),
  );
}

/**
 * Asks the active cloud, through `lookup`, for what the bodies do not tell (a router's networks, a server's ports), so that
 * it is called right after the answer. Rejects only when `lookup` does.
 */
export async function openstackChanges(
  exchange: OpenstackExchange,
  lookup: OpenstackLookup,
): Promise<OpenstackEffect> {
  const { method, path, requestBody, responseBody, status } = exchange;
  const { service, operation, readOnly, params } = openstackOperation(method, path, requestBody);
  if (readOnly || status < 200 || status >= 300) return noEffect;
  const translate = translators[service]?.get(operation);
  if (translate !== undefined) {
    return translate({ operation, params, request: requestBody, response: responseBody, lookup });
  }
  const severity = method === "POST" ? "lost" : "degraded";
  const message = `${operation} of the ${service} service is not translated: do the same on the standby by hand, if it matters there`;
  return operationGap(operation, severity, message);
}
