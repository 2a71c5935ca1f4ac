/** Tags of whatever has an id. */
import type * as Api from "@aws-sdk/client-ec2";
import { find } from "#devcloud/core/cloud.ts";
import type { BaseRecord, TableName } from "#devcloud/core/records.ts";
import { removeTags, setTags } from "#devcloud/core/tags.ts";
import { AwsProtocolError } from "#wire/aws/aws-protocol-error.ts";
import { type Answer, type Ec2, type Operation, required, requiredList, tagPairs } from "./ec2-context.ts";
import { compileFilters } from "./ec2-filter.ts";
import { kindOfEc2Id } from "./ec2-id-scheme.ts";
import { pageOf } from "./ec2-page.ts";

const resourceTypes: Readonly<Partial<Record<TableName, Api.ResourceType>>> = {
  network: "vpc",
  subnet: "subnet",
  port: "network-interface",
  gateway: "internet-gateway",
  routeTable: "route-table",
  group: "security-group",
  rule: "security-group-rule",
  keyPair: "key-pair",
  volume: "volume",
  snapshot: "snapshot",
  address: "elastic-ip",
  server: "instance",
};

function taggable(ec2: Ec2, id: string): TableName {
  const kind = kindOfEc2Id(id) as TableName | undefined;
  if (kind === undefined || !Object.hasOwn(resourceTypes, kind)) {
    throw new AwsProtocolError("InvalidID", `The ID '${id.slice(0, 100)}' is not valid`);
  }
  find(ec2.cloud, kind, id);
  return kind;
}

interface TagEntry {
  readonly id: string;
  readonly createdAt: number;
  readonly tags: BaseRecord["tags"];
  readonly resourceId: string;
  readonly type: Api.ResourceType;
  readonly key: string;
  readonly value: string;
}

function* allTags(ec2: Ec2): Generator<TagEntry> {
  for (const [kind, type] of Object.entries(resourceTypes)) {
    const records: Iterable<BaseRecord> = ec2.cloud.data.tables[kind as TableName].values();
    for (const record of records) {
      for (const [key, value] of Object.entries(record.tags)) {
        yield {
          id: `${record.id}\n${key}`,
          createdAt: record.createdAt,
          tags: record.tags,
          resourceId: record.id,
          type,
          key,
          value,
        };
      }
    }
  }
}

export const tagOperations = {
  CreateTags(ec2: Ec2, input: Api.CreateTagsCommandInput): object {
    const pairs = tagPairs(requiredList(input.Tags, "tagSet"));
    for (const id of requiredList(input.Resources, "resourceIdSet")) {
      setTags(ec2.cloud, taggable(ec2, id), id, pairs);
    }
    return {};
  },

  DeleteTags(ec2: Ec2, input: Api.DeleteTagsCommandInput): object {
    const remove = input.Tags?.length
      ? input.Tags.map((tag) => ({
          key: required(tag.Key, "Tag.Key"),
          ...(tag.Value === undefined ? {} : { value: tag.Value }),
        }))
      : ("all" as const);
    for (const id of requiredList(input.Resources, "resourceIdSet")) {
      removeTags(ec2.cloud, taggable(ec2, id), id, remove);
    }
    return {};
  },

  DescribeTags(ec2: Ec2, input: Api.DescribeTagsCommandInput): Answer<Api.DescribeTagsCommandOutput> {
    const keep = compileFilters<TagEntry>(input.Filters, {
      "resource-id": (each) => each.resourceId,
      "resource-type": (each) => each.type,
      key: (each) => each.key,
      value: (each) => each.value,
    });
    const page = pageOf(allTags(ec2), keep, input);
    return {
      Tags: page.items.map((each) => ({
        ResourceId: each.resourceId,
        ResourceType: each.type,
        Key: each.key,
        Value: each.value,
      })),
      NextToken: page.nextToken,
    };
  },
} satisfies Readonly<Record<string, Operation>>;
