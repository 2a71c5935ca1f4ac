/** Neutron's changes of the model. */
import { z } from "zod";
import type { Change } from "#model/change.ts";
import type { ResourceKind } from "#model/resource.ts";
import {
  floatingIpResponseSchema,
  floatingIpSchema,
  networkSchema,
  portResponseSchema,
  portsResponseSchema,
  routerInterfaceSchema,
  routerResponseSchema,
  securityGroupRuleSchema,
  securityGroupSchema,
  subnetSchema,
  tagsBodySchema,
} from "./neutron.ts";
import type { NeutronFloatingIp } from "./neutron.ts";
import {
  changed,
  created,
  deleted,
  fieldGap,
  id,
  joinEffects,
  lookUp,
  noEffect,
  operationGap,
  retagged,
  tagged,
  withBody,
} from "./openstack-effect.ts";
import type {
  OpenstackEffect,
  OpenstackLookup,
  OpenstackTranslator,
  OpenstackTranslators,
  TranslatorInput,
} from "./openstack-effect.ts";
import {
  addressAssociationFromBody,
  addressAssociationId,
  addressFromBody,
  isRouterInterface,
  networkFromBody,
  securityGroupFromBody,
  subnetFromBody,
} from "./openstack-resources.ts";
import { ruleFromBody } from "./openstack-rules.ts";
import { tagsFromNeutron } from "./openstack-tags.ts";

const nothing: OpenstackTranslator = () => noEffect;

/** Creates come single or in bulk: `{"network": {...}}` or `{"networks": [...]}`. */
function each<T>(
  singular: string,
  plural: string,
  schema: z.ZodType<T>,
  translate: (body: T, input: TranslatorInput) => OpenstackEffect | Promise<OpenstackEffect>,
): OpenstackTranslator {
  const either = z.union([
    z.object({ [plural]: z.array(schema) }),
    z.object({ [singular]: schema }),
  ]) as unknown as z.ZodType<Record<string, T | T[]>>;
  return (input) =>
    withBody(either, input.response, input.operation, async (body) => {
      const bodies = [body[plural] ?? body[singular] ?? []].flat() as T[];
      return joinEffects(await Promise.all(bodies.map(async (one) => translate(one, input))));
    });
}

const ruleGap = "a rule for an address group is left out: give its prefixes in rules of their own";

async function hasGateway(routerId: string, lookup: OpenstackLookup): Promise<boolean> {
  const found = await lookUp(lookup, "network", `/routers/${routerId}`, routerResponseSchema);
  return Boolean(found?.router.external_gateway_info);
}

async function interfacesOf(
  query: string,
  lookup: OpenstackLookup,
): Promise<z.infer<typeof portsResponseSchema>["ports"]> {
  const found = await lookUp(lookup, "network", `/ports?${query}`, portsResponseSchema);
  return (found?.ports ?? []).filter(isRouterInterface);
}

/** Whether any router of the network leads outside, as the cloud has it now. */
async function reachesInternet(networkId: string, lookup: OpenstackLookup): Promise<boolean> {
  const interfaces = await interfacesOf(`network_id=${encodeURIComponent(networkId)}`, lookup);
  for (const router of new Set(interfaces.map(({ device_id: device }) => device))) {
    if (await hasGateway(router, lookup)) return true;
  }
  return false;
}

async function internetOf(networkIds: Iterable<string>, lookup: OpenstackLookup): Promise<OpenstackEffect> {
  const changes: Change[] = [];
  for (const networkId of new Set(networkIds)) {
    const internet = await reachesInternet(networkId, lookup);
    changes.push({ type: "update", kind: "network", id: id(networkId), set: { internet } });
  }
  return { changes, gaps: [] };
}

/** The answer names the network; older clouds name the subnet only. */
const routerInterface: OpenstackTranslator = ({ operation, request, response, lookup }) =>
  withBody(routerInterfaceSchema, response ?? request, operation, async (body) => {
    let { network_id: networkId } = body;
    if (networkId === undefined && body.subnet_id !== undefined) {
      const schema = z.object({ subnet: subnetSchema });
      networkId = (await lookUp(lookup, "network", `/subnets/${body.subnet_id}`, schema))?.subnet.network_id;
    }
    if (networkId !== undefined) return internetOf([networkId], lookup);
    return operationGap(
      operation,
      "degraded",
      "the network that the router was joined to or left is not known",
    );
  });

