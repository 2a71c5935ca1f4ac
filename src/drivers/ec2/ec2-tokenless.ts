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

/**
 * What a killed process had sent may still be on its way to the cloud, and takes effect within moments; a listing may lag for
 * longer. In milliseconds.
 */
const settle = { least: 1000, most: 3000 };

/** A listing that misses it is looked at again before a second one could be made. */
export async function createOnce<K extends ResourceKind>(
  ec2: Ec2Connection,
  request: CreateRequest<K>,
  signal: AbortSignal,
  { find, make }: TokenlessCreate,
): Promise<ResourceId> {
  if (request.mayExist) {
    const found = await find();
    if (found !== undefined) return found;
    await ec2.clock.sleep(Math.max(settle.least, Math.min(ec2.consistencyMs, settle.most)), signal);
    const later = await find();
    if (later !== undefined) return later;
  }
  const made = await make();
  invariant(made !== undefined, `EC2 acknowledged a ${request.kind} without telling its id`);
  return made;
}
