// A small environment with one of everything, built through the gateway; and what must stand, by name, wherever it serves.
import {
  AllocateAddressCommand,
  AssociateAddressCommand,
  AttachInternetGatewayCommand,
  AttachVolumeCommand,
  AuthorizeSecurityGroupIngressCommand,
  CreateInternetGatewayCommand,
  CreateSecurityGroupCommand,
  CreateSubnetCommand,
  CreateTagsCommand,
  CreateVolumeCommand,
  CreateVpcCommand,
  DescribeVolumesCommand,
  type EC2Client,
  ImportKeyPairCommand,
  ModifySubnetAttributeCommand,
  RunInstancesCommand,
} from "@aws-sdk/client-ec2";
import { image } from "./two-clouds.ts";
import { until } from "./until.ts";

export const webPort = 18_480;

export interface ExpectedServer {
  readonly tags: Readonly<Record<string, string>>;
  readonly type: string;
  readonly volumes: number;
  readonly address: boolean;
}

export interface Expected {
  readonly servers: ReadonlyMap<string, ExpectedServer>;
  /** Acknowledged commands. */
  readonly commands: number;
  /** Ids that the owner's tool was told. */
  readonly ids: ReadonlyMap<string, string>;
}

const userData = Buffer.from(
  `#!/bin/sh
exec node -e 'require("node:http").createServer((_, answer) => answer.end(process.env.SERVER_ID)).listen(${webPort}, process.env.SERVER_ADDRESS)'
`,
).toString("base64");

const publicKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGkz5yQq2mH0n8Tq6m8u3WJt0l3h9Yp8S3rEoY0m9C1T shop";

function known(value: string | undefined): string {
  if (value === undefined) throw new Error("the cloud's answer lacks an id");
  return value;
}

