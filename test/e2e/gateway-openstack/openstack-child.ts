// A gateway before an OpenStack.
import { KeystoneAccess, type OpenstackUpstreamCredentials } from "#gateway/openstack/openstack-access.ts";
import { createOpenstackDialect } from "#gateway/openstack/openstack-dialect.ts";
import { Secret } from "#kernel/secret.ts";
import { type ChildOptions, childOptions, runGatewayChild } from "../gateway/gateway-child.ts";

export interface OpenstackChildOptions extends ChildOptions {
  readonly authUrl: string;
  readonly region: string;
  readonly user: string;
  readonly password: string;
}

const options = childOptions() as OpenstackChildOptions;
await runGatewayChild(options, (parts) => {
  const { authUrl, region, user: name } = options;
  const access = new KeystoneAccess({
    authUrl,
    region,
    credentials: { type: "password", user: { name }, password: new Secret(options.password) },
    project: { name },
    clock: parts.clock,
  });
  const credentials: OpenstackUpstreamCredentials = { kind: "openstack", access };
  return {
    services: new Map([["openstack", { endpoint: authUrl, region, credentials }]]),
    dialect: createOpenstackDialect(parts),
    close: () => access[Symbol.asyncDispose](),
  };
});
