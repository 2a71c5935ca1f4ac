/** Commands on instances. */
import type {
  Instance,
  ModifyInstanceAttributeRequest,
  Reservation,
  RunInstancesRequest,
  StartInstancesRequest,
  StartInstancesResult,
  StopInstancesRequest,
  StopInstancesResult,
  TerminateInstancesRequest,
  TerminateInstancesResult,
} from "@aws-sdk/client-ec2";
import type { CreateChange } from "#model/change.ts";
import type { BlockDevice, ServerSpec } from "#model/resource.ts";
import type { Ec2Effect, Ec2Translators, FieldFinding, KnownResources } from "./ec2-effect.ts";
import { changed, fieldGaps, id, joinEffects, noEffect } from "./ec2-effect.ts";
import { serverFromInstance } from "./ec2-resources.ts";
import { tagsOfCreated } from "./ec2-tags.ts";

type Mutable<T> = { -readonly [P in keyof T]: T[P] };

/** Members of RunInstances that the model has no field for, and what that means for the standby's server. */
const untranslatedLaunchFields: Readonly<Partial<Record<keyof RunInstancesRequest, FieldFinding>>> = {
  IamInstanceProfile: { severity: "degraded", message: "its instance profile (role) is not carried over" },
  InstanceMarketOptions: { severity: "note", message: "it runs at the standby's normal price, not as spot" },
  CpuOptions: { severity: "note", message: "its CPU options are not carried over" },
  CreditSpecification: { severity: "note", message: "its CPU credits are not carried over" },
  HibernationOptions: { severity: "note", message: "it cannot hibernate on the standby" },
  LicenseSpecifications: { severity: "degraded", message: "its licence configurations are not carried over" },
  EnclaveOptions: { severity: "degraded", message: "its enclave is not carried over" },
  Ipv6AddressCount: { severity: "degraded", message: "its IPv6 addresses are not carried over" },
  Ipv6Addresses: { severity: "degraded", message: "its IPv6 addresses are not carried over" },
  SecondaryInterfaces: { severity: "degraded", message: "its secondary interfaces are not carried over" },
  ElasticGpuSpecification: { severity: "degraded", message: "its elastic GPU is not carried over" },
  InstanceInitiatedShutdownBehavior: {
    severity: "note",
    message: "what a shutdown from within does is the standby's own default",
  },
};

function launchFindings(input: RunInstancesRequest): FieldFinding[] {
  const findings: FieldFinding[] = [];
  for (const [field, finding] of Object.entries(untranslatedLaunchFields)) {
    const value = input[field as keyof RunInstancesRequest];
    if (value !== undefined && value !== false && value !== 0) findings.push(finding);
  }
  if (input.LaunchTemplate !== undefined) {
    findings.push({
      severity: "lost",
      message:
        "it was made from a launch template, whose user data and disks are not in the command: give them in RunInstances itself, or read the environment again",
    });
  }
  if ((input.NetworkInterfaces?.length ?? 0) > 1) {
    findings.push({ severity: "degraded", message: "only its first network interface is carried over" });
  }
  if (input.NetworkInterfaces?.[0]?.NetworkInterfaceId !== undefined) {
    findings.push({
      severity: "degraded",
      message: "it uses a network interface made beforehand, whose own settings are not carried over",
    });
  }
  const { Tenancy, GroupName } = input.Placement ?? {};
  if ((Tenancy !== undefined && Tenancy !== "default") || GroupName) {
    findings.push({ severity: "note", message: "its placement group or tenancy is not carried over" });
  }
  return findings;
}

/** Disks beside the root; EC2 keeps such a disk after termination unless told otherwise. */
function dataDisks(
  input: RunInstancesRequest,
  instance: Instance,
): { disks: BlockDevice[]; findings: FieldFinding[] } {
  const disks: BlockDevice[] = [];
  const findings: FieldFinding[] = [];
  for (const mapping of input.BlockDeviceMappings ?? []) {
    const { DeviceName: device, Ebs: ebs } = mapping;
    if (device === undefined || mapping.NoDevice !== undefined) continue;
    if (device === instance.RootDeviceName) {
      if (ebs?.VolumeSize === undefined) continue;
      findings.push({
        severity: "note",
        message: `its root disk of ${ebs.VolumeSize} GiB takes the image's size`,
      });
    } else if (ebs === undefined) {
      findings.push({ severity: "note", message: `its instance-store disk ${device} is not carried over` });
    } else {
      if (ebs.VolumeSize === undefined) {
        findings.push({ severity: "degraded", message: `the size of its disk ${device} follows a snapshot` });
      }
      disks.push({
        device,
        sizeGiB: ebs.VolumeSize ?? 1,
        ...(ebs.VolumeType === undefined ? {} : { type: ebs.VolumeType }),
        ...(ebs.SnapshotId ? { snapshotId: id(ebs.SnapshotId) } : {}),
        deleteOnTermination: ebs.DeleteOnTermination ?? false,
      });
    }
  }
  return { disks, findings };
}

