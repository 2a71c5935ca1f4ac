/** Changes and deletions whose answer was lost: the state itself tells. */
import type {
  AssociateAddressRequest,
  AttachInternetGatewayRequest,
  AttachVolumeRequest,
  CreateTagsRequest,
  DeleteKeyPairRequest,
  DeleteTagsRequest,
  DescribeAddressesResult,
  DescribeInstanceAttributeCommandOutput,
  DescribeInstancesResult,
  DescribeInternetGatewaysResult,
  DescribeSubnetsResult,
  DescribeTagsResult,
  DescribeVolumesModificationsResult,
  DescribeVolumesResult,
  DetachVolumeRequest,
  DisassociateAddressRequest,
  Instance,
  ModifyInstanceAttributeRequest,
  ModifySubnetAttributeRequest,
  ModifyVolumeRequest,
  ReleaseAddressRequest,
  TerminateInstancesRequest,
} from "@aws-sdk/client-ec2";
import type { Ec2Resolver, Ec2Resolvers, ResolutionContext } from "./ec2-resolver.ts";
import { applied, appliedIf, question, refused, undecided } from "./ec2-resolver.ts";

/** Deleted if it is not listed, or listed in a state of passing away. */
function gone(operation: string, filter: string, member: string, list: string): Ec2Resolver {
  return {
    ask: (input: Record<string, string | undefined>) => [question(operation, { [filter]: input[member] })],
    judge: (_input: object, [answer]: [Record<string, { State?: string }[] | undefined>], context) => {
      const left = (answer[list] ?? []).filter(({ State }) => State !== "deleting" && State !== "deleted");
      return appliedIf(left.length === 0, context);
    },
  };
}

const instancesOf = (answer: DescribeInstancesResult): Instance[] =>
  (answer.Reservations ?? []).flatMap(({ Instances }) => Instances ?? []);

/** Applied for those servers that are, or are on their way to, such a state; an absent one is terminated. */
function byPower(states: readonly string[], list: string): Ec2Resolver {
  return {
    ask: (input: TerminateInstancesRequest) => [
      question("DescribeInstances", { "instance-id": input.InstanceIds ?? [] }),
    ],
    judge: (
      input: TerminateInstancesRequest,
      [answer]: [DescribeInstancesResult],
      context: ResolutionContext,
    ) => {
      const stateOf = new Map(
        instancesOf(answer).map(({ InstanceId, State }) => [InstanceId, State?.Name as string | undefined]),
      );
      const reached = (input.InstanceIds ?? []).filter((instanceId) =>
        states.includes(stateOf.get(instanceId) ?? "terminated"),
      );
      if (reached.length === 0) return refused;
      return applied(context, { [list]: reached.map((InstanceId) => ({ InstanceId })) });
    },
  };
}

function sameSet(a: readonly (string | undefined)[], b: readonly (string | undefined)[]): boolean {
  return a.length === b.length && a.every((item) => b.includes(item));
}

function judgeInstanceAttribute(
  input: ModifyInstanceAttributeRequest,
  [answer, userData]: [DescribeInstancesResult, DescribeInstanceAttributeCommandOutput | undefined],
  context: ResolutionContext,
): ReturnType<Ec2Resolver["judge"]> {
  const instance = instancesOf(answer)[0];
  if (instance === undefined) return refused;
  const type = input.InstanceType?.Value ?? (input.Attribute === "instanceType" ? input.Value : undefined);
  if (type !== undefined) return appliedIf(instance.InstanceType === type, context);
  if (input.Groups?.length) {
    const seen = (instance.SecurityGroups ?? []).map(({ GroupId }) => GroupId);
    return appliedIf(sameSet(seen, input.Groups), context);
  }
  const wanted = input.UserData?.Value as unknown as string | undefined;
  const shown = userData?.UserData?.Value;
  if (wanted !== undefined && shown !== undefined) return appliedIf(shown === wanted, context);
  return undecided(context, "the attribute cannot be read back", "note");
}

function addressFilters(input: {
  readonly AllocationId?: string | undefined;
  readonly AssociationId?: string | undefined;
  readonly PublicIp?: string | undefined;
}): Record<string, string | undefined> {
  if (input.AssociationId) return { "association-id": input.AssociationId };
  return input.AllocationId ? { "allocation-id": input.AllocationId } : { "public-ip": input.PublicIp };
}

