/** Refusals of the core in EC2's own codes and words. Source: EC2 API reference, "Error codes for the Amazon EC2 API". */
import type { RecordKind } from "#devcloud/core/records.ts";
import type { QuotaName, RefusalReason } from "#devcloud/core/refusal.ts";
import { AwsProtocolError } from "#wire/aws/aws-protocol-error.ts";

export function invalidValue(value: unknown, parameter: string, more = ""): AwsProtocolError {
  return new AwsProtocolError(
    "InvalidParameterValue",
    `Value (${String(value).slice(0, 100)}) for parameter ${parameter} is invalid. ${more}`.trim(),
  );
}

export function missing(parameter: string): AwsProtocolError {
  return new AwsProtocolError("MissingParameter", `The request must contain the parameter ${parameter}`);
}

interface KindWords {
  /** `InvalidVpcID`, to which `.NotFound` or `.Malformed` is added. */
  readonly notFound: string;
  readonly malformed: string;
  /** How a message names it. */
  readonly noun: string;
}

const words: Readonly<Partial<Record<RecordKind, KindWords>>> = {
  network: { notFound: "InvalidVpcID", malformed: "InvalidVpcId", noun: "vpc ID" },
  subnet: { notFound: "InvalidSubnetID", malformed: "InvalidSubnetID", noun: "subnet ID" },
  port: {
    notFound: "InvalidNetworkInterfaceID",
    malformed: "InvalidNetworkInterfaceId",
    noun: "networkInterface ID",
  },
  gateway: {
    notFound: "InvalidInternetGatewayID",
    malformed: "InvalidInternetGatewayId",
    noun: "internetGateway ID",
  },
  routeTable: { notFound: "InvalidRouteTableID", malformed: "InvalidRouteTableId", noun: "routeTable ID" },
  group: { notFound: "InvalidGroup", malformed: "InvalidGroupId", noun: "security group" },
  rule: {
    notFound: "InvalidSecurityGroupRuleId",
    malformed: "InvalidSecurityGroupRuleId",
    noun: "security group rule ID",
  },
  keyPair: { notFound: "InvalidKeyPair", malformed: "InvalidKeyPair", noun: "key pair" },
  volume: { notFound: "InvalidVolume", malformed: "InvalidVolumeID", noun: "volume" },
  address: { notFound: "InvalidAllocationID", malformed: "InvalidAllocationID", noun: "allocation ID" },
  server: { notFound: "InvalidInstanceID", malformed: "InvalidInstanceID", noun: "instance ID" },
  snapshot: { notFound: "InvalidSnapshot", malformed: "InvalidSnapshotID", noun: "snapshot" },
  addressAssociation: {
    notFound: "InvalidAssociationID",
    malformed: "InvalidAssociationID",
    noun: "association ID",
  },
  routeTableAssociation: {
    notFound: "InvalidAssociationID",
    malformed: "InvalidAssociationID",
    noun: "association ID",
  },
};

const limitCodes: Readonly<Record<QuotaName, readonly [code: string, message: string]>> = {
  servers: ["InstanceLimitExceeded", ""],
  vcpus: ["VcpuLimitExceeded", ""],
  networks: ["VpcLimitExceeded", "The maximum number of VPCs has been reached."],
  subnetsPerNetwork: ["SubnetLimitExceeded", "The maximum number of subnets has been reached."],
  gateways: ["InternetGatewayLimitExceeded", "The maximum number of internet gateways has been reached."],
  groups: ["SecurityGroupLimitExceeded", "The maximum number of security groups has been reached."],
  rulesPerGroup: [
    "RulesPerSecurityGroupLimitExceeded",
    "The maximum number of rules per security group has been reached.",
  ],
  groupsPerPort: [
    "SecurityGroupsPerInterfaceLimitExceeded",
    "The maximum number of security groups per interface has been reached.",
  ],
  keyPairs: ["KeyPairLimitExceeded", "The maximum number of key pairs has been reached."],
  volumes: ["VolumeLimitExceeded", "The maximum number of volumes has been reached."],
  volumeGiB: ["VolumeLimitExceeded", "The maximum volume storage has been reached."],
  addresses: ["AddressLimitExceeded", "The maximum number of addresses has been reached."],
  tagsPerResource: ["TagLimitExceeded", "The maximum number of Tags for a resource has been reached."],
};

const error = (code: string, message: string): AwsProtocolError => new AwsProtocolError(code, message);

