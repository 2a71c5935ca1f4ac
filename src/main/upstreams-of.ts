/** Where the gateway forwards an environment's commands: the services of its active site. */
import type { SiteConfig } from "#config/config-schema.ts";
import type { AwsCredentials } from "#gateway/aws/aws-credentials.ts";
import type { UpstreamName, Upstreams, UpstreamService } from "#gateway/dialect.ts";
import { awsCredentials, awsEndpoint } from "#main/open-cloud.ts";

const awsServices = ["ec2", "elasticloadbalancing", "autoscaling", "sts"] as const;

/** One object per site for as long as the process lives, since signing keys are remembered by the secret's object. */
export function upstreamsOf(site: SiteConfig, folder: string): Upstreams {
  const services = new Map<UpstreamName, UpstreamService>();
  if (site.driver === "ec2") {
    const credentials: AwsCredentials = { kind: "aws", ...awsCredentials(site, folder) };
    for (const service of awsServices) {
      services.set(service, { endpoint: awsEndpoint(site, service), region: site.region, credentials });
    }
  }
  return services;
}