type TagTable = ReadonlyMap<string, ReadonlyMap<string, string>>;

function tagTable(answer: DescribeTagsResult): TagTable {
  const table = new Map<string, Map<string, string>>();
  for (const { ResourceId = "", Key = "", Value = "" } of answer.Tags ?? []) {
    table.set(ResourceId, (table.get(ResourceId) ?? new Map<string, string>()).set(Key, Value));
  }
  return table;
}

const tagQuestion = (input: { readonly Resources?: string[] | undefined }) => [
  question("DescribeTags", { "resource-id": input.Resources ?? [] }),
];

function attachedTo(answer: DescribeVolumesResult, instanceId: string | undefined): boolean {
  return (answer.Volumes ?? []).some(({ Attachments }) =>
    (Attachments ?? []).some(
      ({ InstanceId, State }) =>
        (instanceId === undefined || InstanceId === instanceId) &&
        (State === "attached" || State === "attaching" || State === "busy"),
    ),
  );
}

function gatewayAttached(attached: boolean): Ec2Resolver {
  return {
    ask: (input: AttachInternetGatewayRequest) => [
      question("DescribeInternetGateways", { "internet-gateway-id": input.InternetGatewayId }),
    ],
    judge: (
      input: AttachInternetGatewayRequest,
      [answer]: [DescribeInternetGatewaysResult],
      context: ResolutionContext,
    ) => {
      const holds = (answer.InternetGateways ?? []).some(({ Attachments }) =>
        (Attachments ?? []).some(({ VpcId, State }) => VpcId === input.VpcId && State !== "detaching"),
      );
      return appliedIf(holds === attached, context);
    },
  };
}

