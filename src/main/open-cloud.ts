/** The one place that names drivers: from a site's configuration to the cloud behind it, and to its API's address. */
import type { Cloud } from "#cloud/contract.ts";
import type { SiteConfig } from "#config/config-schema.ts";
import { resolveSecret } from "#config/resolve-secret.ts";
import { openEc2Cloud } from "#drivers/ec2/ec2-cloud.ts";
import { openHypervisorCloud } from "#drivers/hypervisor/hypervisor-cloud.ts";
import { openOpenstackCloud } from "#drivers/openstack/openstack-cloud.ts";
import type { Clock } from "#kernel/clock.ts";
import type { Log } from "#kernel/log.ts";
import type { Secret } from "#kernel/secret.ts";
import { placeOf, probedAddressOf } from "#main/host-place.ts";
import type { OpenstackCredentials, ScopedRef } from "#wire/openstack/keystone.ts";

export interface CloudPlace {
  /** Where secrets named by relative path stand. */
  readonly folder: string;
  readonly clock: Clock;
  readonly log: Log;
}

type Ec2Site = Extract<SiteConfig, { driver: "ec2" }>;
type OpenstackSite = Extract<SiteConfig, { driver: "openstack" }>;

/** Errors: `config.missing` for a secret that is not there. */
export function openCloud(site: SiteConfig, place: CloudPlace): Cloud {
  const { clock, log } = place;
  switch (site.driver) {
    case "ec2":
      return openEc2Cloud({
        region: site.region,
        credentials: awsCredentials(site, place.folder),
        clock,
        log,
        ...(site.endpoint === undefined ? {} : { endpoint: site.endpoint }),
      });
    case "openstack":
      return openOpenstackCloud({
        authUrl: site.authUrl,
        region: site.region,
        credentials: openstackCredentials(site, place.folder),
        ...openstackProject(site),
        ...(site.publicNetwork === undefined ? {} : { publicNetwork: site.publicNetwork }),
        clock,
        log,
      });
    case "hypervisor":
      return openHypervisorCloud({ place: placeOf(site.host), outbound: site.outbound });
  }
}

/** Where a probe that has no credentials looks for a sign of life. */
export function apiAddressOf(site: SiteConfig): string {
  switch (site.driver) {
    case "ec2":
      return awsEndpoint(site, "ec2");
    case "openstack":
      return site.authUrl;
    case "hypervisor":
      return probedAddressOf(site.host);
  }
}

export function awsEndpoint(site: Ec2Site, service: string): string {
  return site.endpoint ?? `https://${service}.${site.region}.amazonaws.com`;
}

export interface AwsKeys {
  readonly accessKeyId: string;
  readonly secretAccessKey: Secret;
  readonly sessionToken?: Secret;
}

export function awsCredentials(site: Ec2Site, folder: string): AwsKeys {
  const { accessKeyId, secretAccessKey, sessionToken } = site.credentials;
  return {
    accessKeyId: resolveSecret(accessKeyId, folder).reveal(),
    secretAccessKey: resolveSecret(secretAccessKey, folder),
    ...(sessionToken === undefined ? {} : { sessionToken: resolveSecret(sessionToken, folder) }),
  };
}

/** An application credential belongs to a project by itself. */
export function openstackProject(site: OpenstackSite): { readonly project?: ScopedRef } {
  if (!("username" in site.credentials)) return {};
  return { project: { name: site.project, domain: { name: site.projectDomain } } };
}

export function openstackCredentials(site: OpenstackSite, folder: string): OpenstackCredentials {
  const { credentials } = site;
  if ("username" in credentials) {
    return {
      type: "password",
      user: { name: credentials.username, domain: { name: credentials.userDomain } },
      password: resolveSecret(credentials.password, folder),
    };
  }
  return {
    type: "applicationCredential",
    id: credentials.applicationCredentialId,
    secret: resolveSecret(credentials.applicationCredentialSecret, folder),
  };
}
