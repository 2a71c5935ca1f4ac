import type { SigV4Credentials } from "#wire/aws/sigv4.ts";
import { invariant } from "#kernel/invariant.ts";
import type { UpstreamCredentials, UpstreamService } from "#gateway/dialect.ts";

/** Real AWS credentials: one object for as long as they are good, since signing keys are remembered by their secret. */
export interface AwsCredentials extends UpstreamCredentials, SigV4Credentials {
  readonly kind: "aws";
}

export function awsCredentialsOf(upstream: UpstreamService): AwsCredentials {
  const { credentials } = upstream;
  invariant(
    credentials.kind === "aws",
    "an AWS service needs AWS credentials: the configuration is checked for that",
  );
  return credentials as AwsCredentials;
}