function notFound(kind: RecordKind, ids: readonly string[]): AwsProtocolError {
  const [id = ""] = ids;
  switch (kind as string) {
    case "image":
      return error("InvalidAMIID.NotFound", `The image id '[${ids.join(", ")}]' does not exist`);
    case "serverType":
      return error("InvalidParameterValue", `Invalid value '${id}' for InstanceType.`);
    case "zone":
      return error("InvalidParameterValue", `Invalid availability zone: [${id}]`);
    case "route":
      return error("InvalidRoute.NotFound", `no route with destination-cidr-block ${id} in route table`);
    default: {
      const { notFound: code, noun } = words[kind] ?? { notFound: "InvalidID", noun: "ID" };
      const plural =
        ids.length > 1 ? `${noun}s '${ids.join(", ")}' do not exist` : `${noun} '${id}' does not exist`;
      return error(`${code}.NotFound`, `The ${plural}${kind === "volume" ? "." : ""}`);
    }
  }
}

function malformed(kind: RecordKind, id: string): AwsProtocolError {
  if (kind === "image") return error("InvalidAMIID.Malformed", `Invalid id: "${id}" (expecting "ami-...")`);
  if (kind === "address") return notFound(kind, [id]);
  return error(`${words[kind]?.malformed ?? "InvalidID"}.Malformed`, `Invalid id: "${id}"`);
}

function inUse(reason: RefusalReason & { code: "in_use" }): AwsProtocolError {
  const { kind, id, by } = reason;
  switch (kind as string) {
    case "volume":
      return error("VolumeInUse", `Volume ${id} is currently attached to ${by?.id ?? "an instance"}`);
    case "address":
      return error("InvalidIPAddress.InUse", `Address ${id} is in use.`);
    case "port":
      return error("InvalidNetworkInterface.InUse", `Interface: [${id}] in use.`);
    case "group":
      return error("DependencyViolation", `resource ${id} has a dependent object`);
    case "network":
      return by?.kind === "address"
        ? error(
            "DependencyViolation",
            `Network ${id} has some mapped public address(es). Please unmap those public address(es) before detaching the gateway.`,
          )
        : error("DependencyViolation", `The vpc '${id}' has dependencies and cannot be deleted.`);
    default:
      return error(
        "DependencyViolation",
        `The ${(words[kind]?.noun ?? "resource").replace(" ID", "")} '${id}' has dependencies and cannot be deleted.`,
      );
  }
}

function duplicate(reason: RefusalReason & { code: "duplicate" }): AwsProtocolError {
  switch (reason.kind as string) {
    case "group":
      return error(
        "InvalidGroup.Duplicate",
        `The security group '${reason.name}' already exists for VPC '${reason.within ?? ""}'`,
      );
    case "rule":
      return error(
        "InvalidPermission.Duplicate",
        `the specified rule "${ruleWords(reason.name)}" already exists`,
      );
    case "keyPair":
      return error("InvalidKeyPair.Duplicate", `The keypair already exists`);
    case "route":
      return error("RouteAlreadyExists", `The route identified by ${reason.name} already exists.`);
    default:
      return error("InvalidParameterValue", `${reason.name} already exists`);
  }
}

/** `ingress|tcp|80|80|0.0.0.0/0` as EC2 says it: `peer: 0.0.0.0/0, TCP, from port: 80, to port: 80, ALLOW`. */
function ruleWords(content: string): string {
  const [, protocol = "", from = "*", to = "*", peer = ""] = content.split("|");
  const ports = from === "*" ? "" : `, from port: ${from}, to port: ${to}`;
  return `peer: ${peer}, ${protocol.toUpperCase()}${ports}, ALLOW`;
}

function cidrInvalid(reason: RefusalReason & { code: "cidr_invalid" }): AwsProtocolError {
  const parameter = reason.kind === "route" ? "destinationCidrBlock" : "cidrBlock";
  if (reason.reason === "syntax") {
    return invalidValue(reason.cidr, parameter, "This is not a valid CIDR block.");
  }
  return reason.kind === "network"
    ? error("InvalidVpc.Range", `The CIDR '${reason.cidr}' is invalid.`)
    : error("InvalidSubnet.Range", `The CIDR '${reason.cidr}' is invalid.`);
}

function wrongState(reason: RefusalReason & { code: "wrong_state" }): AwsProtocolError {
  switch (reason.kind as string) {
    case "volume":
      return error("IncorrectState", `Volume '${reason.id}' is in the '${reason.state}' state.`);
    default:
      return error(
        "IncorrectInstanceState",
        `The instance '${reason.id}' is not in a state from which it can perform this action: it is '${reason.state}'.`,
      );
  }
}

