import { createHmac } from "node:crypto";
import type { Account, DialectKind } from "#devcloud/core/dialect.ts";
import { Secret } from "#kernel/secret.ts";
import type { Identity } from "./keystone-identity.ts";
import { openstackCatalog } from "./openstack-catalog.ts";
import { openOpenstackDialect } from "./openstack-dialect.ts";
import { keystoneId, openstackIds } from "./openstack-ids.ts";

const HOUR_MS = 3_600_000;
const RESIZE_MS = 100;
const domain = { id: "default", name: "Default" };

/** One secret is kept on disk, the password; the others follow from it. */
function derived(account: Account, purpose: string): Secret {
  return new Secret(createHmac("sha256", account.secret.reveal()).update(purpose).digest("base64url"));
}

export function identityOf(account: Account): Identity {
  return {
    user: { id: keystoneId("user", account.user), name: account.user },
    project: { id: account.id, name: account.user },
    domain,
    password: account.secret,
    applicationCredential: {
      id: keystoneId("application credential", account.user),
      name: "understudy",
      secret: derived(account, "application credential"),
    },
    tokenKey: derived(account, "token key"),
    tokenLifeMs: HOUR_MS,
  };
}

const userName = "understudy";

export const openstackKind: DialectKind = {
  name: "openstack",
  ids: openstackIds,
  defaults: {
    region: "RegionOne",
    user: userName,
    accountId: keystoneId("project", userName),
    // Nova's default number of metadata items.
    quotas: { tagsPerResource: 128 },
  },
  catalog: openstackCatalog,
  open: async (cloud, compute, account) =>
    openOpenstackDialect(cloud, compute, { identity: identityOf(account), resizeMs: RESIZE_MS }),
  /** A clouds.yaml: `OS_CLIENT_CONFIG_FILE=... OS_CLOUD=devcloud openstack server list`. */
  credentials: (account, region, endpoint) => {
    const { applicationCredential: credential, project } = identityOf(account);
    const text = JSON.stringify;
    return `clouds:
  devcloud:
    region_name: ${text(region)}
    identity_api_version: 3
    auth:
      auth_url: ${text(`${endpoint}/identity/v3`)}
      username: ${text(account.user)}
      password: ${text(account.secret.reveal())}
      project_name: ${text(project.name)}
      user_domain_name: Default
      project_domain_name: Default
  devcloud-application-credential:
    region_name: ${text(region)}
    identity_api_version: 3
    auth_type: v3applicationcredential
    auth:
      auth_url: ${text(`${endpoint}/identity/v3`)}
      application_credential_id: ${text(credential.id)}
      application_credential_secret: ${text(credential.secret.reveal())}
`;
  },
};
