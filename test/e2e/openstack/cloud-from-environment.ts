/** The cloud that the environment names, by the variables of an openrc file. */
import { systemClock } from "#kernel/clock.ts";
import { silentLog } from "#kernel/log.ts";
import { Secret } from "#kernel/secret.ts";
import type { Cloud } from "#cloud/contract.ts";
import { openOpenstackCloud } from "#drivers/openstack/openstack-cloud.ts";
import type { OpenstackCloudOptions } from "#drivers/openstack/openstack-options.ts";
import type { OpenstackCredentials } from "#wire/openstack/keystone.ts";

const { env } = process;

function need(name: string): string {
  const value = env[name];
  if (value !== undefined && value !== "") return value;
  throw new Error(
    `${name} is not set: this suite runs against a real OpenStack; load the openrc file of a project that may be written to (docs/guide/testing-against-openstack.md)`,
  );
}

function domain(name: string | undefined, id: string | undefined): { name: string } | { id: string } {
  return id === undefined ? { name: name ?? "Default" } : { id };
}

function credentials(): OpenstackCredentials {
  const id = env["OS_APPLICATION_CREDENTIAL_ID"];
  if (id !== undefined) {
    const secret = new Secret(need("OS_APPLICATION_CREDENTIAL_SECRET"));
    return { type: "applicationCredential", id, secret };
  }
  return {
    type: "password",
    user: {
      name: need("OS_USERNAME"),
      domain: domain(env["OS_USER_DOMAIN_NAME"], env["OS_USER_DOMAIN_ID"]),
    },
    password: new Secret(need("OS_PASSWORD")),
  };
}

export function optionsFromEnvironment(): OpenstackCloudOptions {
  const login = credentials();
  const projectDomain = domain(env["OS_PROJECT_DOMAIN_NAME"], env["OS_PROJECT_DOMAIN_ID"]);
  const region = env["OS_REGION_NAME"];
  const publicNetwork = env["OS_PUBLIC_NETWORK"];
  return {
    authUrl: need("OS_AUTH_URL"),
    credentials: login,
    ...(login.type === "applicationCredential"
      ? {}
      : { project: { name: need("OS_PROJECT_NAME"), domain: projectDomain } }),
    ...(region === undefined ? {} : { region }),
    ...(publicNetwork === undefined ? {} : { publicNetwork }),
    clock: systemClock,
    log: silentLog,
  };
}

export function openFromEnvironment(more: Partial<OpenstackCloudOptions> = {}): Cloud {
  return openOpenstackCloud({ ...optionsFromEnvironment(), ...more });
}
