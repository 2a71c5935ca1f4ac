import type { Catalogue } from "#cloud/contract.ts";
import { resourceId } from "#kernel/ids.ts";
import type { Resource, SecurityGroupRuleSpec } from "#model/resource.ts";
import { securityGroupRuleId, volumeAttachmentId } from "#model/resource.ts";

const catalogueTypes = [
  { name: "t3.micro", vcpus: 2, memoryMiB: 1024 },
  { name: "t3.medium", vcpus: 2, memoryMiB: 4096 },
  { name: "m5.xlarge", vcpus: 4, memoryMiB: 16_384 },
];

/** The active side's offer, for the environments below. */
export const shopCatalogue: Catalogue = {
  types: catalogueTypes.map((type) => ({ ...type, gpus: 0, architecture: "x86_64" })),
  images: [
    { id: "ami-debian", name: "debian-12", architecture: "x86_64" },
    { id: "ami-web", name: "web", architecture: "x86_64" },
  ],
  zones: ["eu-1a", "eu-1b"],
};

export interface ShopSize {
  readonly servers: number;
  /** Every so many servers one has a volume; 0: none has. */
  readonly volumeEvery?: number;
  readonly publicEvery?: number;
}

const tiers = ["web", "app", "data"];

/** A shop as the active side's tools would have built it: one network, three tiers, rules between them. */
export function shopEnvironment(size: ShopSize): Resource[] {
  const network = resourceId("vpc-1");
  const all: Resource[] = [
    { kind: "network", id: network, spec: { cidr: "10.0.0.0/16", internet: true }, tags: { Name: "shop" } },
    {
      kind: "keyPair",
      id: resourceId("deploy"),
      spec: { name: "deploy", publicKey: "ssh-ed25519 AAAA" },
      tags: {},
    },
  ];
  for (const [at, tier] of tiers.entries()) {
    const spec = {
      networkId: network,
      cidr: `10.0.${at * 16}.0/20`,
      zone: at % 2 === 0 ? "eu-1a" : "eu-1b",
      publicAddresses: tier === "web",
    };
    all.push({ kind: "subnet", id: resourceId(`subnet-${tier}`), spec, tags: { tier } });
    const group = { networkId: network, name: tier, description: `the ${tier} tier` };
    all.push({ kind: "securityGroup", id: resourceId(`sg-${tier}`), spec: group, tags: { tier } });
    const peer = at === 0 ? { cidr: "0.0.0.0/0" } : { groupId: resourceId(`sg-${tiers[at - 1]}`) };
    const rule: SecurityGroupRuleSpec = {
      groupId: resourceId(`sg-${tier}`),
      direction: "ingress",
      protocol: "6",
      fromPort: 8000 + at,
      toPort: 8000 + at,
      peer,
    };
    all.push({ kind: "securityGroupRule", id: securityGroupRuleId(rule), spec: rule, tags: {} });
  }
  for (let at = 0; at < size.servers; at += 1) all.push(...shopServer(at, size));
  return all;
}

function shopServer(at: number, size: ShopSize): Resource[] {
  const tier = tiers[at % tiers.length] ?? "web";
  const id = resourceId(`i-${at}`);
  const server: Resource = {
    kind: "server",
    id,
    spec: {
      imageId: tier === "web" ? "ami-web" : "ami-debian",
      type: tier === "data" ? "m5.xlarge" : "t3.medium",
      subnetId: resourceId(`subnet-${tier}`),
      groupIds: [resourceId(`sg-${tier}`)],
      keyName: "deploy",
      publicAddress: size.publicEvery !== undefined && at % size.publicEvery === 0,
      power: "running",
      blockDevices: [],
    },
    tags: { Name: `${tier}-${at}`, tier },
  };
  if (size.volumeEvery === undefined || size.volumeEvery === 0 || at % size.volumeEvery !== 0)
    return [server];
  const volumeId = resourceId(`vol-${at}`);
  return [
    server,
    { kind: "volume", id: volumeId, spec: { sizeGiB: 10, type: "gp3", zone: "eu-1a" }, tags: { tier } },
    {
      kind: "volumeAttachment",
      id: volumeAttachmentId(volumeId, id),
      spec: { volumeId, serverId: id, device: "/dev/sdf", deleteOnTermination: false },
      tags: {},
    },
  ];
}
