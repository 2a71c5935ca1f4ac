/**
 * Refusals of the core in the words of the service that was asked. Sources: neutron_lib/exceptions, neutron/common,
 * nova/exception.py, cinder/exception.py (Zed).
 */
import type { RecordKind } from "#devcloud/core/records.ts";
import type { QuotaName, RefusalReason } from "#devcloud/core/refusal.ts";
import type { OpenstackService } from "#wire/openstack/keystone.ts";
import { ApiError, badRequest, quoted } from "./api-error.ts";

interface KindWords {
  /** Neutron's exception types begin with it: `NetworkNotFound`, `NetworkInUse`. */
  readonly type: string;
  readonly noun: string;
}

const words: Readonly<Partial<Record<RecordKind, KindWords>>> = {
  network: { type: "Network", noun: "Network" },
  subnet: { type: "Subnet", noun: "Subnet" },
  port: { type: "Port", noun: "Port" },
  gateway: { type: "Router", noun: "Router" },
  group: { type: "SecurityGroup", noun: "Security group" },
  rule: { type: "SecurityGroupRule", noun: "Security group rule" },
  address: { type: "FloatingIP", noun: "Floating IP" },
  server: { type: "Instance", noun: "Instance" },
  volume: { type: "Volume", noun: "Volume" },
  keyPair: { type: "Keypair", noun: "Keypair" },
  image: { type: "Image", noun: "Image" },
  serverType: { type: "Flavor", noun: "Flavor" },
  zone: { type: "AvailabilityZone", noun: "Availability zone" },
};

function wordsOf(kind: RecordKind): KindWords {
  return words[kind] ?? { type: "Resource", noun: "Resource" };
}

function notFound(service: OpenstackService, kind: RecordKind, id: string): ApiError {
  const { type, noun } = wordsOf(kind);
  const tail =
    service === "network" && (kind === "group" || kind === "rule") ? "does not exist" : "could not be found";
  return new ApiError(404, `${noun} ${quoted(id)} ${tail}.`, `${type}NotFound`);
}

type InUse = RefusalReason & { code: "in_use" };

const inUseWords: Readonly<Partial<Record<RecordKind, (reason: InUse) => ApiError>>> = {
  network: ({ id }) =>
    new ApiError(
      409,
      `Unable to complete operation on network ${id}. There are one or more ports still in use on the network.`,
      "NetworkInUse",
    ),
  subnet: ({ id }) =>
    new ApiError(
      409,
      `Unable to complete operation on subnet ${id}: One or more ports have an IP allocation from this subnet.`,
      "SubnetInUse",
    ),
  group: ({ id }) => new ApiError(409, `Security Group ${id} in use.`, "SecurityGroupInUse"),
  gateway: ({ id, by }) =>
    by?.kind === "address"
      ? new ApiError(
          409,
          `Router interface on router ${id} cannot be deleted, as it is required by one or more floating IPs.`,
          "RouterInterfaceInUseByFloatingIP",
        )
      : new ApiError(409, `Router ${id} still has ports`, "RouterInUse"),
  port: ({ id }) => new ApiError(409, `Port ${id} is still in use.`, "PortInUse"),
  volume: () =>
    badRequest(
      "Invalid volume: Volume status must be available or error or error_restoring or error_extending or error_managing and must not be migrating, attached, belong to a group, have snapshots, awaiting a transfer, or be disassociated from snapshots after volume transfer.",
    ),
};

function inUse(reason: InUse): ApiError {
  const worded = inUseWords[reason.kind]?.(reason);
  return worded ?? new ApiError(409, `${wordsOf(reason.kind).noun} ${reason.id} is in use.`, "InUse");
}

const neutronQuotas: Readonly<Partial<Record<QuotaName, string>>> = {
  networks: "network",
  subnetsPerNetwork: "subnet",
  gateways: "router",
  groups: "security_group",
  rulesPerGroup: "security_group_rule",
  groupsPerPort: "security_group",
  addresses: "floatingip",
  tagsPerResource: "tag",
};