function launchedServer(
  input: RunInstancesRequest,
  instance: Instance,
  known: KnownResources,
): { readonly change: CreateChange; readonly findings: FieldFinding[] } {
  const interface0 = input.NetworkInterfaces?.[0];
  const seen = serverFromInstance(instance);
  const { disks, findings } = dataDisks(input, instance);
  const spec: Mutable<ServerSpec> = { ...seen.spec, power: "running", blockDevices: disks };
  spec.imageId ||= input.ImageId ?? "";
  spec.type ||= input.InstanceType ?? "m1.small";
  const subnetId = spec.subnetId ?? input.SubnetId ?? interface0?.SubnetId;
  if (subnetId) spec.subnetId = id(subnetId);
  if (spec.groupIds.length === 0) {
    spec.groupIds = (input.SecurityGroupIds ?? interface0?.Groups ?? []).map(id);
  }
  const keyName = spec.keyName ?? input.KeyName;
  if (keyName) spec.keyName = keyName;
  if (input.UserData) spec.userData = input.UserData;
  const privateIp = input.PrivateIpAddress ?? interface0?.PrivateIpAddress;
  if (privateIp) spec.privateIp = privateIp;

  const asked = interface0?.AssociatePublicIpAddress;
  const subnet = spec.subnetId === undefined ? undefined : known.get("subnet", spec.subnetId);
  const bySubnet = subnet?.kind === "subnet" ? subnet.spec.publicAddresses : undefined;
  if (asked === undefined && bySubnet === undefined && !spec.publicAddress) {
    findings.push({
      severity: "note",
      message: "whether it has a public address follows its subnet, which is not recorded: none is assumed",
    });
  }
  spec.publicAddress = asked ?? (spec.publicAddress || (bySubnet ?? false));
  const tags = tagsOfCreated(instance.Tags, input.TagSpecifications, "instance");
  return { change: { type: "create", ...seen, spec, tags }, findings };
}

function runInstances(input: RunInstancesRequest, output: Reservation, known: KnownResources): Ec2Effect {
  const common = launchFindings(input);
  return joinEffects(
    (output.Instances ?? []).map((instance) => {
      const { change, findings } = launchedServer(input, instance, known);
      const resource = { kind: "server", id: change.id } as const;
      return { changes: [change], gaps: fieldGaps("RunInstances", resource, [...common, ...findings]) };
    }),
  );
}

/** The instances that the cloud says it took on; those that were asked for where it does not say. */
function named(
  answered: readonly { InstanceId?: string | undefined }[] | undefined,
  asked: readonly string[] | undefined,
): string[] {
  return answered?.length ? answered.flatMap(({ InstanceId }) => InstanceId ?? []) : [...(asked ?? [])];
}

function power(ids: readonly string[], state: "running" | "stopped"): Ec2Effect {
  return changed(
    ...ids.map(
      (serverId) => ({ type: "update", kind: "server", id: id(serverId), set: { power: state } }) as const,
    ),
  );
}

const untranslatedAttributes: ReadonlyMap<string, FieldFinding> = new Map<string, FieldFinding>([
  ["SourceDestCheck", { severity: "degraded", message: "forwarding of others' packets is not carried over" }],
  [
    "BlockDeviceMappings",
    { severity: "note", message: "what happens to its disks at its end is not carried over" },
  ],
  ["Kernel", { severity: "note", message: "its kernel is not carried over" }],
  ["Ramdisk", { severity: "note", message: "its RAM disk is not carried over" }],
  ["EnclaveOptions", { severity: "degraded", message: "its enclave is not carried over" }],
  [
    "DisableApiTermination",
    { severity: "note", message: "its protection from termination is not carried over" },
  ],
  ["DisableApiStop", { severity: "note", message: "its protection from being stopped is not carried over" }],
  [
    "InstanceInitiatedShutdownBehavior",
    { severity: "note", message: "what a shutdown from within does is the standby's own default" },
  ],
]);

/** The older form names the attribute by text: `Attribute=instanceType&Value=m5.large`. */
function attributeByName(input: ModifyInstanceAttributeRequest): ModifyInstanceAttributeRequest {
  const { Attribute: name, Value: value, ...rest } = input;
  if (name === undefined) return rest;
  const member = `${name.slice(0, 1).toUpperCase()}${name.slice(1)}`;
  if (name === "groupSet") return { ...rest, Groups: value === undefined ? [] : [value] };
  return { ...rest, [member]: { Value: value } };
}

function modifyInstanceAttribute(request: ModifyInstanceAttributeRequest): Ec2Effect {
  const input = attributeByName(request);
  const serverId = id(input.InstanceId);
  const set: Mutable<Partial<ServerSpec>> = {};
  if (input.InstanceType?.Value) set.type = input.InstanceType.Value;
  if (input.Groups?.length) set.groupIds = input.Groups.map(id);
  // Decoded blobs are base64 text, which is what the model holds.
  if (input.UserData !== undefined)
    set.userData = (input.UserData.Value as unknown as string | undefined) ?? "";
  const findings = Object.entries(input).flatMap(([member, value]) =>
    value === undefined ? [] : (untranslatedAttributes.get(member) ?? []),
  );
  return {
    changes: Object.keys(set).length === 0 ? [] : [{ type: "update", kind: "server", id: serverId, set }],
    gaps: fieldGaps("ModifyInstanceAttribute", { kind: "server", id: serverId }, findings),
  };
}

export const serverTranslators = {
  RunInstances: runInstances,
  TerminateInstances: (input: TerminateInstancesRequest, output: TerminateInstancesResult) =>
    changed(
      ...named(output.TerminatingInstances, input.InstanceIds).map(
        (serverId) => ({ type: "delete", kind: "server", id: id(serverId) }) as const,
      ),
    ),
  StartInstances: (input: StartInstancesRequest, output: StartInstancesResult) =>
    power(named(output.StartingInstances, input.InstanceIds), "running"),
  StopInstances: (input: StopInstancesRequest, output: StopInstancesResult) =>
    power(named(output.StoppingInstances, input.InstanceIds), "stopped"),
  RebootInstances: () => noEffect,
  ModifyInstanceAttribute: modifyInstanceAttribute,
} satisfies Ec2Translators;
