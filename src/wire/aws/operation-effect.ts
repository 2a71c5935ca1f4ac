/**
 * Whether an operation only reads. The rule is by name, since no AWS model says it, and it errs to one side: what is not
 * surely a read is a change (recording a read costs a journal entry, missing a change costs the copy).
 *
 * Rule: the verbs Describe, Get, List and Search read, except the operations named below. Nothing else reads, not even
 * Export*, Validate* or Confirm*.
 */
import type { AwsServiceName } from "./service-name.ts";

const readVerb = /^(?:Describe|Get|List|Search)[A-Z]/;

/** Operations with a reading verb that nevertheless change or issue something, and why. */
export const changesDespiteTheirName: ReadonlyMap<`${AwsServiceName}:${string}`, string> = new Map([
  ["ec2:GetConsoleScreenshot", "WakeUp sends a key stroke to the guest and wakes it from standby"],
  ["ec2:GetFlowLogsIntegrationTemplate", "writes a CloudFormation template to the given S3 bucket"],
  ["sts:GetSessionToken", "issues credentials"],
  ["sts:GetFederationToken", "issues credentials"],
  ["sts:GetDelegatedAccessToken", "issues credentials"],
  ["sts:GetWebIdentityToken", "issues credentials"],
]);

export function isReadOnly(service: AwsServiceName, operation: string): boolean {
  return readVerb.test(operation) && !changesDespiteTheirName.has(`${service}:${operation}`);
}
