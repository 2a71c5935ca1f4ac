/** One change of an OpenStack service, as the gateway's pipeline wants it. */
import { openstackChanges } from "#wire/openstack/openstack-changes.ts";
import type { OpenstackEffect, OpenstackLookup } from "#wire/openstack/openstack-effect.ts";
import { decodeOpenstackError } from "#wire/openstack/openstack-errors.ts";
import { parseJson } from "#wire/openstack/openstack-json.ts";
import type { ChangeCommand, CloudAnswer, EditAnswer, OutgoingRequest, Verdict } from "#gateway/dialect.ts";
import { cloudLookup } from "./cloud-lookup.ts";
import type { OpenstackRequest } from "./openstack-request.ts";
import { journalInput, openstackLocks } from "./recorded-request.ts";

export function outgoingOf(request: OpenstackRequest, body: Buffer): OutgoingRequest {
  return { method: request.method, path: request.path, headers: request.headers, body };
}

export function openstackCommand(
  request: OpenstackRequest,
  body: Buffer,
  edit: EditAnswer,
  known: OpenstackLookup["known"],
): ChangeCommand {
  const { method, path, operation } = request;
  return {
    service: "openstack",
    operation,
    input: journalInput(request),
    callerToken: null,
    takesToken: false,
    locks: openstackLocks(method, path, request.body),
    edit,
    outgoing: () => outgoingOf(request, body),
    interpret: (answer, ask) => interpret(request, answer, cloudLookup(ask, known)),
  };
}

const refusedOnly = { changes: [], gaps: [] } as const;

/**
 * Success says that the service took it; so does an unreadable body, since unlike a query protocol's every path is one service's own.
 * A 5xx may come after the change, but for those by which a service says that it did not begin.
 */
async function interpret(
  request: OpenstackRequest,
  answer: CloudAnswer,
  lookup: OpenstackLookup,
): Promise<Verdict> {
  const { status } = answer;
  const text = answer.body.toString("utf8");
  if (status >= 200 && status < 300) {
    const parsed = text === "" ? { ok: true as const, value: undefined } : parseJson(text);
    // A page of a proxy, with a success's status: not to be believed, not to be lost.
    if (!parsed.ok) return { result: "unknown", errorCode: null, ...refusedOnly };
    return { result: "applied", errorCode: null, ...(await effectOf(request, parsed.value, status, lookup)) };
  }
  const { code } = decodeOpenstackError(status, text);
  const said = status < 500 && status !== 408;
  return { result: said ? "refused" : "unknown", errorCode: code, ...refusedOnly };
}

export function effectOf(
  request: Pick<OpenstackRequest, "method" | "path" | "body">,
  responseBody: unknown,
  status: number,
  lookup: OpenstackLookup,
): Promise<OpenstackEffect> {
  const { method, path, body: requestBody } = request;
  return openstackChanges({ method, path, requestBody, responseBody, status }, lookup);
}