const routerBodySchema = z.object({
  router: z.object({
    external_gateway_info: z.unknown().optional(),
    routes: z.array(z.unknown()).optional(),
  }),
});

const updateRouter: OpenstackTranslator = ({ operation, params, request, lookup }) =>
  withBody(routerBodySchema, request, operation, async ({ router }) => {
    const networks =
      router.external_gateway_info === undefined
        ? []
        : (await interfacesOf(`device_id=${encodeURIComponent(params[0] ?? "")}`, lookup)).map(
            ({ network_id: network }) => network,
          );
    const effect = await internetOf(networks, lookup);
    if (!router.routes?.length) return effect;
    return joinEffects([
      effect,
      operationGap(operation, "degraded", "the router's static routes are left out"),
    ]);
  });

async function association(address: NeutronFloatingIp, lookup: OpenstackLookup): Promise<OpenstackEffect> {
  if (!address.port_id) return changed(deleted("addressAssociation", addressAssociationId(address.id)));
  let server = address.port_details?.device_id;
  server ??= (await lookUp(lookup, "network", `/ports/${address.port_id}`, portResponseSchema))?.port
    .device_id;
  const mapped = addressAssociationFromBody(address, server);
  if (mapped !== undefined) return changed(created(mapped.resource));
  const at = { kind: "address", id: address.id } as const;
  return fieldGap("PUT /floatingips/{id}", at, "it leads to a port that belongs to no server");
}

const createAddress = each("floatingip", "floatingips", floatingIpSchema, async (address, { lookup }) => {
  const effect = changed(created(addressFromBody(address).resource));
  return address.port_id ? joinEffects([effect, await association(address, lookup)]) : effect;
});

const updateAddress: OpenstackTranslator = ({ operation, request, response, lookup }) =>
  withBody(floatingIpResponseSchema, response, operation, ({ floatingip }) => {
    const asked = z.object({ floatingip: z.looseObject({}) }).safeParse(request);
    const moves = asked.success && "port_id" in asked.data.floatingip;
    return moves ? association(floatingip, lookup) : noEffect;
  });

const portBodySchema = z.object({
  port: z.object({
    security_groups: z.array(z.string()).optional(),
    fixed_ips: z.array(z.unknown()).optional(),
    allowed_address_pairs: z.array(z.unknown()).optional(),
  }),
});

const updatePort: OpenstackTranslator = ({ operation, params, request, lookup }) =>
  withBody(portBodySchema, request, operation, async ({ port }) => {
    const found = await lookUp(lookup, "network", `/ports/${params[0]}`, portResponseSchema);
    const server = found?.port.device_owner.startsWith("compute:") ? found.port.device_id : undefined;
    if (server === undefined) return noEffect;
    const effects: OpenstackEffect[] = [];
    if (port.security_groups !== undefined) {
      const path = `device_id=${encodeURIComponent(server)}`;
      const all = await lookUp(lookup, "network", `/ports?${path}`, portsResponseSchema);
      const groups = new Set((all?.ports ?? []).flatMap(({ security_groups: list }) => list));
      const set = { groupIds: [...groups].map(id) };
      effects.push(changed({ type: "update", kind: "server", id: id(server), set }));
    }
    if (port.fixed_ips !== undefined || port.allowed_address_pairs !== undefined) {
      effects.push(fieldGap(operation, { kind: "server", id: server }, "addresses of its port were changed"));
    }
    return joinEffects(effects);
  });

const createGroup = each("security_group", "security_groups", securityGroupSchema, (group, input) => {
  const effects = [changed(created(securityGroupFromBody(group).resource))];
  for (const body of group.security_group_rules) effects.push(ruleCreated(body, input));
  return joinEffects(effects);
});

function ruleCreated(
  body: z.infer<typeof securityGroupRuleSchema>,
  { operation }: Pick<TranslatorInput, "operation">,
): OpenstackEffect {
  const mapped = ruleFromBody(body);
  if (mapped !== undefined) return changed(created(mapped.resource, [id(body.id)]));
  return fieldGap(operation, { kind: "securityGroup", id: body.security_group_id }, ruleGap, "lost");
}

const namedBody = (noun: string): z.ZodType<Record<string, { name?: string; description?: string }>> =>
  z.object({
    [noun]: z.object({ name: z.string().optional(), description: z.string().optional() }),
  }) as unknown as z.ZodType<Record<string, { name?: string; description?: string }>>;

