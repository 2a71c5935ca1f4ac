/** Snapshots of volumes. */
import type * as Api from "@aws-sdk/client-ec2";
import { find, findAll } from "#devcloud/core/cloud.ts";
import type { SnapshotRecord } from "#devcloud/core/records.ts";
import { AwsProtocolError } from "#wire/aws/aws-protocol-error.ts";
import {
  type Answer,
  type Ec2,
  type LongOperation,
  type Operation,
  required,
  specifiedTags,
  tagList,
} from "./ec2-context.ts";
import { compileFilters } from "./ec2-filter.ts";
import { pageOf } from "./ec2-page.ts";

function snapshotShape(ec2: Ec2, record: SnapshotRecord): Api.Snapshot {
  return {
    SnapshotId: record.id,
    VolumeId: record.volumeId,
    VolumeSize: record.sizeGiB,
    State: record.state,
    ...(record.state === "error" ? { StateMessage: "The content of the volume could not be read." } : {}),
    Progress: record.state === "completed" ? "100%" : "0%",
    StartTime: new Date(record.startedAt),
    Encrypted: record.encrypted,
    Description: record.description,
    OwnerId: ec2.accountId,
    StorageTier: "standard",
    Tags: tagList(record.tags),
  };
}

/** The volumes that an instance's snapshots are of. */
function volumesOf(ec2: Ec2, input: Api.CreateSnapshotsCommandInput): string[] {
  const specification = required(input.InstanceSpecification, "InstanceSpecification");
  const server = find(ec2.cloud, "server", required(specification.InstanceId, "InstanceId"));
  const excluded = new Set(specification.ExcludeDataVolumeIds);
  const attached = ec2.cloud.data.tables.volume.by("server", server.id);
  const unknown = [...excluded].find((id) => !attached.some((volume) => volume.id === id));
  if (unknown !== undefined) {
    throw new AwsProtocolError(
      "InvalidParameterValue",
      `The volume '${unknown.slice(0, 60)}' is not attached to instance '${server.id}'.`,
    );
  }
  const wanted = attached.filter(
    ({ id, attachment }) =>
      !excluded.has(id) &&
      !(specification.ExcludeBootVolume === true && attachment?.device === server.rootDevice),
  );
  if (wanted.length === 0) {
    throw new AwsProtocolError("InvalidParameterValue", "There is no volume to take a snapshot of.");
  }
  return wanted.map(({ id }) => id);
}

export const snapshotOperations = {
  DescribeSnapshots(
    ec2: Ec2,
    input: Api.DescribeSnapshotsCommandInput,
  ): Answer<Api.DescribeSnapshotsCommandOutput> {
    const keep = compileFilters<SnapshotRecord>(input.Filters, {
      "snapshot-id": (each) => each.id,
      "volume-id": (each) => each.volumeId,
      "volume-size": (each) => each.sizeGiB,
      status: (each) => each.state,
      description: (each) => each.description,
      encrypted: (each) => each.encrypted,
      "start-time": (each) => new Date(each.startedAt).toISOString(),
      "owner-id": () => ec2.accountId,
    });
    const all = ec2.cloud.data.tables.snapshot.values();
    const chosen = input.SnapshotIds?.length ? findAll(ec2.cloud, "snapshot", input.SnapshotIds) : all;
    const page = pageOf(chosen, keep, input);
    return { Snapshots: page.items.map((each) => snapshotShape(ec2, each)), NextToken: page.nextToken };
  },
} satisfies Readonly<Record<string, Operation>>;

export const longSnapshotOperations = {
  async CreateSnapshot(ec2: Ec2, input: Api.CreateSnapshotCommandInput, signal: AbortSignal) {
    const volumeIds = [required(input.VolumeId, "volumeId")];
    const tags = specifiedTags(input.TagSpecifications, "snapshot");
    const taken = await ec2.snapshots.take({ volumeIds, description: input.Description ?? "", tags }, signal);
    const [record] = taken;
    return record === undefined ? {} : { ...snapshotShape(ec2, record), State: "pending", Progress: "" };
  },

  async CreateSnapshots(ec2: Ec2, input: Api.CreateSnapshotsCommandInput, signal: AbortSignal) {
    const volumeIds = volumesOf(ec2, input);
    const tags = specifiedTags(input.TagSpecifications, "snapshot");
    const taken = await ec2.snapshots.take({ volumeIds, description: input.Description ?? "", tags }, signal);
    const Snapshots = taken.map((record) => ({
      ...snapshotShape(ec2, record),
      State: "pending",
      Progress: "",
    }));
    return { Snapshots };
  },

  async DeleteSnapshot(ec2: Ec2, input: Api.DeleteSnapshotCommandInput) {
    await ec2.snapshots.remove(required(input.SnapshotId, "snapshotId"));
    return {};
  },
} satisfies Readonly<Record<string, LongOperation>>;
