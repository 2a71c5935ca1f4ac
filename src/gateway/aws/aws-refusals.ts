/** What this gateway refuses of the AWS services, and how it says so. */
import { createRequire } from "node:module";
import type { AwsService } from "#wire/aws/service-model.ts";
import type { AwsRefusal } from "./aws-problem.ts";

/** STS hands out credentials of the cloud itself; only what gives none away passes. */
export const stsReads: ReadonlySet<string> = new Set([
  "GetCallerIdentity",
  "GetAccessKeyInfo",
  "DecodeAuthorizationMessage",
]);

export function stsRefusal(operation: string): AwsRefusal {
  return {
    code: "AccessDenied",
    status: 403,
    message: `${operation} would hand out credentials of the cloud itself, past this gateway. Use an access key of the gateway.`,
  };
}

const clients: Record<AwsService["name"], string> = {
  ec2: "@aws-sdk/client-ec2",
  elasticloadbalancing: "@aws-sdk/client-elastic-load-balancing-v2",
  autoscaling: "@aws-sdk/client-auto-scaling",
  sts: "@aws-sdk/client-sts",
};

export function unknownAction(service: AwsService, action: string): AwsRefusal {
  const client = clients[service.name];
  return {
    code: "InvalidAction",
    status: 400,
    message: `The action ${action.slice(0, 100)} is not valid for this web service: this release knows ${service.name} ${service.apiVersion} as of ${client} ${clientVersion(client)}. Update Understudy, or let unknown operations pass in understudy.yaml.`,
  };
}

/** Elastic Load Balancing has two APIs at one endpoint, with operations of the same names; only the newer is understood. */
export function versionRefusal(service: AwsService, version: string | undefined): AwsRefusal | undefined {
  if (version === undefined || version === service.apiVersion || service.name === "ec2") return undefined;
  return {
    code: "InvalidAction",
    status: 400,
    message: `Version ${version.slice(0, 20)} of ${service.name} is not spoken here, only ${service.apiVersion}.`,
  };
}

const require = createRequire(import.meta.url);

function clientVersion(client: string): string {
  const { version } = require(`${client}/package.json`) as { readonly version: string };
  return version;
}