const renamed =
  (kind: ResourceKind, noun: string): OpenstackTranslator =>
  ({ operation, params, request }) =>
    withBody(namedBody(noun), request, operation, (body) => {
      const name = body[noun]?.name;
      return name === undefined ? noEffect : tagged(kind, params[0], { Name: name });
    });

const updateGroup: OpenstackTranslator = ({ operation, params, request }) =>
  withBody(namedBody("security_group"), request, operation, ({ security_group: group }) => {
    const set = {
      ...(group?.name === undefined ? {} : { name: group.name }),
      ...(group?.description === undefined ? {} : { description: group.description }),
    };
    if (Object.keys(set).length === 0) return noEffect;
    return changed({ type: "update", kind: "securityGroup", id: id(params[0]), set });
  });

/** Tags of one collection: all replaced, all removed, one added, one removed. */
function tags(collection: string, kind: ResourceKind): [string, OpenstackTranslator][] {
  const path = `/${collection}/{id}/tags`;
  // The name is no tag where the object has a field for it.
  const keep = kind === "address" || kind === "securityGroup" ? [] : ["Name"];
  const one = (text: string | undefined) => tagsFromNeutron([text ?? ""]);
  return [
    [
      `PUT ${path}`,
      (input) =>
        withBody(tagsBodySchema, input.request, input.operation, (body) =>
          retagged(kind, input.params[0], tagsFromNeutron(body.tags), keep, input),
        ),
    ],
    [`DELETE ${path}`, (input) => retagged(kind, input.params[0], {}, keep, input)],
    [`PUT ${path}/{key}`, ({ params }) => tagged(kind, params[0], one(params[1]))],
    [`DELETE ${path}/{key}`, ({ params }) => tagged(kind, params[0], {}, Object.keys(one(params[1])))],
  ];
}

const gone =
  (kind: ResourceKind): OpenstackTranslator =>
  ({ params }) =>
    changed(deleted(kind, params[0]));

export const networkTranslators: OpenstackTranslators = new Map<string, OpenstackTranslator>([
  [
    "POST /networks",
    each("network", "networks", networkSchema, (network) =>
      changed(created(networkFromBody(network, false).resource)),
    ),
  ],
  ["PUT /networks/{id}", renamed("network", "network")],
  ["DELETE /networks/{id}", gone("network")],
  [
    "POST /subnets",
    each("subnet", "subnets", subnetSchema, (subnet) => changed(created(subnetFromBody(subnet).resource))),
  ],
  ["PUT /subnets/{id}", renamed("subnet", "subnet")],
  ["DELETE /subnets/{id}", gone("subnet")],
  // A router is part of the networks that it joins, and joins none yet, or none any more.
  ["POST /routers", nothing],
  ["DELETE /routers/{id}", nothing],
  ["PUT /routers/{id}", updateRouter],
  ["PUT /routers/{id}/add_router_interface", routerInterface],
  ["PUT /routers/{id}/remove_router_interface", routerInterface],
  // A port is part of the server that takes it.
  ["POST /ports", nothing],
  ["DELETE /ports/{id}", nothing],
  ["PUT /ports/{id}", updatePort],
  ["POST /security-groups", createGroup],
  ["PUT /security-groups/{id}", updateGroup],
  ["DELETE /security-groups/{id}", gone("securityGroup")],
  [
    "POST /security-group-rules",
    each("security_group_rule", "security_group_rules", securityGroupRuleSchema, ruleCreated),
  ],
  ["DELETE /security-group-rules/{id}", gone("securityGroupRule")],
  ["POST /floatingips", createAddress],
  ["PUT /floatingips/{id}", updateAddress],
  ["DELETE /floatingips/{id}", gone("address")],
  ...tags("networks", "network"),
  ...tags("subnets", "subnet"),
  ...tags("security-groups", "securityGroup"),
  ...tags("floatingips", "address"),
  ...["routers", "ports"].flatMap((name): [string, OpenstackTranslator][] => [
    [`PUT /${name}/{id}/tags`, nothing],
    [`DELETE /${name}/{id}/tags`, nothing],
    [`PUT /${name}/{id}/tags/{key}`, nothing],
    [`DELETE /${name}/{id}/tags/{key}`, nothing],
  ]),
]);
