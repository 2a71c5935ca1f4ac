/** What each kind's part of the driver does, and what they share: tags that mark, listings, tokens. */
import type { Filter, ResourceType, TagSpecification } from "@aws-sdk/client-ec2";
import type { CreateRequest, Observed, ResourceStatus } from "#cloud/contract.ts";
import { scopeTag, tokenTag } from "#cloud/contract.ts";
import { OperationalError, isOperational } from "#kernel/errors.ts";
import type { ResourceId } from "#kernel/ids.ts";
import type { ResourceKind, ResourceOf, ResourceSpecs, Tags } from "#model/resource.ts";
import { literal } from "./ec2-connection.ts";
import { tagsToEc2 } from "#wire/ec2/ec2-tags.ts";

export interface Ec2Kind<K extends ResourceKind> {
  create(request: CreateRequest<K>, signal: AbortSignal): Promise<Observed<K>>;
  /** Pages of what the filters select; `ids`, at most 200 of the model's ids, narrows it further. */
  pages(
    select: readonly Filter[],
    ids: readonly ResourceId[] | undefined,
    signal: AbortSignal,
  ): AsyncIterable<readonly Observed<K>[]>;
  update(id: ResourceId, set: Partial<ResourceSpecs[K]>, signal: AbortSignal): Promise<void>;
  delete(id: ResourceId, signal: AbortSignal): Promise<void>;
  /** EC2's id to hang tags on; `undefined`: there is none. */
  tagTarget(id: ResourceId, signal: AbortSignal): Promise<string | undefined>;
}

const ownPrefix = "understudy:";

/** Tags of our own are how things are found again; they are nobody's data. */
export function withoutOwnTags(tags: Tags): Tags {
  return Object.fromEntries(Object.entries(tags).filter(([key]) => !key.startsWith(ownPrefix)));
}

export function observed<K extends ResourceKind>(
  resource: ResourceOf<K>,
  status: ResourceStatus = "ready",
  more: { readonly fault?: string; readonly privateIps?: string[]; readonly publicIps?: string[] } = {},
): Observed<K> {
  return {
    resource: { ...resource, tags: withoutOwnTags(resource.tags) },
    status,
    ...(more.fault === undefined ? {} : { fault: more.fault }),
    addresses: { private: more.privateIps ?? [], public: more.publicIps ?? [] },
  } as unknown as Observed<K>;
}

/** Marks for whom it was made and by which create, in the same call that makes it. */
export function markedTags(
  request: Pick<CreateRequest<ResourceKind>, "tags" | "scope" | "token">,
  ...types: readonly ResourceType[]
): TagSpecification[] {
  const Tags = tagsToEc2({ ...request.tags, [scopeTag]: request.scope, [tokenTag]: request.token });
  return types.map((ResourceType) => ({ ResourceType, Tags }));
}

export function tokenFilter(token: string): Filter {
  return { Name: `tag:${tokenTag}`, Values: [literal(token)] };
}

export async function firstOf<T>(pages: AsyncIterable<readonly T[]>): Promise<T | undefined> {
  for await (const page of pages) {
    if (page[0] !== undefined) return page[0];
  }
  return undefined;
}

export function isRemote(error: unknown, ...codes: readonly string[]): error is OperationalError {
  return isOperational(error) && codes.includes(error.remoteCode ?? "");
}

/** For deletes: what is gone already is as wanted. */
export async function unlessGone(work: Promise<unknown>): Promise<void> {
  try {
    await work;
  } catch (error) {
    if (!isOperational(error, "cloud.not_found")) throw error;
  }
}

export function missing(kind: string, id: string): OperationalError {
  return new OperationalError("cloud.not_found", `EC2 has no ${kind} ${id}`);
}
