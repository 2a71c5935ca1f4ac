/** Asks AWS what became of a command whose answer was lost. */
import { OperationalError } from "#kernel/errors.ts";
import type { Intent } from "#model/command.ts";
import { encodeQueryRequest } from "#wire/aws/query-encode.ts";
import type { AwsService } from "#wire/aws/service-model.ts";
import { decodeQueryError, decodeQueryResponse } from "#wire/aws/xml-decode.ts";
import type { KnownResources } from "#wire/ec2/ec2-effect.ts";
import { type Ec2Resolution, resolveEc2Outcome } from "#wire/ec2/ec2-resolve.ts";
import { ec2ResourceIds } from "#wire/ec2/ec2-resource-ids.ts";
import type { Resolution, ResolveContext } from "#gateway/dialect.ts";
import { formRequest } from "./aws-command.ts";

export async function resolveAws(
  ec2: AwsService,
  intent: Intent,
  context: ResolveContext,
  known: KnownResources,
): Promise<Resolution> {
  if (intent.service !== "ec2") return cannotBeAsked(intent);
  const { operation, input, token, at } = intent;
  const knownIds = new Set<string>();
  const ask = async (question: string, members: object): Promise<unknown> => {
    const answer = await askEc2(ec2, context, question, members);
    // Only after the answer: what it shows of other commands is recorded by then.
    for (const id of await context.knownIds()) knownIds.add(id);
    return answer;
  };
  const look = (): Promise<Ec2Resolution> =>
    resolveEc2Outcome({ operation, input, token, at }, ask, knownIds, known);
  let resolution = await look();
  // Somebody who saw in the cloud what it made may be changing it: looked at again when nobody does.
  const { read, written } = ec2ResourceIds(operation, input);
  const held = new Set([...read, ...written]);
  for (let unheld = madeBy(resolution, held); unheld.length > 0; unheld = madeBy(resolution, held)) {
    await context.hold({ shared: [], exclusive: unheld.map((id) => `${intent.service}:${id}`) });
    for (const id of unheld) held.add(id);
    resolution = await look();
  }
  switch (resolution.result) {
    case "applied":
      return resolution;
    case "refused":
      return { result: "refused", errorCode: null };
    case "undecided":
      return { result: "undecidable", gaps: [resolution.gap] };
  }
}

/** Every name under which other commands may mean what this one is found to have made, but for those that are held. */
function madeBy(resolution: Ec2Resolution, held: ReadonlySet<string>): string[] {
  if (resolution.result !== "applied") return [];
  const made = new Set<string>();
  for (const change of resolution.changes) {
    if (change.type !== "create") continue;
    for (const id of [change.id, ...(change.aliases ?? [])]) {
      if (!held.has(id)) made.add(id);
    }
  }
  return [...made];
}

/** An error of the cloud that names a missing resource is an answer too: it has none. Other errors: ask again later. */
async function askEc2(
  ec2: AwsService,
  { ask }: ResolveContext,
  name: string,
  input: object,
): Promise<unknown> {
  const operation = ec2.operations.get(name);
  if (operation === undefined) {
    throw new OperationalError("cloud.unsupported", `EC2 has no operation ${name} to ask with`);
  }
  const answer = await ask("ec2", formRequest(encodeQueryRequest(ec2, operation, input)));
  if (answer.status >= 200 && answer.status < 300) {
    return decodeQueryResponse(ec2, operation, answer.body.toString("utf8"));
  }
  const code = decodeQueryError(answer.body)?.code;
  if (answer.status < 500 && code !== undefined && /\.NotFound$|^InvalidAMIID|\.Unknown$/.test(code))
    return {};
  throw new OperationalError("cloud.failing", `the cloud answered ${name} with status ${answer.status}`, {
    detail: `error code ${code ?? "none"}`,
  });
}

function cannotBeAsked(intent: Intent): Resolution {
  return {
    result: "undecidable",
    gaps: [
      {
        code: "outcome.unknown",
        severity: "lost",
        operation: `${intent.service}:${intent.operation}`,
        message: `${intent.operation} was sent, and its answer was lost: look in the cloud whether it took effect`,
      },
    ],
  };
}
