// A gateway before an EC2.
import type { AwsCredentials } from "#gateway/aws/aws-credentials.ts";
import { openAwsDialect } from "#gateway/aws/aws-dialect.ts";
import { Secret } from "#kernel/secret.ts";
import { type ChildOptions, childOptions, runGatewayChild } from "./gateway-child.ts";

export interface Ec2ChildOptions extends ChildOptions {
  readonly endpoint: string;
  readonly region: string;
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
}

const options = childOptions() as Ec2ChildOptions;
await runGatewayChild(options, async (parts) => {
  const { endpoint, region, accessKeyId } = options;
  const secretAccessKey = new Secret(options.secretAccessKey);
  const credentials: AwsCredentials = { kind: "aws", accessKeyId, secretAccessKey };
  return {
    services: new Map([["ec2", { endpoint, region, credentials }]]),
    dialect: await openAwsDialect(parts),
  };
});
