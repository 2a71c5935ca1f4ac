/** EC2's ids: a prefix and 17 hexadecimal digits (8 in old accounts). */
import type { IdScheme } from "#devcloud/core/cloud.ts";
import type { RecordKind } from "#devcloud/core/records.ts";

export const ec2Prefixes: Readonly<Record<RecordKind, string>> = {
  network: "vpc",
  subnet: "subnet",
  port: "eni",
  gateway: "igw",
  routeTable: "rtb",
  group: "sg",
  rule: "sgr",
  keyPair: "key",
  volume: "vol",
  address: "eipalloc",
  server: "i",
  token: "token",
  image: "ami",
  snapshot: "snap",
  addressAssociation: "eipassoc",
  routeTableAssociation: "rtbassoc",
  serverType: "type",
  zone: "zone",
  route: "route",
};

const digits = /^(?:[0-9a-f]{8}|[0-9a-f]{17})$/;

export const ec2Ids: IdScheme = {
  make: (kind, random) => `${ec2Prefixes[kind]}-${random.hex(9).slice(0, 17)}`,
  wellFormed: (kind, id) => {
    if (kind === "zone" || kind === "serverType" || kind === "route") return true;
    const prefix = `${ec2Prefixes[kind]}-`;
    return id.startsWith(prefix) && digits.test(id.slice(prefix.length));
  },
};

/** The kind of record that an id names, by its prefix. */
export function kindOfEc2Id(id: string): RecordKind | undefined {
  const prefix = id.slice(0, Math.max(0, id.indexOf("-")));
  return (Object.keys(ec2Prefixes) as RecordKind[]).find((kind) => ec2Prefixes[kind] === prefix);
}
