/** One decoded AWS change, as the gateway's pipeline wants it. */
import type { KnownResources } from "#wire/ec2/ec2-effect.ts";
import { ec2Changes } from "#wire/ec2/ec2-changes.ts";
import { ec2ResourceIds } from "#wire/ec2/ec2-resource-ids.ts";
import { AwsProtocolError } from "#wire/aws/aws-protocol-error.ts";
import type { DecodedQuery } from "#wire/aws/query-decode.ts";
import type { AwsService } from "#wire/aws/service-model.ts";
import { decodeQueryError, decodeQueryResponse } from "#wire/aws/xml-decode.ts";
import type { ServiceName } from "#model/command.ts";
import type { Gap } from "#model/gap.ts";
import type {
  ChangeCommand,
  Classified,
  CloudAnswer,
  OutgoingRequest,
  UpstreamName,
  Verdict,
} from "#gateway/dialect.ts";
import type { LockKeys } from "#gateway/resource-locks.ts";
import { withoutSecrets } from "./journal-input.ts";

export const formHeaders = ["content-type", "application/x-www-form-urlencoded; charset=utf-8"] as const;

/** Answers with a server's status that nevertheless say that nothing was done. */
const throttling: ReadonlySet<string> = new Set([
  "RequestLimitExceeded",
  "Throttling",
  "ThrottlingException",
  "ThrottledException",
  "RequestThrottled",
  "RequestThrottledException",
  "TooManyRequestsException",
  "BandwidthLimitExceeded",
  "EC2ThrottledException",
  "SlowDown",
]);

export function formRequest(body: Buffer | string, headers: readonly string[] = []): OutgoingRequest {
  return { method: "POST", path: "/", headers: [...formHeaders, ...headers], body };
}

export function awsRead(
  service: UpstreamName,
  operation: string,
  body: Buffer | string,
  forwarded: readonly string[],
): Classified {
  return { kind: "read", service, operation, outgoing: formRequest(body, forwarded) };
}

export interface AwsChange {
  readonly service: AwsService;
  readonly name: ServiceName;
  readonly decoded: DecodedQuery;
  readonly body: Buffer | string;
  readonly forwarded: readonly string[];
  readonly known: KnownResources;
}

export function awsCommand(change: AwsChange): ChangeCommand {
  const { service, name, decoded, body, forwarded, known } = change;
  const { operation, unknown } = decoded;
  const input = withoutSecrets(operation, decoded.input);
  const tokenMember = operation.tokenMember;
  const given = tokenMember === undefined ? undefined : input[tokenMember.name];
  const callerToken = typeof given === "string" && given !== "" ? given : null;
  const unknownNames = Object.keys(unknown);
  return {
    service: name,
    operation: operation.name,
    input,
    callerToken,
    takesToken: tokenMember !== undefined && given === undefined,
    locks: awsLocks(name, operation.name, input),
    outgoing: (token) =>
      token === null || given !== undefined || tokenMember === undefined
        ? formRequest(body, forwarded)
        : formRequest(
            `${body.toString("latin1")}&${tokenMember.wireName}=${encodeURIComponent(token)}`,
            forwarded,
          ),
    interpret: (answer) =>
      verdictOf(answer, () => {
        const output = decodeQueryResponse(service, operation, answer.body.toString("utf8"));
        const effect =
          name === "ec2"
            ? ec2Changes(operation.name, input, output, known)
            : { changes: [], gaps: [untranslated(name, operation.name)] };
        return unknownNames.length === 0
          ? effect
          : { ...effect, gaps: [...effect.gaps, unknownMembers(name, operation.name, unknownNames)] };
      }),
  };
}

/** For an operation that this release does not know, where the environment lets such pass. */
export function rawCommand(
  name: ServiceName,
  operation: string,
  parameters: Readonly<Record<string, string>>,
  body: Buffer | string,
  forwarded: readonly string[],
): ChangeCommand {
  return {
    service: name,
    operation,
    input: parameters,
    callerToken: parameters["ClientToken"] ?? null,
    takesToken: false,
    locks: awsLocks(name, operation, parameters),
    outgoing: () => formRequest(body, forwarded),
    interpret: (answer) => verdictOf(answer, () => ({ changes: [], gaps: [untranslated(name, operation)] })),
  };
}

export function awsLocks(service: string, operation: string, input: unknown): LockKeys {
  const { read, written } = ec2ResourceIds(operation, input);
  return {
    shared: read.map((id) => `${service}:${id}`),
    exclusive: written.map((id) => `${service}:${id}`),
  };
}

function verdictOf(answer: CloudAnswer, effectOf: () => Pick<Verdict, "changes" | "gaps">): Verdict {
  const { status, body } = answer;
  if (status >= 200 && status < 300) {
    try {
      return { result: "applied", errorCode: null, ...effectOf() };
    } catch (error) {
      // Success in a form that is not the protocol's (a proxy's page): not to be believed, not to be lost.
      if (error instanceof AwsProtocolError)
        return { result: "unknown", errorCode: null, changes: [], gaps: [] };
      throw error;
    }
  }
  const errorCode = decodeQueryError(body)?.code ?? null;
  const said = status < 500 || (errorCode !== null && throttling.has(errorCode));
  return { result: said ? "refused" : "unknown", errorCode, changes: [], gaps: [] };
}

function untranslated(service: string, operation: string): Gap {
  return {
    code: "operation.untranslated",
    severity: /^(?:Delete|Deregister|Detach|Remove|Cancel)/.test(operation) ? "note" : "lost",
    operation: `${service}:${operation}`,
    message: `${operation} was forwarded and recorded; its effect would be missing after a takeover`,
  };
}

function unknownMembers(service: string, operation: string, names: readonly string[]): Gap {
  const shown = names.slice(0, 5).join(", ");
  const more = names.length > 5 ? ` and ${names.length - 5} more` : "";
  return {
    code: "field.untranslated",
    severity: "degraded",
    operation: `${service}:${operation}`,
    message: `this release does not know the parameters ${shown}${more}: they were forwarded, and are not carried over`,
  };
}
