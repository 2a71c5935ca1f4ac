/**
 * Creates that EC2 has no client tokens for. The token goes along as a tag, and is looked for where a create may have
 * been sent before.
 */
import type { CreateRequest } from "#cloud/contract.ts";
import type { ResourceId } from "#kernel/ids.ts";
import { invariant } from "#kernel/invariant.ts";
import type { ResourceKind } from "#model/resource.ts";
import type { Ec2Connection } from "./ec2-connection.ts";

interface TokenlessCreate {
  readonly find: () => Promise<ResourceId | undefined>;
  readonly make: () => Promise<ResourceId | undefined>;
}

/** A listing that misses it may only lag behind: it is looked at again before a second one could be made. */
export async function createOnce<K extends ResourceKind>(
  ec2: Ec2Connection,
  request: CreateRequest<K>,
  signal: AbortSignal,
  { find, make }: TokenlessCreate,
): Promise<ResourceId> {
  if (request.mayExist) {
    const found = await find();
    if (found !== undefined) return found;
    await ec2.clock.sleep(Math.min(ec2.consistencyMs, 3000), signal);
    const later = await find();
    if (later !== undefined) return later;
  }
  const made = await make();
  invariant(made !== undefined, `EC2 acknowledged a ${request.kind} without telling its id`);
  return made;
}
