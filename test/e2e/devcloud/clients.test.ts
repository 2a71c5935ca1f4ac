/** Clients that nobody here wrote: boto3 and the AWS command line, from Debian. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import { startDevcloud, type Devcloud } from "#devcloud/start-devcloud.ts";
import { makeDataDir } from "./devcloud-process.ts";

const run = promisify(execFile);
const strict = process.env["UNDERSTUDY_STRICT"] === "1";
const missing = (path: string): false | string =>
  strict || existsSync(path) ? false : `${path} is not installed`;

let cloud: Devcloud;
let data: ReturnType<typeof makeDataDir>;
let env: NodeJS.ProcessEnv;

before(async () => {
  data = makeDataDir();
  cloud = await startDevcloud({
    dialect: "ec2",
    dataDir: data.path,
    compute: "none",
    addressBase: "127.75.0.0/16",
  });
  env = { ...process.env, AWS_SHARED_CREDENTIALS_FILE: join(data.path, "credentials"), AWS_PAGER: "" };
});

after(async () => {
  await cloud.close();
  data[Symbol.dispose]();
});

const boto3 = "/usr/lib/python3/dist-packages/boto3/__init__.py";

void test("boto3: waiters, paginators, tokens and each known error", { skip: missing(boto3) }, async () => {
  const { stdout } = await run("/usr/bin/python3", ["test/e2e/devcloud/clients.py", cloud.endpoint], { env });
  assert.deepEqual(JSON.parse(stdout), {
    account: "000000000000",
    idempotent: true,
    pages: [5, 2],
    complete: true,
    key: ["-----BEGIN PRIVATE KEY-----", "ssh-ed25519"],
    userData: "#!/bin/sh\n",
    codes: {
      duplicateGroup: "InvalidGroup.Duplicate",
      duplicateRule: "InvalidPermission.Duplicate",
      duplicateKey: "InvalidKeyPair.Duplicate",
      vpcInUse: "DependencyViolation",
      groupInUse: "DependencyViolation",
      volumeInUse: "VolumeInUse",
      subnetConflict: "InvalidSubnet.Conflict",
      subnetRange: "InvalidSubnet.Range",
      vpcRange: "InvalidVpc.Range",
      noInstance: "InvalidInstanceID.NotFound",
      badInstance: "InvalidInstanceID.Malformed",
      noVpc: "InvalidVpcID.NotFound",
      noSubnet: "InvalidSubnetID.NotFound",
      noGroup: "InvalidGroup.NotFound",
      noVolume: "InvalidVolume.NotFound",
      noAddress: "InvalidAllocationID.NotFound",
      noImage: "InvalidAMIID.NotFound",
      noType: "InvalidParameterValue",
      noKey: "InvalidKeyPair.NotFound",
      otherToken: "IdempotentParameterMismatch",
      dryRun: "DryRunOperation",
      noFilter: "InvalidParameterValue",
      runningType: "IncorrectInstanceState",
      unserved: "UnsupportedOperation",
      startTerminated: "IncorrectInstanceState",
    },
  });
});

void test("aws: what the command line shows", { skip: missing("/usr/bin/aws") }, async () => {
  const aws = async (...args: string[]): Promise<unknown> => {
    const common = ["--endpoint-url", cloud.endpoint, "--region", "us-east-1", "--output", "json"];
    const { stdout } = await run("/usr/bin/aws", [...common, ...args], { env });
    return stdout === "" ? null : JSON.parse(stdout);
  };
  const zones = await aws("ec2", "describe-availability-zones", "--query", "AvailabilityZones[].ZoneName");
  assert.deepEqual(zones, ["us-east-1a", "us-east-1b", "us-east-1c"]);
  const id = (await aws("ec2", "allocate-address", "--query", "AllocationId")) as string;
  await aws("ec2", "create-tags", "--resources", id, "--tags", "Key=a,Value=<b>&c");
  const tags = await aws(
    "ec2",
    "describe-tags",
    "--filters",
    `Name=resource-id,Values=${id}`,
    "--query",
    "Tags[].Value",
  );
  assert.deepEqual(tags, ["<b>&c"]);
  await aws("ec2", "release-address", "--allocation-id", id);
  await assert.rejects(aws("ec2", "release-address", "--allocation-id", id), /InvalidAllocationID.NotFound/);
});
