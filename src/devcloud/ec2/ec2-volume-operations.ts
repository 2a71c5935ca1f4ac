/** Volumes and their attachments. */
import type * as Api from "@aws-sdk/client-ec2";
import { find, findAll } from "#devcloud/core/cloud.ts";
import { checkQuota } from "#devcloud/core/quotas.ts";
import type { VolumeRecord } from "#devcloud/core/records.ts";
import {
  attachVolume,
  createVolume,
  deleteVolume,
  detachVolume,
  heldVolumeGiB,
} from "#devcloud/core/volumes.ts";
import { AwsProtocolError } from "#wire/aws/aws-protocol-error.ts";
import {
  type Answer,
  type Ec2,
  type Operation,
  onceByToken,
  required,
  specifiedTags,
} from "./ec2-context.ts";
import { compileFilters } from "./ec2-filter.ts";
import { pageOf } from "./ec2-page.ts";
import { attachmentShape, checkedVolume, volumeShape } from "./ec2-volume.ts";

function modification(volume: VolumeRecord): Api.VolumeModification | undefined {
  const kept = volume.extra["modification"];
  if (kept === undefined || kept === null || typeof kept !== "object") return undefined;
  const from = kept as Readonly<Record<string, number | string | null>>;
  return {
    VolumeId: volume.id,
    ModificationState: "completed",
    Progress: 100,
    TargetSize: volume.sizeGiB,
    TargetVolumeType: volume.type as Api.VolumeType,
    ...(volume.iops === null ? {} : { TargetIops: volume.iops }),
    OriginalSize: Number(from["sizeGiB"]),
    OriginalVolumeType: String(from["type"]) as Api.VolumeType,
    ...(from["iops"] === null ? {} : { OriginalIops: Number(from["iops"]) }),
    StartTime: new Date(Number(from["at"])),
    EndTime: new Date(Number(from["at"])),
  };
}

