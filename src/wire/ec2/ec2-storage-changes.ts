/** Commands on volumes, addresses and key pairs. */
import type {
  AllocateAddressRequest,
  AllocateAddressResult,
  AssociateAddressRequest,
  AssociateAddressResult,
  AttachVolumeRequest,
  CreateKeyPairRequest,
  CreateVolumeRequest,
  DeleteKeyPairRequest,
  DeleteVolumeRequest,
  DetachVolumeRequest,
  DisassociateAddressRequest,
  ImportKeyPairRequest,
  KeyPair,
  ModifyVolumeRequest,
  ReleaseAddressRequest,
  Volume,
  VolumeAttachment,
} from "@aws-sdk/client-ec2";
import type { KeyPairSpec, VolumeSpec } from "#model/resource.ts";
import { volumeAttachmentId } from "#model/resource.ts";
import type { Ec2Effect, Ec2Translators, KnownResources } from "./ec2-effect.ts";
import { changed, fieldGaps, id, missingReference } from "./ec2-effect.ts";
import { addressAssociationId } from "./ec2-ids.ts";
import { addressFromEc2, volumeFromEc2 } from "./ec2-resources.ts";
import { tagsOfCreated } from "./ec2-tags.ts";

function modifyVolume(input: ModifyVolumeRequest): Ec2Effect {
  const set: Partial<VolumeSpec> = {
    ...(input.Size === undefined ? {} : { sizeGiB: input.Size }),
    ...(input.VolumeType === undefined ? {} : { type: input.VolumeType }),
    ...(input.Iops === undefined ? {} : { iops: input.Iops }),
  };
  const resource = { kind: "volume", id: id(input.VolumeId) } as const;
  const unsaid = input.Throughput !== undefined || input.MultiAttachEnabled !== undefined;
  return {
    changes: Object.keys(set).length === 0 ? [] : [{ type: "update", ...resource, set }],
    gaps: fieldGaps(
      "ModifyVolume",
      resource,
      unsaid ? [{ severity: "note", message: "its throughput or multi-attach is not carried over" }] : [],
    ),
  };
}

function associateAddress(
  input: AssociateAddressRequest,
  output: AssociateAddressResult,
  known: KnownResources,
): Ec2Effect {
  const addressId = input.AllocationId ?? known.get("address", input.PublicIp ?? "")?.id ?? input.PublicIp;
  if (addressId === undefined || !input.InstanceId) {
    return missingReference(
      "AssociateAddress",
      `the address ${addressId ?? "?"} was associated with the network interface ${input.NetworkInterfaceId ?? "?"}: associate it with the instance`,
    );
  }
  const address = known.get("address", addressId);
  const publicIp = input.PublicIp ?? (address?.kind === "address" ? address.spec.publicIp : undefined);
  return changed({
    type: "create",
    kind: "addressAssociation",
    id: addressAssociationId(addressId),
    aliases: [output.AssociationId, publicIp].flatMap((alias) => (alias ? id(alias) : [])),
    spec: {
      addressId: id(addressId),
      serverId: id(input.InstanceId),
      ...(input.PrivateIpAddress ? { privateIp: input.PrivateIpAddress } : {}),
    },
    tags: {},
  });
}

function disassociateAddress(
  input: DisassociateAddressRequest,
  _output: object,
  known: KnownResources,
): Ec2Effect {
  const addressId = known.get("address", input.PublicIp ?? "")?.id;
  const byAddress = addressId === undefined ? undefined : addressAssociationId(addressId);
  return changed({
    type: "delete",
    kind: "addressAssociation",
    id: id(input.AssociationId ?? byAddress ?? input.PublicIp),
  });
}

function createdKeyPair(pair: KeyPair, spec: KeyPairSpec, tags: Ec2TagSpecifications): Ec2Effect {
  return changed({
    type: "create",
    kind: "keyPair",
    id: id(spec.name),
    spec,
    tags: tagsOfCreated(pair.Tags, tags, "key-pair"),
    aliases: pair.KeyPairId === undefined ? [] : [id(pair.KeyPairId)],
  });
}

type Ec2TagSpecifications = CreateKeyPairRequest["TagSpecifications"];

export const storageTranslators = {
  CreateVolume: (input: CreateVolumeRequest, output: Volume) => {
    const asked: Volume = {
      Size: input.Size,
      VolumeType: input.VolumeType,
      AvailabilityZone: input.AvailabilityZone,
    };
    const resource = volumeFromEc2({ ...asked, ...output });
    const tags = tagsOfCreated(output.Tags, input.TagSpecifications, "volume");
    return {
      changes: [{ type: "create", ...resource, tags }],
      gaps: fieldGaps(
        "CreateVolume",
        resource,
        input.MultiAttachEnabled === true
          ? [{ severity: "degraded", message: "it can be attached to one server only" }]
          : [],
      ),
    };
  },
  DeleteVolume: (input: DeleteVolumeRequest) =>
    changed({ type: "delete", kind: "volume", id: id(input.VolumeId) }),
  ModifyVolume: modifyVolume,
  AttachVolume: (input: AttachVolumeRequest, output: VolumeAttachment) => {
    const [volumeId, serverId] = [id(input.VolumeId), id(input.InstanceId)];
    return changed({
      type: "create",
      kind: "volumeAttachment",
      id: volumeAttachmentId(volumeId, serverId),
      // DetachVolume may name the volume alone.
      aliases: [volumeId],
      spec: {
        volumeId,
        serverId,
        device: input.Device ?? output.Device ?? "",
        deleteOnTermination: output.DeleteOnTermination ?? false,
      },
      tags: {},
    });
  },
  DetachVolume: (input: DetachVolumeRequest, output: VolumeAttachment) => {
    const volumeId = id(input.VolumeId ?? output.VolumeId);
    const serverId = input.InstanceId ?? output.InstanceId;
    return changed({
      type: "delete",
      kind: "volumeAttachment",
      id: serverId === undefined ? volumeId : volumeAttachmentId(volumeId, serverId),
    });
  },
  AllocateAddress: (input: AllocateAddressRequest, output: AllocateAddressResult) => {
    const resource = addressFromEc2(output);
    return changed({
      type: "create",
      ...resource,
      aliases: output.PublicIp === undefined ? [] : [id(output.PublicIp)],
      tags: tagsOfCreated(undefined, input.TagSpecifications, "elastic-ip"),
    });
  },
  ReleaseAddress: (input: ReleaseAddressRequest) =>
    changed({ type: "delete", kind: "address", id: id(input.AllocationId ?? input.PublicIp) }),
  AssociateAddress: associateAddress,
  DisassociateAddress: disassociateAddress,
  CreateKeyPair: (input: CreateKeyPairRequest, output: KeyPair) =>
    createdKeyPair(output, { name: input.KeyName ?? output.KeyName ?? "" }, input.TagSpecifications),
  ImportKeyPair: (input: ImportKeyPairRequest, output: KeyPair) => {
    // Decoded blobs are base64 text.
    const material = input.PublicKeyMaterial as unknown as string | undefined;
    const publicKey = Buffer.from(material ?? "", "base64")
      .toString("utf8")
      .trim();
    const name = input.KeyName ?? output.KeyName ?? "";
    return createdKeyPair(output, { name, ...(publicKey ? { publicKey } : {}) }, input.TagSpecifications);
  },
  DeleteKeyPair: (input: DeleteKeyPairRequest) =>
    changed({ type: "delete", kind: "keyPair", id: id(input.KeyName ?? input.KeyPairId) }),
} satisfies Ec2Translators;
