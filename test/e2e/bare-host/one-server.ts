// What the tests of a bare host ask it for: one web server, and all that it needs.
import type { Cloud, CreateRequest, Observed } from "#cloud/contract.ts";
import type { ResourceId } from "#kernel/ids.ts";
import type { ResourceKind, ResourceSpecs, ServerSpec } from "#model/resource.ts";
import { until } from "../devcloud-qemu/stage.ts";
import { servesItsName } from "./host-under-test.ts";

export const port = 8080;
let tokens = 0;

export function request<K extends ResourceKind>(
  kind: K,
  spec: ResourceSpecs[K],
  name: string,
): CreateRequest<K> {
  tokens += 1;
  return { kind, spec, tags: { Name: name }, token: `token-${tokens}`, scope: "test", mayExist: false };
}

/** A network with a subnet, and a group that lets the port in. */
export async function opened(
  cloud: Cloud,
  signal: AbortSignal,
): Promise<{ groupId: ResourceId; subnetId: ResourceId }> {
  const network = await cloud.create(
    request("network", { cidr: "10.1.0.0/16", internet: true }, "n"),
    signal,
  );
  const subnetSpec = { networkId: network.resource.id, cidr: "10.1.1.0/24", publicAddresses: false };
  const subnet = await cloud.create(request("subnet", subnetSpec, "s"), signal);
  const groupSpec = { networkId: network.resource.id, name: "web", description: "web" };
  const group = await cloud.create(request("securityGroup", groupSpec, "web"), signal);
  const groupId = group.resource.id;
  const rule = { groupId, direction: "ingress", protocol: "tcp", fromPort: port, toPort: port } as const;
  await cloud.create(request("securityGroupRule", { ...rule, peer: { cidr: "0.0.0.0/0" } }, "r"), signal);
  return { groupId, subnetId: subnet.resource.id };
}

export function serverSpec(place: { groupId: ResourceId; subnetId: ResourceId }): ServerSpec {
  return {
    imageId: "small",
    type: "small",
    subnetId: place.subnetId,
    groupIds: [place.groupId],
    userData: servesItsName(port),
    publicAddress: false,
    power: "running",
    blockDevices: [],
  };
}

export function becomes(
  cloud: Cloud,
  id: ResourceId,
  status: string,
  signal: AbortSignal,
): Promise<Observed<"server">> {
  return until(async () => {
    const seen = await cloud.get("server", id, signal);
    return seen?.status === status && seen;
  }, signal);
}

export const urlOf = (server: Observed<"server">): string => `http://${server.addresses.private[0]}:${port}/`;
