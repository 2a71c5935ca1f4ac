/** Neutron v2.0 bodies. Source: Networking API v2.0 reference; neutron_lib/api/definitions. */
import { z } from "zod";

const taggable = {
  description: z.string().nullish(),
  tags: z.array(z.string()).optional(),
};

export const networkSchema = z.object({
  id: z.string(),
  name: z.string().default(""),
  status: z.string().optional(),
  project_id: z.string().optional(),
  shared: z.boolean().optional(),
  subnets: z.array(z.string()).default([]),
  "router:external": z.boolean().optional(),
  ...taggable,
});
export type NeutronNetwork = z.infer<typeof networkSchema>;
export const networkResponseSchema = z.object({ network: networkSchema });
export const networksResponseSchema = z.object({ networks: z.array(networkSchema) });

export const subnetSchema = z.object({
  id: z.string(),
  name: z.string().default(""),
  network_id: z.string(),
  cidr: z.string(),
  ip_version: z.number().optional(),
  gateway_ip: z.string().nullish(),
  project_id: z.string().optional(),
  ...taggable,
});
export type NeutronSubnet = z.infer<typeof subnetSchema>;
export const subnetResponseSchema = z.object({ subnet: subnetSchema });
export const subnetsResponseSchema = z.object({ subnets: z.array(subnetSchema) });

export const routerSchema = z.object({
  id: z.string(),
  name: z.string().default(""),
  external_gateway_info: z.object({ network_id: z.string() }).nullish(),
  ...taggable,
});
export type NeutronRouter = z.infer<typeof routerSchema>;
export const routerResponseSchema = z.object({ router: routerSchema });
export const routersResponseSchema = z.object({ routers: z.array(routerSchema) });
export const routerInterfaceSchema = z.object({
  /** The router's id in an answer. */
  id: z.string().optional(),
  subnet_id: z.string().optional(),
  port_id: z.string().optional(),
  network_id: z.string().optional(),
});

export const fixedIpSchema = z.object({ subnet_id: z.string(), ip_address: z.string() });
export const portSchema = z.object({
  id: z.string(),
  name: z.string().default(""),
  network_id: z.string(),
  device_id: z.string().default(""),
  device_owner: z.string().default(""),
  status: z.string().optional(),
  fixed_ips: z.array(fixedIpSchema).default([]),
  security_groups: z.array(z.string()).default([]),
  ...taggable,
});
export type NeutronPort = z.infer<typeof portSchema>;
export const portResponseSchema = z.object({ port: portSchema });
export const portsResponseSchema = z.object({ ports: z.array(portSchema) });

/** Owners of ports that are interfaces of a router: plain, distributed and highly available ones. */
export const routerInterfaceOwners = [
  "network:router_interface",
  "network:router_interface_distributed",
  "network:ha_router_replicated_interface",
] as const;

export const securityGroupRuleSchema = z.object({
  id: z.string(),
  security_group_id: z.string(),
  direction: z.enum(["ingress", "egress"]),
  ethertype: z.string().nullish(),
  protocol: z.union([z.string(), z.number()]).nullish(),
  port_range_min: z.number().nullish(),
  port_range_max: z.number().nullish(),
  remote_ip_prefix: z.string().nullish(),
  remote_group_id: z.string().nullish(),
  remote_address_group_id: z.string().nullish(),
  description: z.string().nullish(),
});
export type NeutronRule = z.infer<typeof securityGroupRuleSchema>;
export const securityGroupRuleResponseSchema = z.object({ security_group_rule: securityGroupRuleSchema });
export const securityGroupRulesResponseSchema = z.object({
  security_group_rules: z.array(securityGroupRuleSchema),
});

export const securityGroupSchema = z.object({
  id: z.string(),
  name: z.string().default(""),
  project_id: z.string().optional(),
  security_group_rules: z.array(securityGroupRuleSchema).default([]),
  ...taggable,
});
export type NeutronSecurityGroup = z.infer<typeof securityGroupSchema>;
export const securityGroupResponseSchema = z.object({ security_group: securityGroupSchema });
export const securityGroupsResponseSchema = z.object({ security_groups: z.array(securityGroupSchema) });

export const floatingIpSchema = z.object({
  id: z.string(),
  floating_ip_address: z.string(),
  floating_network_id: z.string(),
  fixed_ip_address: z.string().nullish(),
  port_id: z.string().nullish(),
  status: z.string().optional(),
  /** Extension fip-port-details (Rocky). */
  port_details: z.object({ device_id: z.string().default("") }).nullish(),
  ...taggable,
});
export type NeutronFloatingIp = z.infer<typeof floatingIpSchema>;
export const floatingIpResponseSchema = z.object({ floatingip: floatingIpSchema });
export const floatingIpsResponseSchema = z.object({ floatingips: z.array(floatingIpSchema) });

export const tagsBodySchema = z.object({ tags: z.array(z.string()) });

export const neutronQuotaSchema = z.object({
  quota: z.record(z.string(), z.union([z.number(), z.looseObject({})])),
});