export const stateResolvers = {
  DeleteVpc: gone("DescribeVpcs", "vpc-id", "VpcId", "Vpcs"),
  DeleteSubnet: gone("DescribeSubnets", "subnet-id", "SubnetId", "Subnets"),
  DeleteVolume: gone("DescribeVolumes", "volume-id", "VolumeId", "Volumes"),
  DeleteInternetGateway: gone(
    "DescribeInternetGateways",
    "internet-gateway-id",
    "InternetGatewayId",
    "InternetGateways",
  ),
  DeleteKeyPair: {
    ask: (input: DeleteKeyPairRequest) => [
      question("DescribeKeyPairs", { "key-name": input.KeyName, "key-pair-id": input.KeyPairId }),
    ],
    judge: (_input: object, [answer]: [{ KeyPairs?: unknown[] }], context: ResolutionContext) =>
      appliedIf(!answer.KeyPairs?.length, context),
  },
  AttachInternetGateway: gatewayAttached(true),
  DetachInternetGateway: gatewayAttached(false),
  ModifySubnetAttribute: {
    ask: (input: ModifySubnetAttributeRequest) => [
      question("DescribeSubnets", { "subnet-id": input.SubnetId }),
    ],
    judge: (
      input: ModifySubnetAttributeRequest,
      [answer]: [DescribeSubnetsResult],
      context: ResolutionContext,
    ) => {
      const wanted = input.MapPublicIpOnLaunch?.Value;
      if (wanted === undefined) return undecided(context, "the attribute cannot be read back", "note");
      return appliedIf(answer.Subnets?.[0]?.MapPublicIpOnLaunch === wanted, context);
    },
  },
  TerminateInstances: byPower(["shutting-down", "terminated"], "TerminatingInstances"),
  StopInstances: byPower(["stopping", "stopped"], "StoppingInstances"),
  StartInstances: byPower(["pending", "running"], "StartingInstances"),
  // Whether it happened or not, nothing that is recorded differs.
  RebootInstances: { ask: () => [], judge: (_input: object, _answers: [], context) => applied(context) },
  ModifyInstanceAttribute: {
    ask: (input: ModifyInstanceAttributeRequest) => [
      question("DescribeInstances", { "instance-id": input.InstanceId }),
      ...(input.UserData === undefined
        ? []
        : [
            question(
              "DescribeInstanceAttribute",
              {},
              {
                InstanceId: input.InstanceId ?? "",
                Attribute: "userData",
              },
            ),
          ]),
    ],
    judge: judgeInstanceAttribute,
  },
  ModifyVolume: {
    ask: (input: ModifyVolumeRequest) => [
      question("DescribeVolumes", { "volume-id": input.VolumeId }),
      question("DescribeVolumesModifications", { "volume-id": input.VolumeId }),
    ],
    judge: (
      input: ModifyVolumeRequest,
      [now, ahead]: [DescribeVolumesResult, DescribeVolumesModificationsResult],
      context: ResolutionContext,
    ) => {
      const volume = now.Volumes?.[0];
      const targets = (ahead.VolumesModifications ?? []).filter(
        ({ ModificationState }) => ModificationState !== "failed",
      );
      const shows = [
        { size: volume?.Size, type: volume?.VolumeType, iops: volume?.Iops },
        ...targets.map((one) => ({ size: one.TargetSize, type: one.TargetVolumeType, iops: one.TargetIops })),
      ].some(
        ({ size, type, iops }) =>
          (input.Size === undefined || input.Size === size) &&
          (input.VolumeType === undefined || input.VolumeType === type) &&
          (input.Iops === undefined || input.Iops === iops),
      );
      return appliedIf(shows, context);
    },
  },
  AttachVolume: {
    ask: (input: AttachVolumeRequest) => [question("DescribeVolumes", { "volume-id": input.VolumeId })],
    judge: (input: AttachVolumeRequest, [answer]: [DescribeVolumesResult], context: ResolutionContext) =>
      appliedIf(attachedTo(answer, input.InstanceId), context),
  },
  DetachVolume: {
    ask: (input: DetachVolumeRequest) => [question("DescribeVolumes", { "volume-id": input.VolumeId })],
    judge: (input: DetachVolumeRequest, [answer]: [DescribeVolumesResult], context: ResolutionContext) =>
      appliedIf(!attachedTo(answer, input.InstanceId), context),
  },
  ReleaseAddress: {
    ask: (input: ReleaseAddressRequest) => [question("DescribeAddresses", addressFilters(input))],
    judge: (_input: object, [answer]: [DescribeAddressesResult], context: ResolutionContext) =>
      appliedIf(!answer.Addresses?.length, context),
  },
  AssociateAddress: {
    ask: (input: AssociateAddressRequest) => [question("DescribeAddresses", addressFilters(input))],
    judge: (
      input: AssociateAddressRequest,
      [answer]: [DescribeAddressesResult],
      context: ResolutionContext,
    ) => {
      const address = answer.Addresses?.[0];
      const here =
        address !== undefined &&
        (input.InstanceId
          ? address.InstanceId === input.InstanceId
          : address.NetworkInterfaceId === input.NetworkInterfaceId);
      return appliedIf(here, context, { AssociationId: address?.AssociationId });
    },
  },
  DisassociateAddress: {
    ask: (input: DisassociateAddressRequest) => [question("DescribeAddresses", addressFilters(input))],
    judge: (_input: object, [answer]: [DescribeAddressesResult], context: ResolutionContext) =>
      appliedIf(!answer.Addresses?.some(({ AssociationId }) => AssociationId !== undefined), context),
  },
  CreateTags: {
    ask: tagQuestion,
    judge: (input: CreateTagsRequest, [answer]: [DescribeTagsResult], context: ResolutionContext) => {
      const table = tagTable(answer);
      const tagged = (input.Resources ?? []).filter((resourceId) =>
        (input.Tags ?? []).every(({ Key, Value }) => table.get(resourceId)?.get(Key ?? "") === (Value ?? "")),
      );
      if (tagged.length === 0) return refused;
      const command = { ...context.command, input: { ...input, Resources: tagged } };
      return applied({ ...context, command });
    },
  },
  DeleteTags: {
    ask: tagQuestion,
    judge: (input: DeleteTagsRequest, [answer]: [DescribeTagsResult], context: ResolutionContext) => {
      const table = tagTable(answer);
      const left = (input.Resources ?? []).some((resourceId) =>
        input.Tags?.length
          ? input.Tags.some(({ Key, Value }) => {
              const seen = table.get(resourceId)?.get(Key ?? "");
              return seen !== undefined && (Value === undefined || Value === seen);
            })
          : (table.get(resourceId)?.size ?? 0) > 0,
      );
      return appliedIf(!left, context);
    },
  },
} satisfies Ec2Resolvers;
