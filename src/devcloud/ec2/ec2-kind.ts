import type { DialectKind } from "#devcloud/core/dialect.ts";
import { ec2Catalog } from "./ec2-catalog.ts";
import { openEc2Dialect } from "./ec2-dialect.ts";
import { ec2Ids } from "./ec2-id-scheme.ts";

export const ec2Kind: DialectKind = {
  name: "ec2",
  ids: ec2Ids,
  defaults: { region: "us-east-1", user: "AKIADEVCLOUD00000001", accountId: "000000000000" },
  catalog: ec2Catalog,
  open: (cloud, compute, account, snapshots) =>
    openEc2Dialect(cloud, compute, snapshots, {
      accountId: account.id,
      accessKeyId: account.user,
      secretAccessKey: account.secret,
    }),
  /** The AWS clients' own format: `AWS_SHARED_CREDENTIALS_FILE=... aws --endpoint-url ...`. */
  credentials: (account, region) =>
    `[default]\naws_access_key_id = ${account.user}\naws_secret_access_key = ${account.secret.reveal()}\nregion = ${region}\n`,
};
