/** What the operations of the EC2 dialect share. */
import type { Tag, TagSpecification } from "@aws-sdk/client-ec2";
import type { Cloud } from "#devcloud/core/cloud.ts";
import type { Compute } from "#devcloud/core/compute.ts";
import type { Snapshots } from "#devcloud/core/snapshots.ts";
import { idempotent } from "#devcloud/core/tokens.ts";
import type { NetworkRecord, Tags } from "#devcloud/core/records.ts";
import { AwsProtocolError } from "#wire/aws/aws-protocol-error.ts";
import { invalidValue, missing } from "./ec2-error.ts";

export interface Ec2 {
  readonly cloud: Cloud;
  readonly compute: Compute;
  readonly snapshots: Snapshots;
  /** Twelve digits. */
  readonly accountId: string;
}

/** An operation's answer, or the input of one: without what the SDK adds. */
export type Answer<T> = Omit<T, "$metadata">;

/**
 * One operation: part of a transaction, synchronous. Its input is what the vendor's own schema decoded, so a client's type for
 * it holds, except that dates are texts.
 */
export type Operation = (ec2: Ec2, input: never) => object;

/** An operation that takes its time, in transactions of its own. */
export type LongOperation = (ec2: Ec2, input: never, signal: AbortSignal) => Promise<object>;

export function required<T>(value: T | undefined, parameter: string): T {
  if (value === undefined || value === "") throw missing(parameter);
  return value;
}

export function requiredList<T>(values: readonly T[] | undefined, parameter: string): readonly T[] {
  if (values === undefined || values.length === 0) throw missing(parameter);
  return values;
}

export function tagList(tags: Tags): Tag[] {
  return Object.entries(tags).map(([Key, Value]) => ({ Key, Value }));
}

/** Checked names and values of tags, as pairs. */
export function tagPairs(tags: readonly Tag[]): [string, string][] {
  return tags.map((tag) => {
    const key = required(tag.Key, "Tag.Key");
    if (key.length > 127)
      throw invalidValue(key, "tagKey", "Tag key exceeds the maximum length of '127' characters");
    if (key.toLowerCase().startsWith("aws:")) {
      throw new AwsProtocolError(
        "InvalidParameterValue",
        "Tag keys starting with 'aws:' are reserved for internal use",
      );
    }
    const value = tag.Value ?? "";
    if (value.length > 255)
      throw invalidValue(value, "tagValue", "Tag value exceeds the maximum length of '255' characters");
    return [key, value];
  });
}

/** The tags that a create call gives its new resource of this type (`vpc`, `instance`, ...). */
export function specifiedTags(
  specifications: readonly TagSpecification[] | undefined,
  resourceType: string,
  others: readonly string[] = [],
): Tags {
  const pairs: [string, string][] = [];
  for (const specification of specifications ?? []) {
    const type = required<string>(specification.ResourceType, "TagSpecification.ResourceType");
    if (type !== resourceType && !others.includes(type)) {
      throw new AwsProtocolError(
        "InvalidParameterValue",
        `'${type}' is not a valid taggable resource type for this operation.`,
      );
    }
    if (type === resourceType) pairs.push(...tagPairs(specification.Tags ?? []));
  }
  if (new Set(pairs.map(([key]) => key)).size !== pairs.length) {
    throw new AwsProtocolError(
      "InvalidParameterValue",
      "Duplicate tag keys found. Each tag key must be unique.",
    );
  }
  return Object.fromEntries(pairs);
}

/** Repeats of a call under the same client token get the first one's resources. */
export function onceByToken(
  ec2: Ec2,
  operation: string,
  input: { readonly ClientToken?: string | undefined; readonly DryRun?: boolean | undefined },
  create: () => readonly string[],
): readonly string[] {
  const { ClientToken: token, DryRun: _dryRun, ...parameters } = input;
  if (token !== undefined && token.length > 64) {
    throw invalidValue(token, "clientToken", "The token must be at most 64 characters long");
  }
  return idempotent(ec2.cloud, { operation, token, parameters }, create);
}

export function defaultNetwork(ec2: Ec2): NetworkRecord {
  for (const network of ec2.cloud.data.tables.network.values()) if (network.isDefault) return network;
  throw new AwsProtocolError("VPCIdNotSpecified", "No default VPC for this user. Specify a VPC or a subnet.");
}

export function arn(ec2: Ec2, type: string, id: string): string {
  return `arn:aws:ec2:${ec2.cloud.catalog.region}:${ec2.accountId}:${type}/${id}`;
}
