// A small service like a database: numbered, checksummed records on a volume of its own, each durable before it is acknowledged.
import {
  AttachInternetGatewayCommand,
  AttachVolumeCommand,
  AuthorizeSecurityGroupIngressCommand,
  CreateInternetGatewayCommand,
  CreateSecurityGroupCommand,
  CreateSubnetCommand,
  CreateVolumeCommand,
  CreateVpcCommand,
  DescribeInstancesCommand,
  type EC2Client,
  ModifySubnetAttributeCommand,
  type ResourceType,
  RunInstancesCommand,
} from "@aws-sdk/client-ec2";
import { request } from "undici";
import { until } from "./timeline.ts";

/** Milliseconds between two records. */
const pauseMs = 5;

/** What the guest does: find its volume, make it a file system the first time, serve what it holds, and write on. */
export const userData = `#!/bin/sh
# Clouds name disks as they like, and some give a server a root disk as well: this one is known by its size.
volume() {
  for disk in /sys/block/vd*; do
    [ "$(cat "$disk/size")" = 2097152 ] && cat "$disk/serial" && return
  done
  return 1
}
until serial=$(volume); do usleep 50000; done
folder=/disks/$serial
mkdir -p "$folder"
if ! grep -q " $folder " /proc/mounts && ! mount -t ext4 "$(disk-of "$serial")" "$folder" 2>/dev/null; then
  mke2fs "$(disk-of "$serial")" >/dev/null && mount -t ext4 "$(disk-of "$serial")" "$folder"
fi
mkdir -p /www/cgi-bin
[ -e "$folder/records" ] && record-reader "$folder" >/www/at-boot || echo "records=0 torn=0 missing=0 last=0" >/www/at-boot
printf '#!/bin/sh\\nprintf "Content-Type: text/plain\\\\r\\\\n\\\\r\\\\n"; echo "boot $(cat /www/at-boot)"; echo "now $(record-reader %s)"\\n' "$folder" >/www/cgi-bin/records
printf '#!/bin/sh\\nprintf "Content-Type: text/plain\\\\r\\\\n\\\\r\\\\n"; tr "0-9" "x" <%s/records | head -c 65536 >/tmp/x; dd if=/tmp/x of=%s/records conv=notrunc 2>/dev/null; sync; echo encrypted\\n' "$folder" "$folder" >/www/cgi-bin/ransom
chmod 755 /www/cgi-bin/*
httpd -p 8080 -h /www
exec record-writer "$folder" ${pauseMs}
`;

const tagged = (resource: ResourceType, tags: Readonly<Record<string, string>>) => [
  { ResourceType: resource, Tags: Object.entries(tags).map(([Key, Value]) => ({ Key, Value })) },
];

/** Builds it in the active cloud, as any owner of a shop would. */
export async function buildDatabase(ec2: EC2Client, image: string): Promise<{ readonly volumeId: string }> {
  const { Vpc } = await ec2.send(
    new CreateVpcCommand({ CidrBlock: "10.0.0.0/16", TagSpecifications: tagged("vpc", { Name: "shop" }) }),
  );
  const { InternetGateway } = await ec2.send(new CreateInternetGatewayCommand({}));
  await ec2.send(
    new AttachInternetGatewayCommand({
      VpcId: Vpc?.VpcId,
      InternetGatewayId: InternetGateway?.InternetGatewayId,
    }),
  );
  const { Subnet } = await ec2.send(new CreateSubnetCommand({ VpcId: Vpc?.VpcId, CidrBlock: "10.0.1.0/24" }));
  await ec2.send(
    new ModifySubnetAttributeCommand({ SubnetId: Subnet?.SubnetId, MapPublicIpOnLaunch: { Value: true } }),
  );
  const { GroupId } = await ec2.send(
    new CreateSecurityGroupCommand({ GroupName: "database", Description: "database", VpcId: Vpc?.VpcId }),
  );
  await ec2.send(
    new AuthorizeSecurityGroupIngressCommand({
      GroupId,
      IpPermissions: [
        { IpProtocol: "tcp", FromPort: 8080, ToPort: 8080, IpRanges: [{ CidrIp: "0.0.0.0/0" }] },
      ],
    }),
  );
  const { VolumeId } = await ec2.send(
    new CreateVolumeCommand({
      AvailabilityZone: Subnet?.AvailabilityZone,
      Size: 1,
      VolumeType: "gp3",
      TagSpecifications: tagged("volume", { Name: "records", role: "database" }),
    }),
  );
  const { Instances } = await ec2.send(
    new RunInstancesCommand({
      ImageId: image,
      InstanceType: "t3.micro",
      MinCount: 1,
      MaxCount: 1,
      SubnetId: Subnet?.SubnetId,
      SecurityGroupIds: GroupId === undefined ? [] : [GroupId],
      UserData: Buffer.from(userData).toString("base64"),
      TagSpecifications: tagged("instance", { Name: "db-1", tier: "db" }),
    }),
  );
  const instanceId = Instances?.[0]?.InstanceId ?? "";
  await until(
    "the server",
    () => ec2.send(new DescribeInstancesCommand({ InstanceIds: [instanceId] })),
    ({ Reservations }) => Reservations?.[0]?.Instances?.[0]?.State?.Name === "running",
    60_000,
  );
  await ec2.send(new AttachVolumeCommand({ VolumeId, InstanceId: instanceId, Device: "/dev/sdf" }));
  return { volumeId: VolumeId ?? "" };
}

export interface Records {
  readonly records: number;
  readonly torn: number;
  readonly missing: number;
  readonly last: number;
}

/** What the volume held when the guest began, and what it holds now. */
export interface Holdings {
  readonly boot: Records;
  readonly now: Records;
}

/** Null: nobody answers (yet). Throws for an answer that is none. */
export async function readHoldings(url: string): Promise<Holdings | null> {
  const text = await readRecords(url);
  if (text === null) return null;
  const [boot, now] = [/^boot (.+)$/mu.exec(text)?.[1], /^now (.+)$/mu.exec(text)?.[1]];
  // Before its first record it counts nothing.
  return boot === undefined || now === undefined ? null : { boot: parse(boot), now: parse(now) };
}

async function readRecords(url: string): Promise<string | null> {
  try {
    const { statusCode, body } = await request(`${url}cgi-bin/records`, {
      reset: true,
      headersTimeout: 3000,
      bodyTimeout: 3000,
    });
    const text = await body.text();
    return statusCode === 200 ? text : null;
  } catch {
    return null;
  }
}

function parse(line: string): Records {
  const value = (name: string): number => {
    const digits = new RegExp(`${name}=(\\d+)`, "u").exec(line)?.[1];
    if (digits === undefined) throw new Error(`the database's answer says nothing of ${name}: ${line}`);
    return Number(digits);
  };
  return { records: value("records"), torn: value("torn"), missing: value("missing"), last: value("last") };
}

/** Overwrites what it holds, as ransomware does. */
export async function ransom(url: string): Promise<void> {
  const { statusCode, body } = await request(`${url}cgi-bin/ransom`, { reset: true });
  const text = await body.text();
  if (statusCode !== 200 || !text.includes("encrypted")) throw new Error(`ransom: ${statusCode} ${text}`);
}

/** The last record that somebody was told is safe: the guest says so on its console. */
export function lastAcknowledged(console: string): number {
  const all = [...console.matchAll(/^ack (\d+)\r?$/gmu)];
  return Math.max(0, ...all.map(([, number]) => Number(number)));
}
