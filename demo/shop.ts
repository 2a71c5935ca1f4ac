// The shop's owner: builds and changes an environment with the AWS SDK and knows nothing of Understudy. Every command
// that the cloud acknowledged leaves an expectation, against which the other cloud is checked in the end.
import {
  AllocateAddressCommand,
  AssociateAddressCommand,
  AttachInternetGatewayCommand,
  AttachVolumeCommand,
  AuthorizeSecurityGroupIngressCommand,
  CreateInternetGatewayCommand,
  CreateKeyPairCommand,
  CreateRouteCommand,
  CreateSecurityGroupCommand,
  CreateSubnetCommand,
  CreateTagsCommand,
  CreateVolumeCommand,
  CreateVpcCommand,
  DeleteSecurityGroupCommand,
  DeleteTagsCommand,
  DeleteVolumeCommand,
  DescribeInstancesCommand,
  type DescribeInstancesCommandOutput,
  DescribeRouteTablesCommand,
  DescribeVolumesCommand,
  DetachVolumeCommand,
  type EC2Client,
  type Instance,
  type IpPermission,
  ModifyInstanceAttributeCommand,
  ModifySubnetAttributeCommand,
  RevokeSecurityGroupIngressCommand,
  RunInstancesCommand,
  StartInstancesCommand,
  StopInstancesCommand,
  TerminateInstancesCommand,
  type _InstanceType,
} from "@aws-sdk/client-ec2";
import { until } from "./timeline.ts";

export interface Tier {
  readonly name: "web" | "app" | "db";
  readonly port: number;
  /** Where this tier finds the next one. */
  readonly next: string | null;
}

export interface ExpectedServer {
  readonly name: string;
  readonly tags: Readonly<Record<string, string>>;
  readonly type: string;
  readonly image: string;
  readonly volumes: number;
  readonly address: boolean;
}

/** What must stand in the other cloud: the effect of all that was acknowledged, by name. */
export interface Expectation {
  readonly servers: Map<string, ExpectedServer>;
  readonly groups: Map<string, ReadonlySet<number>>;
  readonly networks: Set<string>;
  readonly subnets: Set<string>;
  readonly keys: Set<string>;
  commands: number;
}

/** User data as for any cloud: a script. It answers with its tier, and with what the next tier says. */
function userData(tier: Tier): string {
  const server = `
const http = require("node:http");
const next = ${JSON.stringify(tier.next)};
const self = { tier: ${JSON.stringify(tier.name)}, name: process.env.SERVER_NAME, id: process.env.SERVER_ID };
const ask = () => new Promise((resolve, reject) => {
  http.get(next, { agent: false, timeout: 1500 }, (answer) => {
    let text = "";
    answer.on("data", (chunk) => (text += chunk));
    answer.on("end", () => answer.statusCode === 200 ? resolve(JSON.parse(text)) : reject(new Error(text)));
  }).on("error", reject).on("timeout", function () { this.destroy(new Error("no answer")); });
});
http.createServer(async (request, response) => {
  try {
    const below = next === null ? { tiers: [] } : await ask();
    response.end(JSON.stringify({ tiers: [self, ...below.tiers] }));
  } catch (error) {
    response.statusCode = 502;
    response.end(JSON.stringify({ error: String(error) }));
  }
}).listen(${tier.port}, process.env.SERVER_ADDRESS);`;
  const script = `#!/bin/sh\nexec node -e '${server.replaceAll("'", "'\\''")}'\n`;
  return Buffer.from(script).toString("base64");
}

export class ShopOwner {
  readonly expected: Expectation = {
    servers: new Map(),
    groups: new Map(),
    networks: new Set(),
    subnets: new Set(),
    keys: new Set(),
    commands: 0,
  };
  readonly #ec2: EC2Client;
  readonly #tiers: readonly Tier[];
  readonly #groupIds = new Map<string, string>();
  readonly #subnetIds = new Map<string, string>();
  readonly #instanceIds = new Map<string, string>();
  readonly #counts = new Map<string, number>();

  constructor(ec2: EC2Client, tiers: readonly Tier[]) {
    this.#ec2 = ec2;
    this.#tiers = tiers;
  }

