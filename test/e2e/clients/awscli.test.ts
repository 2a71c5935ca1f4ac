/** The AWS command line, as a person types it: what it prints and its exit code, with the gateway and without. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { type Printed, awsMissing, runAws } from "./aws-command-line.ts";
import { type Endpoint, type Plain, list, text } from "./client.ts";
import { assertFoldIsCloud } from "./journal-agrees.ts";
import { Names } from "./transcript.ts";
import { image, startTwoWays } from "./two-ways.ts";

interface Typed {
  readonly args: readonly string[];
  readonly printed: Printed;
}

/** A shell: each command is typed in full, its answer kept. */
class Shell {
  readonly typed: Typed[] = [];
  readonly #endpoint: Endpoint;

  constructor(endpoint: Endpoint) {
    this.#endpoint = endpoint;
  }

  /** Words apart by blanks; `'...'` is one word. */
  async done(line: string): Promise<Plain> {
    const { stdout, stderr, exitCode } = await this.#run(line);
    assert.equal(exitCode, 0, `aws ${line}: ${stderr}`);
    return stdout === "" ? null : (JSON.parse(stdout) as Plain);
  }

  /** 254: the service refused. */
  async refused(code: string, line: string): Promise<void> {
    const { stderr, exitCode } = await this.#run(line);
    assert.match(stderr, new RegExp(`An error occurred \\(${code.replaceAll(".", "\\.")}\\)`), `aws ${line}`);
    assert.equal(exitCode, 254, `aws ${line}`);
  }

  async #run(line: string): Promise<Printed> {
    const args = [...line.matchAll(/'([^']*)'|(\S+)/g)].map(([, quoted, bare]) => quoted ?? bare ?? "");
    const printed = await runAws(this.#endpoint, args);
    this.typed.push({ args, printed });
    return printed;
  }
}

/** So that a difference is shown by its lines. */
function byLine(typed: Typed | undefined): object | undefined {
  if (typed === undefined) return undefined;
  const { args, printed } = typed;
  const { stdout, stderr, exitCode } = printed;
  return { args, exitCode, stdout: stdout.split("\n"), stderr: stderr.split("\n") };
}

interface Made {
  readonly vpc: string;
  readonly subnet: string;
  readonly group: string;
  readonly server: string;
  readonly volume: string;
  readonly address: string;
}

async function create(shell: Shell): Promise<Made> {
  const vpc = text(
    await shell.done(
      "ec2 create-vpc --cidr-block 10.0.0.0/16 --tag-specifications 'ResourceType=vpc,Tags=[{Key=Name,Value=Käse & <Brot> 日本}]'",
    ),
    "Vpc.VpcId",
  );
  const subnet = text(
    await shell.done(
      `ec2 create-subnet --vpc-id ${vpc} --cidr-block 10.0.1.0/24 --availability-zone us-east-1a`,
    ),
    "Subnet.SubnetId",
  );
  const gateway = text(await shell.done("ec2 create-internet-gateway"), "InternetGateway.InternetGatewayId");
  await shell.done(`ec2 attach-internet-gateway --internet-gateway-id ${gateway} --vpc-id ${vpc}`);
  const group = text(
    await shell.done(
      `ec2 create-security-group --group-name web --description 'what shoppers reach' --vpc-id ${vpc}`,
    ),
    "GroupId",
  );
  await shell.done(
    `ec2 authorize-security-group-ingress --group-id ${group} --protocol tcp --port 80-81 --cidr 0.0.0.0/0`,
  );
  const launched = await shell.done(
    `ec2 run-instances --image-id ${image} --instance-type t3.micro --count 6 --subnet-id ${subnet} --security-group-ids ${group} --client-token six --user-data '#!/bin/sh' --tag-specifications 'ResourceType=instance,Tags=[{Key=Name,Value=web-1},{Key=tier,Value=web}]'`,
  );
  const server = text(launched, "Instances.0.InstanceId");
  await shell.done(`ec2 wait instance-running --filters Name=vpc-id,Values=${vpc}`);
  const volume = text(
    await shell.done("ec2 create-volume --availability-zone us-east-1a --size 10 --volume-type gp3"),
    "VolumeId",
  );
  const address = text(await shell.done("ec2 allocate-address --domain vpc"), "AllocationId");
  return { vpc, subnet, group, server, volume, address };
}