function overQuota(service: OpenstackService, reason: RefusalReason & { code: "quota" }): ApiError {
  const { quota, limit, held, wanted } = reason;
  if (service === "network") {
    return new ApiError(
      409,
      `Quota exceeded for resources: ['${neutronQuotas[quota] ?? quota}'].`,
      "OverQuota",
    );
  }
  switch (quota) {
    case "servers":
    case "vcpus": {
      const name = quota === "servers" ? "instances" : "cores";
      return new ApiError(
        403,
        `Quota exceeded for ${name}: Requested ${wanted}, but already used ${held} of ${limit} ${name}`,
      );
    }
    case "volumes":
      return new ApiError(
        413,
        `VolumeLimitExceeded: Maximum number of volumes allowed (${limit}) exceeded for quota 'volumes'.`,
        "OverLimit",
        0,
      );
    case "volumeGiB":
      return new ApiError(
        413,
        `VolumeSizeExceedsAvailableQuota: Requested volume or snapshot exceeds allowed gigabytes quota. Requested ${wanted}G, quota is ${limit}G and ${held}G has been consumed.`,
        "OverLimit",
        0,
      );
    case "keyPairs":
      return new ApiError(403, "Quota exceeded, too many key pairs.");
    case "tagsPerResource":
      return new ApiError(403, `Maximum number of metadata items exceeds ${limit}`);
    case "networks":
    case "subnetsPerNetwork":
    case "gateways":
    case "groups":
    case "rulesPerGroup":
    case "groupsPerPort":
    case "addresses":
      return new ApiError(403, `Quota exceeded for ${quota}.`);
  }
}

function wrongState(reason: RefusalReason & { code: "wrong_state" }): ApiError {
  const { kind, id, state } = reason;
  return kind === "volume"
    ? badRequest(
        `Invalid volume: Volume ${id} status must be in-use to detach, but the current status is ${state}.`,
      )
    : new ApiError(409, `Cannot do this to instance ${id} while it is in vm_state ${state}`);
}

function associated(reason: RefusalReason & { code: "already_associated" }): ApiError {
  const { kind, id, to } = reason;
  return kind === "subnet"
    ? badRequest(`Bad router request: Router already has a port on subnet ${id}.`, "BadRequest")
    : new ApiError(
        409,
        `Cannot associate floating IP ${id} with port ${to}, as it already has a floating IP.`,
        "FloatingIPPortAlreadyAssociated",
      );
}

export function errorOfRefusal(service: OpenstackService, reason: RefusalReason): ApiError {
  switch (reason.code) {
    case "not_found":
      return notFound(service, reason.kind, reason.ids[0] ?? "");
    case "malformed_id":
      return notFound(service, reason.kind, reason.id);
    case "in_use":
      return inUse(reason);
    case "duplicate":
      return reason.kind === "rule"
        ? new ApiError(409, `Security group rule already exists.`, "SecurityGroupRuleExists")
        : new ApiError(409, `${wordsOf(reason.kind).noun} '${quoted(reason.name)}' already exists.`);
    case "wrong_state":
      return wrongState(reason);
    case "quota":
      return overQuota(service, reason);
    case "no_capacity":
      return badRequest("No valid host was found. There are not enough hosts available.");
    case "cidr_conflict":
      return badRequest(
        `Invalid input for operation: Requested subnet with cidr: ${reason.cidr} overlaps with another subnet.`,
        "InvalidInput",
      );
    case "cidr_invalid":
      return badRequest(
        `Invalid input for operation: ${quoted(reason.cidr)} is not in a CIDR format.`,
        "InvalidInput",
      );
    case "no_free_address":
      return new ApiError(
        409,
        `No more IP addresses available on network ${reason.subnetId}.`,
        "IpAddressGenerationFailure",
      );
    case "address_in_use":
      return new ApiError(409, `The IP address ${reason.ip} is in use.`, "IpAddressInUse");
    case "token_mismatch":
      return new ApiError(409, "The token was used for another request.");
    case "already_associated":
      return associated(reason);
    case "not_associated":
      return new ApiError(
        404,
        `Router ${reason.id} has no interface on subnet ${reason.from ?? ""}`,
        "RouterInterfaceNotFoundForSubnet",
      );
    case "crosses":
      return badRequest(`Invalid volume: ${reason.ids.join(" and ")} are not in the same availability zone.`);
    case "protected":
      return new ApiError(409, `Instance ${reason.id} is locked`);
    case "missing":
      return badRequest(`${reason.field} is missing`);
    case "invalid":
      return badRequest(
        service === "network" ? `Invalid input for operation: ${reason.message}.` : reason.message,
        "InvalidInput",
      );
    case "not_permitted":
      return new ApiError(403, reason.message, "Forbidden");
  }
}
