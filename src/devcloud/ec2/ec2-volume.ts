/** Volumes: their shape, and what sizes and speeds each type takes. */
import type * as Api from "@aws-sdk/client-ec2";
import type { VolumeRecord } from "#devcloud/core/records.ts";
import type { VolumeInput } from "#devcloud/core/volumes.ts";
import { AwsProtocolError } from "#wire/aws/aws-protocol-error.ts";
import { type Ec2, tagList } from "./ec2-context.ts";
import { invalidValue } from "./ec2-error.ts";

interface TypeLimits {
  readonly leastGiB: number;
  readonly mostGiB: number;
  /** Null: the type has no provisioned IOPS. */
  readonly iops: readonly [least: number, most: number] | null;
  readonly throughput: boolean;
}

/** Source: Amazon EBS user guide, "Amazon EBS volume types". */
const volumeTypes: Readonly<Record<string, TypeLimits>> = {
  gp2: { leastGiB: 1, mostGiB: 16_384, iops: null, throughput: false },
  gp3: { leastGiB: 1, mostGiB: 65_536, iops: [3000, 80_000], throughput: true },
  io1: { leastGiB: 4, mostGiB: 16_384, iops: [100, 64_000], throughput: false },
  io2: { leastGiB: 4, mostGiB: 65_536, iops: [100, 256_000], throughput: false },
  st1: { leastGiB: 125, mostGiB: 16_384, iops: null, throughput: false },
  sc1: { leastGiB: 125, mostGiB: 16_384, iops: null, throughput: false },
  standard: { leastGiB: 1, mostGiB: 1024, iops: null, throughput: false },
};

export interface VolumeRequest {
  readonly Size?: number | undefined;
  readonly VolumeType?: string | undefined;
  readonly Iops?: number | undefined;
  readonly Throughput?: number | undefined;
  readonly Encrypted?: boolean | undefined;
  readonly SnapshotId?: string | undefined;
}

export function checkedVolume(request: VolumeRequest): VolumeInput {
  const type = request.VolumeType ?? "gp2";
  const limits = Object.hasOwn(volumeTypes, type) ? volumeTypes[type] : undefined;
  if (limits === undefined) throw invalidValue(type, "volumeType", "Unknown volume type.");
  if (request.SnapshotId !== undefined && request.SnapshotId !== "") {
    throw new AwsProtocolError(
      "InvalidSnapshot.NotFound",
      `The snapshot '${request.SnapshotId.slice(0, 60)}' does not exist.`,
    );
  }
  const size = request.Size;
  if (size === undefined) {
    throw new AwsProtocolError("MissingParameter", "The request must contain the parameter size/snapshot");
  }
  if (!Number.isInteger(size) || size < limits.leastGiB || size > limits.mostGiB) {
    throw new AwsProtocolError(
      "InvalidParameterValue",
      `Volume of ${size}GiB is invalid; the size of a ${type} volume is ${limits.leastGiB} to ${limits.mostGiB} GiB.`,
    );
  }
  if (request.Iops !== undefined && limits.iops === null) {
    throw new AwsProtocolError(
      "InvalidParameterCombination",
      `The parameter iops is not supported for ${type} volumes.`,
    );
  }
  if ((type === "io1" || type === "io2") && request.Iops === undefined) {
    throw new AwsProtocolError("MissingParameter", "The request must contain the parameter iops");
  }
  if (
    request.Iops !== undefined &&
    limits.iops !== null &&
    (request.Iops < limits.iops[0] || request.Iops > limits.iops[1])
  ) {
    throw new AwsProtocolError(
      "InvalidParameterValue",
      `Volume iops of ${request.Iops} is out of range: ${limits.iops[0]} to ${limits.iops[1]} for ${type}.`,
    );
  }
  if (request.Throughput !== undefined && !limits.throughput) {
    throw new AwsProtocolError(
      "InvalidParameterCombination",
      `The parameter throughput is not supported for ${type} volumes.`,
    );
  }
  return {
    sizeGiB: size,
    type,
    iops:
      request.Iops ??
      (type === "gp3" ? 3000 : type === "gp2" ? Math.min(16_000, Math.max(100, size * 3)) : null),
    throughput: request.Throughput ?? (type === "gp3" ? 125 : null),
    encrypted: request.Encrypted ?? false,
  };
}

export function attachmentShape(
  volume: VolumeRecord,
  state: Api.VolumeAttachmentState,
): Api.VolumeAttachment {
  return {
    VolumeId: volume.id,
    InstanceId: volume.attachment?.serverId,
    Device: volume.attachment?.device,
    State: state,
    AttachTime: new Date(volume.attachment?.attachedAt ?? 0),
    DeleteOnTermination: volume.attachment?.deleteOnTermination ?? false,
  };
}

export function volumeShape(ec2: Ec2, volume: VolumeRecord): Api.Volume {
  return {
    VolumeId: volume.id,
    Size: volume.sizeGiB,
    SnapshotId: volume.snapshotId ?? "",
    AvailabilityZone: volume.zone ?? ec2.cloud.catalog.zones[0],
    State: volume.attachment === null ? "available" : "in-use",
    CreateTime: new Date(volume.createdAt),
    VolumeType: volume.type as Api.VolumeType,
    Encrypted: volume.encrypted,
    MultiAttachEnabled: false,
    ...(volume.iops === null ? {} : { Iops: volume.iops }),
    ...(volume.throughput === null ? {} : { Throughput: volume.throughput }),
    Attachments: volume.attachment === null ? [] : [attachmentShape(volume, "attached")],
    Tags: tagList(volume.tags),
  };
}