async function work(shell: Shell, { vpc, server, volume, address }: Made): Promise<void> {
  const all = `ec2 describe-instances --filters Name=vpc-id,Values=${vpc} 'Name=tag:Name,Values=web-*'`;
  const ids = (answer: Plain): string[] =>
    list(answer, "Reservations").flatMap((each) =>
      list(each, "Instances").map((one) => text(one, "InstanceId")),
    );
  assert.equal(ids(await shell.done(`${all} --page-size 5`)).length, 6, "the pages are put together");
  const first = await shell.done(`${all} --page-size 5 --max-items 1`);
  await shell.done(`${all} --starting-token ${text(first, "NextToken")}`);
  await shell.done(`ec2 attach-volume --volume-id ${volume} --instance-id ${server} --device /dev/sdf`);
  await shell.done(`ec2 associate-address --allocation-id ${address} --instance-id ${server}`);
  await shell.done(`ec2 create-tags --resources ${server} ${vpc} --tags 'Key=Straße/№,Value="a+b=c%20;🛒"'`);
  await shell.done(`ec2 delete-tags --resources ${server} --tags Key=tier`);
  await shell.done(
    `ec2 modify-instance-attribute --instance-id ${server} --instance-initiated-shutdown-behavior terminate`,
  );
  await shell.done(
    "ec2 describe-instances --query 'sort(Reservations[].Instances[].Tags[].Key)' --output json",
  );
  await shell.done("sts get-caller-identity");
}

async function provoke(shell: Shell, { vpc, group, server, volume, address }: Made): Promise<void> {
  const run = `ec2 run-instances --image-id ${image}`;
  await shell.refused("DependencyViolation", `ec2 delete-vpc --vpc-id ${vpc}`);
  await shell.refused(
    "InvalidGroup.Duplicate",
    `ec2 create-security-group --group-name web --description b --vpc-id ${vpc}`,
  );
  await shell.refused(
    "InvalidPermission.Duplicate",
    `ec2 authorize-security-group-ingress --group-id ${group} --protocol tcp --port 80-81 --cidr 0.0.0.0/0`,
  );
  await shell.refused("VolumeInUse", `ec2 delete-volume --volume-id ${volume}`);
  await shell.refused("InvalidIPAddress.InUse", `ec2 release-address --allocation-id ${address}`);
  await shell.refused(
    "InvalidInstanceID.NotFound",
    "ec2 terminate-instances --instance-ids i-0123456789abcdef0",
  );
  await shell.refused("InvalidInstanceID.Malformed", "ec2 describe-instances --instance-ids i-1");
  await shell.refused("InvalidAMIID.NotFound", "ec2 run-instances --image-id ami-0123456789abcdef0");
  await shell.refused("InvalidKeyPair.NotFound", `${run} --instance-type t3.micro --key-name none`);
  await shell.refused("IdempotentParameterMismatch", `${run} --instance-type t3.small --client-token six`);
  await shell.refused("DryRunOperation", `ec2 terminate-instances --instance-ids ${server} --dry-run`);
  await shell.refused("InvalidParameterValue", "ec2 describe-volumes --filters Name=nope,Values=x");
  await shell.refused(
    "UnsupportedOperation",
    `ec2 create-flow-logs --resource-ids ${vpc} --resource-type VPC`,
  );
}

async function clear(shell: Shell, { server, volume, address }: Made): Promise<void> {
  await shell.done(`ec2 detach-volume --volume-id ${volume}`);
  await shell.done(`ec2 delete-volume --volume-id ${volume}`);
  await shell.done(`ec2 terminate-instances --instance-ids ${server}`);
  await shell.done(`ec2 wait instance-terminated --instance-ids ${server}`);
  await shell.done(`ec2 release-address --allocation-id ${address}`);
}

void test(
  "awscli: prints the same, and exits the same",
  { skip: awsMissing(), timeout: 600_000 },
  async (t) => {
    await using ways = await startTwoWays();
    const direct = new Shell(ways.direct);
    const through = new Shell(ways.through);
    await Promise.all(
      [direct, through].map(async (shell) => {
        const made = await create(shell);
        await work(shell, made);
        await provoke(shell, made);
        await clear(shell, made);
      }),
    );
    const left = new Names();
    const right = new Names();
    for (const [index, line] of direct.typed.entries()) {
      const told = `aws ${line.args.join(" ")}`;
      assert.deepEqual(right.comparable(byLine(through.typed[index])), left.comparable(byLine(line)), told);
    }
    assert.equal(through.typed.length, direct.typed.length);
    const entries = await ways.journal();
    const reading = /^(?:ec2 (?:describe-|wait )|sts )|--dry-run/;
    const changes = through.typed.filter(({ args }) => !reading.test(args.join(" ")));
    assert.deepEqual(
      entries.map(({ outcome }) => outcome?.errorCode ?? outcome?.result),
      changes.map(({ printed }) => /An error occurred \((\S+)\)/.exec(printed.stderr)?.[1] ?? "applied"),
    );
    await assertFoldIsCloud(ways, entries, t.signal);
  },
);