function overQuota(reason: RefusalReason & { code: "quota" }): AwsProtocolError {
  const { quota, limit, wanted } = reason;
  if (quota === "servers") {
    return error(
      "InstanceLimitExceeded",
      `You have requested more instances (${wanted}) than your current instance limit of ${limit} allows for the specified instance type.`,
    );
  }
  if (quota === "vcpus") {
    return error(
      "VcpuLimitExceeded",
      `You have requested more vCPU capacity than your current vCPU limit of ${limit} allows for the instance bucket that the specified instance type belongs to.`,
    );
  }
  return error(...limitCodes[quota]);
}

function associated(reason: RefusalReason & { code: "already_associated" }): AwsProtocolError {
  const { kind, id, to } = reason;
  switch (kind as string) {
    case "gateway":
      return error("Resource.AlreadyAssociated", `resource ${id} is already attached to network ${to}`);
    case "network":
      return error("InvalidParameterValue", `Network ${id} already has an internet gateway attached`);
    case "subnet":
      return error(
        "Resource.AlreadyAssociated",
        `the specified association for route table conflicts with an existing association ${to}`,
      );
    default:
      return error("Resource.AlreadyAssociated", `resource ${id} is already associated with ${to}`);
  }
}

function notAssociated(reason: RefusalReason & { code: "not_associated" }): AwsProtocolError {
  const { kind, id, from = "" } = reason;
  if (kind === "gateway") {
    return error("Gateway.NotAttached", `resource ${id} is not attached to network ${from}`);
  }
  if (kind === "volume") {
    return error("InvalidAttachment.NotFound", `Volume '${id}' is not attached to instance '${from}'`);
  }
  return error("InvalidAssociationID.NotFound", `The association ID '${id}' does not exist`);
}

function crosses(reason: RefusalReason & { code: "crosses" }): AwsProtocolError {
  const [a = "", b = ""] = reason.ids;
  if (reason.boundary === "zone") {
    return error(
      "InvalidVolume.ZoneMismatch",
      `The volume '${a}' is not in the same availability zone as instance '${b}'`,
    );
  }
  if (a.startsWith("sg-")) {
    return error("InvalidParameter", `Security group ${a} and subnet belong to different networks.`);
  }
  return error("InvalidParameterValue", `${a} and ${b} belong to different networks`);
}

export function ec2ErrorOf(reason: RefusalReason): AwsProtocolError {
  switch (reason.code) {
    case "not_found":
      return notFound(reason.kind, reason.ids);
    case "malformed_id":
      return malformed(reason.kind, reason.id);
    case "in_use":
      return inUse(reason);
    case "duplicate":
      return duplicate(reason);
    case "wrong_state":
      return wrongState(reason);
    case "quota":
      return overQuota(reason);
    case "no_capacity":
      return new AwsProtocolError(
        "InsufficientInstanceCapacity",
        `We currently do not have sufficient ${reason.type} capacity in the Availability Zone you requested (${reason.zone}).`,
        500,
      );
    case "cidr_conflict":
      return error("InvalidSubnet.Conflict", `The CIDR '${reason.cidr}' conflicts with another subnet`);
    case "cidr_invalid":
      return cidrInvalid(reason);
    case "no_free_address":
      return error(
        "InsufficientFreeAddressesInSubnet",
        `There are not enough free addresses in '${reason.subnetId}' to satisfy the requested number of instances.`,
      );
    case "address_in_use":
      return error("InvalidIPAddress.InUse", `Address ${reason.ip} is in use.`);
    case "token_mismatch":
      return error(
        "IdempotentParameterMismatch",
        "Arguments on this idempotent request are inconsistent with arguments used in previous request(s).",
      );
    case "already_associated":
      return associated(reason);
    case "not_associated":
      return notAssociated(reason);
    case "crosses":
      return crosses(reason);
    case "protected":
      return error(
        "OperationNotPermitted",
        `The instance '${reason.id}' may not be ${reason.against === "stop" ? "stopped. Modify its 'disableApiStop'" : "terminated. Modify its 'disableApiTermination'"} instance attribute and try again.`,
      );
    case "missing":
      return missing(reason.field);
    case "invalid":
      return error("InvalidParameterValue", reason.message);
    case "not_permitted":
      return reason.message.includes('"default"')
        ? error("CannotDelete", reason.message)
        : error("OperationNotPermitted", reason.message);
  }
}