/** Three web servers and two of the database: five servers, one volume, one address, two groups that refer to each other. */
export async function buildShop(ec2: EC2Client): Promise<Expected> {
  let commands = 0;
  const change = <T>(work: Promise<T>): Promise<T> => {
    commands += 1;
    return work;
  };
  const vpc = await change(
    ec2.send(
      new CreateVpcCommand({
        CidrBlock: "10.20.0.0/16",
        TagSpecifications: [{ ResourceType: "vpc", Tags: [{ Key: "Name", Value: "shop" }] }],
      }),
    ),
  );
  const VpcId = known(vpc.Vpc?.VpcId);
  const gateway = await change(ec2.send(new CreateInternetGatewayCommand({})));
  const InternetGatewayId = known(gateway.InternetGateway?.InternetGatewayId);
  await change(ec2.send(new AttachInternetGatewayCommand({ VpcId, InternetGatewayId })));
  const subnet = await change(
    ec2.send(
      new CreateSubnetCommand({
        VpcId,
        CidrBlock: "10.20.1.0/24",
        TagSpecifications: [{ ResourceType: "subnet", Tags: [{ Key: "Name", Value: "shop" }] }],
      }),
    ),
  );
  const SubnetId = known(subnet.Subnet?.SubnetId);
  const open = new ModifySubnetAttributeCommand({ SubnetId, MapPublicIpOnLaunch: { Value: true } });
  await change(ec2.send(open));
  await change(
    ec2.send(new ImportKeyPairCommand({ KeyName: "shop", PublicKeyMaterial: Buffer.from(publicKey) })),
  );
  const groups = new Map<string, string>();
  for (const name of ["web", "db"]) {
    const group = new CreateSecurityGroupCommand({ VpcId, GroupName: name, Description: name });
    groups.set(name, known((await change(ec2.send(group))).GroupId));
  }
  const port = { IpProtocol: "tcp", FromPort: webPort, ToPort: webPort };
  const fromAll = { ...port, IpRanges: [{ CidrIp: "0.0.0.0/0" }] };
  const fromWeb = { ...port, UserIdGroupPairs: [{ GroupId: known(groups.get("web")) }] };
  for (const [name, permission] of [
    ["web", fromAll],
    ["db", fromWeb],
  ] as const) {
    const GroupId = known(groups.get(name));
    await change(
      ec2.send(new AuthorizeSecurityGroupIngressCommand({ GroupId, IpPermissions: [permission] })),
    );
  }
  const servers = new Map<string, ExpectedServer>();
  const ids = new Map<string, string>();
  for (const name of ["web-1", "web-2", "web-3", "db-1", "db-2"]) {
    const tier = name.startsWith("web") ? "web" : "db";
    const tags = { Name: name, tier };
    const made = await change(
      ec2.send(
        new RunInstancesCommand({
          ImageId: image,
          InstanceType: "t3.small",
          MinCount: 1,
          MaxCount: 1,
          KeyName: "shop",
          SubnetId,
          SecurityGroupIds: [known(groups.get(tier))],
          UserData: userData,
          TagSpecifications: [
            {
              ResourceType: "instance",
              Tags: Object.entries(tags).map(([Key, Value]) => ({ Key, Value })),
            },
          ],
        }),
      ),
    );
    ids.set(name, known(made.Instances?.[0]?.InstanceId));
    servers.set(name, {
      tags,
      type: "t3.small",
      volumes: name === "db-1" ? 1 : 0,
      address: name === "web-1",
    });
  }
  const zone = known(subnet.Subnet?.AvailabilityZone);
  const volume = await change(
    ec2.send(
      new CreateVolumeCommand({
        AvailabilityZone: zone,
        Size: 2,
        VolumeType: "gp3",
        TagSpecifications: [{ ResourceType: "volume", Tags: [{ Key: "role", Value: "database" }] }],
      }),
    ),
  );
  const VolumeId = known(volume.VolumeId);
  const attach = new AttachVolumeCommand({
    VolumeId,
    InstanceId: known(ids.get("db-1")),
    Device: "/dev/sdf",
  });
  await until(
    "the volume to be there",
    () => ec2.send(new DescribeVolumesCommand({ VolumeIds: [VolumeId] })),
    ({ Volumes }) => Volumes?.[0]?.State === "available",
  );
  await until(
    "the volume to be attached",
    async () => {
      try {
        return await ec2.send(attach);
      } catch (error) {
        if ((error as Error).name === "IncorrectState") return undefined;
        throw error;
      }
    },
    (attached) => attached !== undefined,
  );
  commands += 1;
  const address = await change(ec2.send(new AllocateAddressCommand({ Domain: "vpc" })));
  await change(
    ec2.send(
      new AssociateAddressCommand({
        AllocationId: known(address.AllocationId),
        InstanceId: known(ids.get("web-1")),
      }),
    ),
  );
  return { servers, commands, ids };
}

/** Tags a server over and over, one key each time, until told to stop; knows which of them were acknowledged. */
export class Tagger {
  readonly acknowledged: string[] = [];
  /** What ended it. */
  refusal: string | undefined;
  readonly #stop = new AbortController();
  readonly #loop: Promise<void>;

  constructor(ec2: EC2Client, server: string) {
    this.#loop = this.#run(ec2, server);
  }

  async #run(ec2: EC2Client, server: string): Promise<void> {
    for (let count = 1; !this.#stop.signal.aborted; count += 1) {
      const key = `k${count}`;
      try {
        await ec2.send(new CreateTagsCommand({ Resources: [server], Tags: [{ Key: key, Value: "1" }] }), {
          abortSignal: this.#stop.signal,
        });
        this.acknowledged.push(key);
      } catch (error) {
        this.refusal = String(error);
        // Refused while the environment moves, or cut off with the engine: not acknowledged, so nothing is promised.
        return;
      }
    }
  }

  async stop(): Promise<readonly string[]> {
    this.#stop.abort();
    await this.#loop;
    return this.acknowledged;
  }
}
