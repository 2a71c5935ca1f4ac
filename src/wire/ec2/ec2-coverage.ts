/** Operations without a translator of their own: those that need none, and those whose loss has a name. */
import type { Gap } from "#model/gap.ts";

const own = "is the active cloud's own and not carried over";

/** Nothing that the model holds is changed; the text says what is not carried over, `null`: nothing to say. */
export const coveredOperations: ReadonlyMap<string, string | null> = new Map<string, string | null>([
  ["ModifyInstanceMetadataOptions", `access to instance metadata ${own}`],
  ["ModifyInstanceMetadataDefaults", `access to instance metadata ${own}`],
  ["ModifyInstanceMaintenanceOptions", `the maintenance setting ${own}`],
  ["ModifyInstanceCreditSpecification", `the CPU credit setting ${own}`],
  ["ModifyInstanceCpuOptions", `the CPU options setting ${own}`],
  ["ModifyPrivateDnsNameOptions", `the private DNS name setting ${own}`],
  ["MonitorInstances", `detailed monitoring ${own}`],
  ["UnmonitorInstances", `detailed monitoring ${own}`],
  ["ResetInstanceAttribute", `the reset attribute ${own}`],
  ["EnableVolumeIO", null],
  ["ModifyVolumeAttribute", `automatic volume I/O ${own}`],
  ["ModifyIdFormat", null],
  ["ModifyIdentityIdFormat", null],
  ["ReportInstanceStatus", null],
  ["SendDiagnosticInterrupt", null],
  ["EnableSerialConsoleAccess", `serial console access ${own}`],
  ["DisableSerialConsoleAccess", `serial console access ${own}`],
  ["EnableEbsEncryptionByDefault", `encryption by default ${own}`],
  ["DisableEbsEncryptionByDefault", `encryption by default ${own}`],
  ["ModifyAvailabilityZoneGroup", null],
  ["CreateDhcpOptions", `the DHCP options setting ${own}`],
  ["DeleteDhcpOptions", null],
  ["AssociateDhcpOptions", `the DHCP options setting ${own}`],
  ["CreatePlacementGroup", `the placement group ${own}`],
  ["DeletePlacementGroup", null],
]);

interface Untranslated {
  readonly severity: Gap["severity"];
  readonly message: string;
}

const gap = (severity: Gap["severity"], message: string): Untranslated => ({ severity, message });

/** What would be missing, in words that are better than an operation's name. */
export const untranslatedOperations: ReadonlyMap<string, Untranslated> = new Map([
  ["CreateNatGateway", gap("lost", "servers of private subnets would have no way out through a NAT gateway")],
  ["CreateVpcEndpoint", gap("lost", "the private endpoint of a cloud service would be missing")],
  ["CreateVpcPeeringConnection", gap("lost", "the peering with another network would be missing")],
  ["AcceptVpcPeeringConnection", gap("lost", "the peering with another network would be missing")],
  ["CreateVpnConnection", gap("lost", "the VPN connection would be missing")],
  ["CreateTransitGateway", gap("lost", "the transit gateway would be missing")],
  [
    "CreateTransitGatewayVpcAttachment",
    gap("lost", "the network's link to the transit gateway would be missing"),
  ],
  ["CreateFlowLogs", gap("note", "the flow log would not be written")],
  ["CreateNetworkInterface", gap("lost", "the network interface would be missing: servers have one each")],
  ["AttachNetworkInterface", gap("lost", "the server's further network interface would be missing")],
  [
    "ModifyNetworkInterfaceAttribute",
    gap("degraded", "the interface's setting would be missing: set groups on the instance"),
  ],
  ["AssignPrivateIpAddresses", gap("degraded", "the server's further private addresses would be missing")],
  ["AssignIpv6Addresses", gap("degraded", "the server's IPv6 addresses would be missing")],
  ["CreateNetworkAcl", gap("degraded", "the network ACL would be missing: security groups are carried over")],
  [
    "CreateNetworkAclEntry",
    gap("degraded", "the network ACL's entry would be missing: use security group rules"),
  ],
  ["ReplaceNetworkAclAssociation", gap("degraded", "the subnet's network ACL would be missing")],
  ["AssociateVpcCidrBlock", gap("lost", "the network's further prefix would be missing")],
  ["AssociateSubnetCidrBlock", gap("degraded", "the subnet's IPv6 prefix would be missing")],
  ["AssociateIamInstanceProfile", gap("degraded", "the server would run without its instance profile")],
  [
    "ReplaceIamInstanceProfileAssociation",
    gap("degraded", "the server would run without its instance profile"),
  ],
  ["CreateLaunchTemplate", gap("note", "the launch template is not carried over; servers made from it are")],
  [
    "CreateLaunchTemplateVersion",
    gap("note", "the launch template is not carried over; servers made from it are"),
  ],
  [
    "RequestSpotInstances",
    gap("lost", "the servers made by a spot request would be missing: use RunInstances"),
  ],
  ["RequestSpotFleet", gap("lost", "the fleet's servers would be missing: use RunInstances")],
  ["CreateFleet", gap("lost", "the fleet's servers would be missing: use RunInstances")],
  ["ModifyInstancePlacement", gap("degraded", "the server's placement would be the standby's choice")],
  ["CreateSnapshot", gap("note", "the snapshot stays with the active cloud")],
  ["CreateSnapshots", gap("note", "the snapshots stay with the active cloud")],
  ["CopySnapshot", gap("note", "the snapshot stays with the active cloud")],
  [
    "CreateImage",
    gap("note", "the image stays with the active cloud: map it under `images` in understudy.yaml"),
  ],
  [
    "CopyImage",
    gap("note", "the image stays with the active cloud: map it under `images` in understudy.yaml"),
  ],
  [
    "RegisterImage",
    gap("note", "the image stays with the active cloud: map it under `images` in understudy.yaml"),
  ],
  [
    "CreateManagedPrefixList",
    gap("degraded", "the prefix list would be missing: rules that name it are gaps too"),
  ],
  ["CreateCustomerGateway", gap("lost", "the VPN's customer gateway would be missing")],
  ["CreateVpnGateway", gap("lost", "the VPN gateway would be missing")],
  ["CreateEgressOnlyInternetGateway", gap("degraded", "the IPv6 way out would be missing")],
]);
