/** Where the gateway forwards an environment's commands: the services of its active site. */
import type { SiteConfig } from "#config/config-schema.ts";
import type { AwsCredentials } from "#gateway/aws/aws-credentials.ts";
import type { UpstreamName, Upstreams, UpstreamService } from "#gateway/dialect.ts";
import { KeystoneAccess, type OpenstackUpstreamCredentials } from "#gateway/openstack/openstack-access.ts";
import type { Clock } from "#kernel/clock.ts";
import { awsCredentials, awsEndpoint, openstackCredentials, openstackProject } from "#main/open-cloud.ts";

const awsServices = ["ec2", "elasticloadbalancing", "autoscaling", "sts"] as const;

/** One object per site for as long as the process lives, since signing keys and tokens are remembered by it. */
export function upstreamsOf(site: SiteConfig, folder: string, clock: Clock): Upstreams {
  const services = new Map<UpstreamName, UpstreamService>();
  switch (site.driver) {
    case "ec2": {
      const credentials: AwsCredentials = { kind: "aws", ...awsCredentials(site, folder) };
      for (const service of awsServices) {
        services.set(service, { endpoint: awsEndpoint(site, service), region: site.region, credentials });
      }
      return services;
    }
    case "openstack": {
      const { authUrl, region } = site;
      const access = new KeystoneAccess({
        authUrl,
        region,
        credentials: openstackCredentials(site, folder),
        ...openstackProject(site),
        clock,
      });
      const credentials: OpenstackUpstreamCredentials = { kind: "openstack", access };
      services.set("openstack", { endpoint: authUrl, region, credentials });
      return services;
    }
    case "hypervisor":
      // A bare host has no API that users' tools speak.
      return services;
  }
}
