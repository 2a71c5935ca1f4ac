/**
 * Which resources a command writes and which it only reads, so that a gateway lets commands that have nothing to do
 * with each other pass side by side. Ids are as the request names them; names of key pairs and groups count as ids.
 */
export interface Ec2ResourceIds {
  readonly written: readonly string[];
  readonly read: readonly string[];
}

type Members = Readonly<Record<string, unknown>>;

interface Touch {
  /** Members (at any depth) whose text is an id that the command writes. */
  readonly writes: readonly string[];
  readonly reads?: readonly string[];
}

const rulesOf: Touch = {
  writes: ["GroupId", "GroupName"],
  // A rule's peers are groups too: inside UserIdGroupPairs, GroupId is read, which `peersRead` sees to.
  reads: ["SecurityGroupRuleId", "SecurityGroupRuleIds"],
};

const touches: ReadonlyMap<string, Touch> = new Map<string, Touch>([
  ["CreateVpc", { writes: [] }],
  ["CreateDefaultVpc", { writes: [] }],
  ["DeleteVpc", { writes: ["VpcId"] }],
  ["ModifyVpcAttribute", { writes: ["VpcId"] }],
  // Two overlapping prefixes in one network: the cloud orders them, and so must the journal.
  ["CreateSubnet", { writes: ["VpcId"] }],
  ["CreateDefaultSubnet", { writes: ["AvailabilityZone"] }],
  ["DeleteSubnet", { writes: ["SubnetId"] }],
  ["ModifySubnetAttribute", { writes: ["SubnetId"] }],
  ["CreateInternetGateway", { writes: [] }],
  ["DeleteInternetGateway", { writes: ["InternetGatewayId"] }],
  ["AttachInternetGateway", { writes: ["InternetGatewayId", "VpcId"] }],
  ["DetachInternetGateway", { writes: ["InternetGatewayId", "VpcId"] }],
  ["CreateRoute", { writes: ["RouteTableId"], reads: ["GatewayId", "NatGatewayId", "InstanceId"] }],
  ["DeleteRoute", { writes: ["RouteTableId"] }],
  ["CreateRouteTable", { writes: [], reads: ["VpcId"] }],
  ["AssociateRouteTable", { writes: ["RouteTableId", "SubnetId", "GatewayId"] }],
  ["CreateSecurityGroup", { writes: ["GroupName"], reads: ["VpcId"] }],
  ["DeleteSecurityGroup", { writes: ["GroupId", "GroupName"] }],
  ["AuthorizeSecurityGroupIngress", rulesOf],
  ["AuthorizeSecurityGroupEgress", rulesOf],
  ["RevokeSecurityGroupIngress", rulesOf],
  ["RevokeSecurityGroupEgress", rulesOf],
  ["ModifySecurityGroupRules", rulesOf],
  ["UpdateSecurityGroupRuleDescriptionsIngress", rulesOf],
  ["UpdateSecurityGroupRuleDescriptionsEgress", rulesOf],
  ["CreateKeyPair", { writes: ["KeyName"] }],
  ["ImportKeyPair", { writes: ["KeyName"] }],
  ["DeleteKeyPair", { writes: ["KeyName", "KeyPairId"] }],
  ["CreateVolume", { writes: [], reads: ["SnapshotId"] }],
  ["DeleteVolume", { writes: ["VolumeId"] }],
  ["ModifyVolume", { writes: ["VolumeId"] }],
  ["AttachVolume", { writes: ["VolumeId", "InstanceId"] }],
  ["DetachVolume", { writes: ["VolumeId", "InstanceId"] }],
  ["AllocateAddress", { writes: [] }],
  ["ReleaseAddress", { writes: ["AllocationId", "PublicIp"] }],
  ["AssociateAddress", { writes: ["AllocationId", "PublicIp", "InstanceId", "NetworkInterfaceId"] }],
  ["DisassociateAddress", { writes: ["AssociationId", "PublicIp"] }],
  [
    "RunInstances",
    {
      writes: ["PrivateIpAddress", "NetworkInterfaceId"],
      reads: ["SubnetId", "SecurityGroupIds", "SecurityGroups", "Groups", "ImageId", "KeyName", "SnapshotId"],
    },
  ],
  ["TerminateInstances", { writes: ["InstanceIds"] }],
  ["StartInstances", { writes: ["InstanceIds"] }],
  ["StopInstances", { writes: ["InstanceIds"] }],
  ["RebootInstances", { writes: ["InstanceIds"] }],
  ["ModifyInstanceAttribute", { writes: ["InstanceId"], reads: ["Groups"] }],
  ["CreateTags", { writes: ["Resources"] }],
  ["DeleteTags", { writes: ["Resources"] }],
]);

/** `vol-0abc`, `i-0123...`, `eipalloc-...`: a word, a dash, and the rest of an id. */
const looksLikeAnId = /^[a-z][a-z0-9]*(?:-[a-z]+)*-[0-9a-f]{8,}$/;

interface Leaf {
  readonly path: readonly string[];
  readonly text: string;
}

/** Texts of a decoded input, each with the members that lead to it; lists add nothing to the path. */
function* leaves(value: unknown, path: readonly string[] = []): Iterable<Leaf> {
  if (typeof value === "string") {
    yield { path, text: value };
  } else if (Array.isArray(value)) {
    for (const item of value) yield* leaves(item, path);
  } else if (value !== null && typeof value === "object") {
    for (const [member, inner] of Object.entries(value as Members)) yield* leaves(inner, [...path, member]);
  }
}

/** A peer of a rule is named under GroupId too, but only the group that holds the rule is written. */
function peersRead(path: readonly string[]): boolean {
  return path.includes("UserIdGroupPairs");
}

export function ec2ResourceIds(operation: string, input: unknown): Ec2ResourceIds {
  const touch = touches.get(operation);
  const written = new Set<string>();
  const read = new Set<string>();
  for (const { path, text } of leaves(input)) {
    if (touch === undefined) {
      if (looksLikeAnId.test(text)) written.add(text);
      continue;
    }
    const member = path.at(-1) ?? "";
    if (path[0] === "TagSpecifications" || path[0] === "Tags") continue;
    if (touch.writes.includes(member) && !peersRead(path)) written.add(text);
    else if (touch.reads?.includes(member) || peersRead(path)) read.add(text);
  }
  for (const resourceId of written) read.delete(resourceId);
  return { written: [...written], read: [...read] };
}