  /** Counts what changes something; describing is free. */
  async #change<Output>(work: Promise<Output>): Promise<Output> {
    const output = await work;
    this.expected.commands += 1;
    return output;
  }

  async buildNetwork(): Promise<void> {
    const ec2 = this.#ec2;
    const name = "shop";
    const TagSpecifications = [{ ResourceType: "vpc" as const, Tags: [{ Key: "Name", Value: name }] }];
    const vpc = await this.#change(
      ec2.send(new CreateVpcCommand({ CidrBlock: "10.20.0.0/16", TagSpecifications })),
    );
    const VpcId = id(vpc.Vpc?.VpcId);
    this.expected.networks.add(name);
    const gateway = await this.#change(ec2.send(new CreateInternetGatewayCommand({})));
    const GatewayId = id(gateway.InternetGateway?.InternetGatewayId);
    await this.#change(ec2.send(new AttachInternetGatewayCommand({ VpcId, InternetGatewayId: GatewayId })));
    const tables = await ec2.send(
      new DescribeRouteTablesCommand({ Filters: [{ Name: "vpc-id", Values: [VpcId] }] }),
    );
    const RouteTableId = id(tables.RouteTables?.[0]?.RouteTableId);
    await this.#change(
      ec2.send(new CreateRouteCommand({ RouteTableId, GatewayId, DestinationCidrBlock: "0.0.0.0/0" })),
    );
    for (const [index, tier] of this.#tiers.entries()) {
      const tags = [{ ResourceType: "subnet" as const, Tags: [{ Key: "Name", Value: tier.name }] }];
      const made = await this.#change(
        ec2.send(
          new CreateSubnetCommand({ VpcId, CidrBlock: `10.20.${index + 1}.0/24`, TagSpecifications: tags }),
        ),
      );
      const SubnetId = id(made.Subnet?.SubnetId);
      this.#subnetIds.set(tier.name, SubnetId);
      this.expected.subnets.add(tier.name);
      await this.#change(
        ec2.send(new ModifySubnetAttributeCommand({ SubnetId, MapPublicIpOnLaunch: { Value: true } })),
      );
      await this.#createGroup(VpcId, tier);
    }
    await this.#change(ec2.send(new CreateKeyPairCommand({ KeyName: "shop", KeyType: "ed25519" })));
    this.expected.keys.add("shop");
  }

  async #createGroup(VpcId: string, tier: Tier): Promise<void> {
    const ec2 = this.#ec2;
    const name = `shop-${tier.name}`;
    const made = await this.#change(
      ec2.send(
        new CreateSecurityGroupCommand({
          VpcId,
          GroupName: name,
          Description: `${tier.name} tier of the shop`,
        }),
      ),
    );
    const GroupId = id(made.GroupId);
    this.#groupIds.set(tier.name, GroupId);
    const open = (port: number): IpPermission[] => [
      { IpProtocol: "tcp", FromPort: port, ToPort: port, IpRanges: [{ CidrIp: "0.0.0.0/0" }] },
    ];
    await this.#change(
      ec2.send(new AuthorizeSecurityGroupIngressCommand({ GroupId, IpPermissions: open(tier.port) })),
    );
    await this.#change(
      ec2.send(new AuthorizeSecurityGroupIngressCommand({ GroupId, IpPermissions: open(22) })),
    );
    // Thought better of it.
    await this.#change(ec2.send(new RevokeSecurityGroupIngressCommand({ GroupId, IpPermissions: open(22) })));
    this.expected.groups.set(name, new Set([tier.port]));
  }

  async launch(tierName: Tier["name"], count: number, type: _InstanceType, image: string): Promise<void> {
    const tier = this.#tier(tierName);
    for (let index = 0; index < count; index += 1) {
      const ordinal = (this.#counts.get(tierName) ?? 0) + 1;
      this.#counts.set(tierName, ordinal);
      const name = `${tierName}-${ordinal}`;
      const tags = { Name: name, tier: tierName, owner: "shop" };
      const output = await this.#change(
        this.#ec2.send(
          new RunInstancesCommand({
            ImageId: image,
            InstanceType: type,
            MinCount: 1,
            MaxCount: 1,
            KeyName: "shop",
            SubnetId: id(this.#subnetIds.get(tierName)),
            SecurityGroupIds: [id(this.#groupIds.get(tierName))],
            UserData: userData(tier),
            TagSpecifications: [
              {
                ResourceType: "instance",
                Tags: Object.entries(tags).map(([Key, Value]) => ({ Key, Value })),
              },
            ],
          }),
        ),
      );
      this.#instanceIds.set(name, id(output.Instances?.[0]?.InstanceId));
      this.expected.servers.set(name, { name, tags, type, image, volumes: 0, address: false });
    }
  }

  async addVolumes(names: readonly string[]): Promise<void> {
    for (const name of names) {
      const made = await this.#change(
        this.#ec2.send(
          new CreateVolumeCommand({ AvailabilityZone: await this.#zoneOf(name), Size: 2, VolumeType: "gp3" }),
        ),
      );
      const VolumeId = id(made.VolumeId);
      await this.#volumeIs(VolumeId, "available");
      await this.#change(
        this.#ec2.send(
          new AttachVolumeCommand({
            VolumeId,
            InstanceId: id(this.#instanceIds.get(name)),
            Device: "/dev/sdf",
          }),
        ),
      );
      this.#expect(name, { volumes: 1 });
    }
  }

  async addAddresses(names: readonly string[]): Promise<void> {
    for (const name of names) {
      const made = await this.#change(this.#ec2.send(new AllocateAddressCommand({ Domain: "vpc" })));
      const AllocationId = id(made.AllocationId);
      const InstanceId = id(this.#instanceIds.get(name));
      await this.#change(this.#ec2.send(new AssociateAddressCommand({ AllocationId, InstanceId })));
      this.#expect(name, { address: true });
    }
  }

  async resize(names: readonly string[], type: _InstanceType): Promise<void> {
    for (const name of names) {
      const InstanceId = id(this.#instanceIds.get(name));
      await this.#change(this.#ec2.send(new StopInstancesCommand({ InstanceIds: [InstanceId] })));
      await this.#allAre("stopped", [InstanceId]);
      await this.#change(
        this.#ec2.send(new ModifyInstanceAttributeCommand({ InstanceId, InstanceType: { Value: type } })),
      );
      await this.#change(this.#ec2.send(new StartInstancesCommand({ InstanceIds: [InstanceId] })));
      this.#expect(name, { type });
    }
  }

  async retag(names: readonly string[]): Promise<void> {
    for (const name of names) {
      const Resources = [id(this.#instanceIds.get(name))];
      await this.#change(
        this.#ec2.send(new CreateTagsCommand({ Resources, Tags: [{ Key: "release", Value: "1" }] })),
      );
      await this.#change(
        this.#ec2.send(new CreateTagsCommand({ Resources, Tags: [{ Key: "release", Value: "2" }] })),
      );
      await this.#change(this.#ec2.send(new DeleteTagsCommand({ Resources, Tags: [{ Key: "owner" }] })));
      const { owner: _removed, ...tags } = this.#known(name).tags;
      this.#expect(name, { tags: { ...tags, release: "2" } });
    }
  }

  async terminate(names: readonly string[]): Promise<void> {
    const InstanceIds = names.map((name) => id(this.#instanceIds.get(name)));
    await this.#change(this.#ec2.send(new TerminateInstancesCommand({ InstanceIds })));
    for (const name of names) this.expected.servers.delete(name);
  }

  /** Made and unmade: the reserve must never see any of it. */
  async changeMind(): Promise<void> {
    const zone = await this.#zoneOf("db-1");
    const volume = await this.#change(
      this.#ec2.send(new CreateVolumeCommand({ AvailabilityZone: zone, Size: 1 })),
    );
    const VolumeId = id(volume.VolumeId);
    await this.#volumeIs(VolumeId, "available");
    const InstanceId = id(this.#instanceIds.get("db-1"));
    await this.#change(this.#ec2.send(new AttachVolumeCommand({ VolumeId, InstanceId, Device: "/dev/sdg" })));
    await this.#change(this.#ec2.send(new DetachVolumeCommand({ VolumeId })));
    await this.#volumeIs(VolumeId, "available");
    await this.#change(this.#ec2.send(new DeleteVolumeCommand({ VolumeId })));
    const group = await this.#change(
      this.#ec2.send(new CreateSecurityGroupCommand({ GroupName: "shop-mistake", Description: "a mistake" })),
    );
    await this.#change(this.#ec2.send(new DeleteSecurityGroupCommand({ GroupId: id(group.GroupId) })));
  }

  /** All servers that should run do, with an address to reach them. */
  async allRunning(): Promise<void> {
    await this.#allAre(
      "running",
      [...this.expected.servers.keys()].map((name) => id(this.#instanceIds.get(name))),
    );
  }

  async instances(): Promise<readonly Instance[]> {
    const found: Instance[] = [];
    let NextToken: string | undefined;
    do {
      const page: DescribeInstancesCommandOutput = await this.#ec2.send(
        new DescribeInstancesCommand({ MaxResults: 100, ...(NextToken === undefined ? {} : { NextToken }) }),
      );
      for (const reservation of page.Reservations ?? []) found.push(...(reservation.Instances ?? []));
      NextToken = page.NextToken;
    } while (NextToken !== undefined && NextToken !== "");
    return found;
  }

  async #allAre(state: string, ids: readonly string[]): Promise<void> {
    await until(
      `${ids.length} servers to be ${state}`,
      async () =>
        (await this.instances()).filter(
          (one) => ids.includes(one.InstanceId ?? "") && one.State?.Name !== state,
        ),
      (others) => others.length === 0,
      20_000,
    );
  }

  async #volumeIs(VolumeId: string, state: string): Promise<void> {
    await until(
      `volume ${VolumeId} to be ${state}`,
      async () =>
        (await this.#ec2.send(new DescribeVolumesCommand({ VolumeIds: [VolumeId] }))).Volumes?.[0]?.State,
      (seen) => seen === state,
      10_000,
    );
  }

  async #zoneOf(name: string): Promise<string> {
    const InstanceIds = [id(this.#instanceIds.get(name))];
    const { Reservations } = await this.#ec2.send(new DescribeInstancesCommand({ InstanceIds }));
    return id(Reservations?.[0]?.Instances?.[0]?.Placement?.AvailabilityZone);
  }

  #tier(name: string): Tier {
    const tier = this.#tiers.find((one) => one.name === name);
    if (tier === undefined) throw new Error(`no tier ${name}`);
    return tier;
  }

  #known(name: string): ExpectedServer {
    const server = this.expected.servers.get(name);
    if (server === undefined) throw new Error(`no server ${name}`);
    return server;
  }

  #expect(name: string, change: Partial<ExpectedServer>): void {
    this.expected.servers.set(name, { ...this.#known(name), ...change });
  }
}

function id(value: string | undefined): string {
  if (value === undefined) throw new Error("the cloud's answer lacks an id");
  return value;
}
