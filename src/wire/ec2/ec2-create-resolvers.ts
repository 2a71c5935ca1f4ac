/** Creates whose answer was lost: by token, by name, or by what is new and matches. */
import type {
  CreateKeyPairRequest,
  CreateSecurityGroupRequest,
  CreateSubnetRequest,
  CreateVolumeRequest,
  CreateVpcRequest,
  DescribeAddressesResult,
  DescribeInstancesResult,
  DescribeInternetGatewaysResult,
  DescribeKeyPairsResult,
  DescribeSecurityGroupsResult,
  DescribeSubnetsResult,
  DescribeVolumesResult,
  DescribeVpcsResult,
  Tag,
  TagSpecification,
} from "@aws-sdk/client-ec2";
import type { Ec2Resolvers, ResolutionContext } from "./ec2-resolver.ts";
import { applied, appliedIf, oneOf, question, refused, undecided } from "./ec2-resolver.ts";
import { tagsAskedFor, tagsFromEc2 } from "./ec2-tags.ts";

/** Clocks of the cloud and of this machine may differ by so much. */
const skewMs = 5 * 60_000;

interface Tagged {
  readonly TagSpecifications?: TagSpecification[] | undefined;
}

function bearsTags(input: Tagged, type: string, tags: Tag[] | undefined): boolean {
  const seen = tagsFromEc2(tags);
  return Object.entries(tagsAskedFor(input.TagSpecifications, type)).every(
    ([key, value]) => seen[key] === value,
  );
}

/** Dates arrive as ISO text from decoded answers. */
function madeSince(time: Date | undefined, { command }: ResolutionContext): boolean {
  return time === undefined || new Date(time).getTime() >= command.at - skewMs;
}

const byKeyName = {
  ask: (input: CreateKeyPairRequest) => [question("DescribeKeyPairs", { "key-name": input.KeyName })],
  judge: (input: CreateKeyPairRequest, [answer]: [DescribeKeyPairsResult], context: ResolutionContext) => {
    const found = answer.KeyPairs?.find(({ KeyName }) => KeyName === input.KeyName);
    const ours =
      found !== undefined &&
      !context.knownIds.has(found.KeyName ?? "") &&
      !context.knownIds.has(found.KeyPairId ?? "");
    return appliedIf(ours, context, found);
  },
};

export const createResolvers = {
  RunInstances: {
    ask: (_input: object, { token }) =>
      token === null ? [] : [question("DescribeInstances", { "client-token": token })],
    judge: (_input: object, [answer]: [DescribeInstancesResult | undefined], context) => {
      if (answer === undefined) {
        return undecided(context, "it went without a client token, so that its servers cannot be told");
      }
      const made = (answer.Reservations ?? []).flatMap(({ Instances }) => Instances ?? []);
      if (made.length === 0) return refused;
      const alive = made.filter(
        ({ State }) => State?.Name !== "terminated" && State?.Name !== "shutting-down",
      );
      return applied(context, { Instances: alive });
    },
  },
  CreateVpc: {
    ask: (input: CreateVpcRequest) => [question("DescribeVpcs", { cidr: input.CidrBlock })],
    judge: (input: CreateVpcRequest, [answer]: [DescribeVpcsResult], context) => {
      const candidates = (answer.Vpcs ?? []).filter(
        ({ CidrBlock, IsDefault, Tags }) =>
          CidrBlock === input.CidrBlock && IsDefault !== true && bearsTags(input, "vpc", Tags),
      );
      return oneOf(
        candidates,
        ({ VpcId }) => VpcId,
        context,
        (Vpc) => ({ Vpc }),
      );
    },
  },
  CreateSubnet: {
    ask: (input: CreateSubnetRequest) => [question("DescribeSubnets", { "vpc-id": input.VpcId })],
    judge: (input: CreateSubnetRequest, [answer]: [DescribeSubnetsResult], context) => {
      const candidates = (answer.Subnets ?? []).filter(({ CidrBlock }) => CidrBlock === input.CidrBlock);
      return oneOf(
        candidates,
        ({ SubnetId }) => SubnetId,
        context,
        (Subnet) => ({ Subnet }),
      );
    },
  },
  CreateInternetGateway: {
    ask: () => [question("DescribeInternetGateways")],
    judge: (input: Tagged, [answer]: [DescribeInternetGatewaysResult], context) => {
      const candidates = (answer.InternetGateways ?? []).filter(
        ({ Attachments, Tags }) => !Attachments?.length && bearsTags(input, "internet-gateway", Tags),
      );
      return oneOf(
        candidates,
        ({ InternetGatewayId }) => InternetGatewayId,
        context,
        (InternetGateway) => ({
          InternetGateway,
        }),
      );
    },
  },
  CreateSecurityGroup: {
    ask: (input: CreateSecurityGroupRequest) => [
      question("DescribeSecurityGroups", { "group-name": input.GroupName, "vpc-id": input.VpcId }),
    ],
    judge: (input: CreateSecurityGroupRequest, [answer]: [DescribeSecurityGroupsResult], context) => {
      const candidates = (answer.SecurityGroups ?? []).filter(
        ({ GroupName, VpcId }) =>
          GroupName === input.GroupName && (input.VpcId === undefined || VpcId === input.VpcId),
      );
      return oneOf(
        candidates,
        ({ GroupId }) => GroupId,
        context,
        (group) => group,
      );
    },
  },
  CreateKeyPair: byKeyName,
  ImportKeyPair: byKeyName,
  CreateVolume: {
    ask: (input: CreateVolumeRequest) => [
      question("DescribeVolumes", {
        "availability-zone": input.AvailabilityZone,
        size: input.Size === undefined ? undefined : String(input.Size),
      }),
    ],
    judge: (input: CreateVolumeRequest, [answer]: [DescribeVolumesResult], context) => {
      const candidates = (answer.Volumes ?? []).filter(
        (volume) =>
          (input.Size === undefined || volume.Size === input.Size) &&
          (input.VolumeType === undefined || volume.VolumeType === input.VolumeType) &&
          (volume.SnapshotId ?? "") === (input.SnapshotId ?? "") &&
          bearsTags(input, "volume", volume.Tags) &&
          madeSince(volume.CreateTime, context),
      );
      return oneOf(
        candidates,
        ({ VolumeId }) => VolumeId,
        context,
        (volume) => volume,
      );
    },
  },
  AllocateAddress: {
    ask: () => [question("DescribeAddresses")],
    judge: (input: Tagged, [answer]: [DescribeAddressesResult], context) => {
      const candidates = (answer.Addresses ?? []).filter(
        ({ AssociationId, Tags }) => AssociationId === undefined && bearsTags(input, "elastic-ip", Tags),
      );
      return oneOf(
        candidates,
        ({ AllocationId }) => AllocationId,
        context,
        (address) => address,
      );
    },
  },
} satisfies Ec2Resolvers;