export const volumeOperations = {
  CreateVolume(ec2: Ec2, input: Api.CreateVolumeCommandInput): object {
    const zone = required(input.AvailabilityZone, "AvailabilityZone");
    const checked = checkedVolume(input);
    const tags = specifiedTags(input.TagSpecifications, "volume");
    const [id = ""] = onceByToken(ec2, "CreateVolume", input, () => [
      createVolume(ec2.cloud, { ...checked, zone, tags }).id,
    ]);
    return { ...volumeShape(ec2, find(ec2.cloud, "volume", id)), State: "creating" };
  },

  DeleteVolume(ec2: Ec2, input: Api.DeleteVolumeCommandInput): object {
    deleteVolume(ec2.cloud, required(input.VolumeId, "volumeId"));
    return {};
  },

  DescribeVolumes(
    ec2: Ec2,
    input: Api.DescribeVolumesCommandInput,
  ): Answer<Api.DescribeVolumesCommandOutput> {
    const keep = compileFilters<VolumeRecord>(input.Filters, {
      "volume-id": (each) => each.id,
      status: (each) => (each.attachment === null ? "available" : "in-use"),
      size: (each) => each.sizeGiB,
      "volume-type": (each) => each.type,
      "availability-zone": (each) => each.zone,
      encrypted: (each) => each.encrypted,
      "snapshot-id": (each) => each.snapshotId,
      "create-time": (each) => new Date(each.createdAt).toISOString(),
      "attachment.instance-id": (each) => each.attachment?.serverId,
      "attachment.device": (each) => each.attachment?.device,
      "attachment.status": (each) => (each.attachment === null ? undefined : "attached"),
      "attachment.delete-on-termination": (each) => each.attachment?.deleteOnTermination,
    });
    const all = ec2.cloud.data.tables.volume.values();
    const chosen = input.VolumeIds?.length ? findAll(ec2.cloud, "volume", input.VolumeIds) : all;
    const page = pageOf(chosen, keep, input);
    return { Volumes: page.items.map((each) => volumeShape(ec2, each)), NextToken: page.nextToken };
  },

  AttachVolume(ec2: Ec2, input: Api.AttachVolumeCommandInput): object {
    const volume = attachVolume(ec2.cloud, {
      volumeId: required(input.VolumeId, "volumeId"),
      serverId: required(input.InstanceId, "instanceId"),
      device: required(input.Device, "device"),
    });
    return attachmentShape(volume, "attaching");
  },

  DetachVolume(ec2: Ec2, input: Api.DetachVolumeCommandInput): object {
    const was = detachVolume(ec2.cloud, required(input.VolumeId, "volumeId"), input.InstanceId);
    return attachmentShape(was, "detaching");
  },

  ModifyVolume(ec2: Ec2, input: Api.ModifyVolumeCommandInput): Answer<Api.ModifyVolumeCommandOutput> {
    const volume = find(ec2.cloud, "volume", required(input.VolumeId, "volumeId"));
    const size = input.Size ?? volume.sizeGiB;
    if (size < volume.sizeGiB) {
      throw new AwsProtocolError("InvalidParameterValue", "New size cannot be smaller than existing size");
    }
    const sameType = input.VolumeType === undefined || input.VolumeType === volume.type;
    const keepsIops = sameType && volume.type !== "gp2";
    const checked = checkedVolume({
      Size: size,
      VolumeType: input.VolumeType ?? volume.type,
      Iops: input.Iops ?? (keepsIops ? (volume.iops ?? undefined) : undefined),
      Throughput: input.Throughput ?? (sameType ? (volume.throughput ?? undefined) : undefined),
    });
    const { quotas } = ec2.cloud;
    checkQuota(quotas, "volumeGiB", heldVolumeGiB(ec2.cloud), size - volume.sizeGiB);
    const changed = ec2.cloud.data.tables.volume.put({
      ...volume,
      sizeGiB: checked.sizeGiB,
      type: checked.type,
      iops: checked.iops ?? null,
      throughput: checked.throughput ?? null,
      extra: {
        ...volume.extra,
        modification: {
          sizeGiB: volume.sizeGiB,
          type: volume.type,
          iops: volume.iops,
          at: ec2.cloud.clock.now(),
        },
      },
    });
    return { VolumeModification: modification(changed) };
  },

  DescribeVolumesModifications(
    ec2: Ec2,
    input: Api.DescribeVolumesModificationsCommandInput,
  ): Answer<Api.DescribeVolumesModificationsCommandOutput> {
    const keep = compileFilters<VolumeRecord>(input.Filters, {
      "volume-id": (each) => each.id,
      "modification-state": () => "completed",
      "target-size": (each) => each.sizeGiB,
      "target-volume-type": (each) => each.type,
    });
    const all = ec2.cloud.data.tables.volume.values();
    const chosen = input.VolumeIds?.length ? findAll(ec2.cloud, "volume", input.VolumeIds) : all;
    const page = pageOf(chosen, (each) => keep(each) && modification(each) !== undefined, input);
    return {
      VolumesModifications: page.items.flatMap((each) => modification(each) ?? []),
      NextToken: page.nextToken,
    };
  },

  DescribeVolumeStatus(
    ec2: Ec2,
    input: Api.DescribeVolumeStatusCommandInput,
  ): Answer<Api.DescribeVolumeStatusCommandOutput> {
    const keep = compileFilters<VolumeRecord>(input.Filters, {
      "availability-zone": (each) => each.zone,
      "volume-status.status": () => "ok",
    });
    const all = ec2.cloud.data.tables.volume.values();
    const chosen = input.VolumeIds?.length ? findAll(ec2.cloud, "volume", input.VolumeIds) : all;
    const page = pageOf(chosen, keep, input);
    return {
      VolumeStatuses: page.items.map((each) => ({
        VolumeId: each.id,
        AvailabilityZone: each.zone ?? "",
        VolumeStatus: { Status: "ok", Details: [{ Name: "io-enabled", Status: "passed" }] },
        Actions: [],
        Events: [],
      })),
      NextToken: page.nextToken,
    };
  },
} satisfies Readonly<Record<string, Operation>>;
