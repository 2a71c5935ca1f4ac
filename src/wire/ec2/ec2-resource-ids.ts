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

type Visit = (member: string, text: string, inPeers: boolean) => void;

/** Tags name no resource that a command touches, whatever their values look like. */
const tagMembers: ReadonlySet<string> = new Set(["TagSpecifications", "Tags"]);

/**
 * Each text of a decoded input with the member that holds it; a list's items are its member's. `inPeers`: somewhere inside a rule's
 * UserIdGroupPairs. Recursive calls instead of a generator with a path for each text: it runs for every change.
 */
function eachText(value: unknown, member: string, inPeers: boolean, visit: Visit): void {
  if (typeof value === "string") visit(member, value, inPeers);
  else if (Array.isArray(value)) for (const item of value) eachText(item, member, inPeers, visit);
  else if (value !== null && typeof value === "object") {
    for (const name of Object.keys(value)) {
      eachText((value as Members)[name], name, inPeers || name === "UserIdGroupPairs", visit);
    }
  }
}

export function ec2ResourceIds(operation: string, input: unknown): Ec2ResourceIds {
  const touch = touches.get(operation);
  const written = new Set<string>();
  const read = new Set<string>();
  if (touch === undefined) {
    eachText(input, "", false, (_member, text) => {
      if (looksLikeAnId.test(text)) written.add(text);
    });
  } else {
    for (const [name, value] of Object.entries(input as Members)) {
      if (tagMembers.has(name)) continue;
      eachText(value, name, name === "UserIdGroupPairs", (member, text, inPeers) => {
        // A peer of a rule is named under GroupId too, but only the group that holds the rule is written.
        if (touch.writes.includes(member) && !inPeers) written.add(text);
        else if (inPeers || touch.reads?.includes(member) === true) read.add(text);
      });
    }
  }
  for (const resourceId of written) read.delete(resourceId);
  return { written: [...written], read: [...read] };
}
