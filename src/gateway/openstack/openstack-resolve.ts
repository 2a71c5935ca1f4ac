/**
 * Asks an OpenStack what became of a command whose answer was lost. Its services have no idempotency tokens, so that it is looked for
 * by what it would have left: a deleted thing is not there, a changed one has the new values, a new one has the asked
 * attributes, was made after the command came, and belongs to no other command.
 */
import type { ResourceId } from "#kernel/ids.ts";
import type { Change } from "#model/change.ts";
import type { Intent } from "#model/command.ts";
import { serverResponseSchema } from "#wire/openstack/nova.ts";
import { decodeValue } from "#wire/openstack/openstack-json.ts";
import { tagsFromMetadata } from "#wire/openstack/openstack-tags.ts";
import type { OpenstackLookup } from "#wire/openstack/openstack-effect.ts";
import type { Resolution, ResolveContext } from "#gateway/dialect.ts";
import { cloudLookup, readPath } from "./cloud-lookup.ts";
import { resolveAction } from "./resolve-action.ts";
import { resolveCreate } from "./resolve-create.ts";
import { includes, isRecord } from "./body-match.ts";
import { effectOf } from "./openstack-command.ts";
import { type RecordedRequest, recordedRequest, resourceLock, singleMember } from "./recorded-request.ts";
import { type Inquiry, type Trace, isLeaving } from "./resolve-trace.ts";
import { splitTarget } from "./service-paths.ts";

export async function resolveOpenstack(
  intent: Intent,
  context: ResolveContext,
  known: OpenstackLookup["known"],
): Promise<Resolution> {
  const request = recordedRequest(intent);
  if (request === undefined) return undecidable(intent, "its record cannot be read");
  const { ask } = context;
  const hold = (id: string) => context.hold(resourceLock(id));
  const found = await traceOf({ intent, request, ask, knownIds: () => context.knownIds(), hold });
  switch (found.trace) {
    case "none":
      return { result: "refused", errorCode: null };
    case "unclear":
      return undecidable(intent, found.why);
    case "applied": {
      const { changes, gaps } = await effectOf(request, found.body, 200, cloudLookup(ask, known));
      return { result: "applied", changes: [...changes, ...sinceMade(request, found.body)], gaps };
    }
  }
}

/**
 * A server is translated from what was asked for. Between its making and its finding other commands may have changed it, and theirs
 * are recorded before this one: so what they did is read from the cloud. Other kinds are translated from the cloud's body.
 */
function sinceMade({ operation }: RecordedRequest, body: unknown): Change[] {
  const decoded = operation === "POST /servers" ? decodeValue(serverResponseSchema, body) : undefined;
  if (decoded?.ok !== true) return [];
  const { id, name, metadata, status } = decoded.value.server;
  const server = { kind: "server", id: id as ResourceId } as const;
  const tags: Change = { type: "tag", ...server, set: tagsFromMetadata(metadata, name), remove: [] };
  return status === "SHUTOFF" ? [tags, { type: "update", ...server, set: { power: "stopped" } }] : [tags];
}

function traceOf(inquiry: Inquiry): Promise<Trace> {
  const { method, operation, params } = inquiry.request;
  switch (method) {
    case "DELETE":
      return traceOfDelete(inquiry);
    case "PUT":
    case "PATCH":
      return traceOfUpdate(inquiry);
    default:
      return operation.includes("/action") || params.length > 0
        ? resolveAction(inquiry)
        : resolveCreate(inquiry);
  }
}

/** Gone, or on its way out: deletes of servers and volumes take a while. */
async function traceOfDelete({ ask, request }: Inquiry): Promise<Trace> {
  const answer = await readPath(ask, splitTarget(request.path).path);
  if (!answer.found || isLeaving(singleMember(answer.body)?.value))
    return { trace: "applied", body: undefined };
  const { body } = answer;
  // All tags of a resource at once.
  const tags: unknown = isRecord(body) ? body["tags"] : undefined;
  return Array.isArray(tags) && tags.length === 0 ? { trace: "applied", body: undefined } : { trace: "none" };
}

async function traceOfUpdate(inquiry: Inquiry): Promise<Trace> {
  const { ask, request } = inquiry;
  const { operation, path, body } = request;
  if (operation.endsWith("_router_interface")) return traceOfRouterInterface(inquiry);
  const answer = await readPath(ask, splitTarget(path).path);
  if (!answer.found) return { trace: "none" };
  // A tag that is there: the answer has no body.
  if (answer.body === undefined || body === undefined) return { trace: "applied", body: answer.body };
  if (!isRecord(body) || !isRecord(answer.body)) return { trace: "unclear", why: "its form is not known" };
  const match = includes(answer.body, body);
  if (match === "yes") return { trace: "applied", body: answer.body };
  return match === "no"
    ? { trace: "none" }
    : { trace: "unclear", why: "the cloud does not show all of the values that it was to set" };
}

async function traceOfRouterInterface({ ask, request }: Inquiry): Promise<Trace> {
  const { operation, params, body } = request;
  const wanted = isRecord(body) ? body : {};
  const path = `/networking/v2.0/ports?device_id=${encodeURIComponent(params[0] ?? "")}`;
  const answer = await readPath(ask, path);
  const ports =
    answer.found && isRecord(answer.body) && Array.isArray(answer.body["ports"]) ? answer.body["ports"] : [];
  const joined = ports.filter(isRecord).find((port) => {
    if (typeof wanted["port_id"] === "string") return port["id"] === wanted["port_id"];
    const addresses = Array.isArray(port["fixed_ips"]) ? port["fixed_ips"].filter(isRecord) : [];
    return addresses.some((address) => address["subnet_id"] === wanted["subnet_id"]);
  });
  const done = operation.includes("add_router_interface") ? joined !== undefined : joined === undefined;
  if (!done) return { trace: "none" };
  const network = joined?.["network_id"];
  return {
    trace: "applied",
    body: { ...wanted, ...(typeof network === "string" ? { network_id: network } : {}) },
  };
}

function undecidable({ operation }: Intent, why: string): Resolution {
  return {
    result: "undecidable",
    gaps: [
      {
        code: "outcome.unknown",
        severity: "lost",
        operation: `openstack:${operation}`,
        message: `${operation} was sent, and its answer was lost; ${why}: look in the cloud whether it took effect`,
      },
    ],
  };
}
