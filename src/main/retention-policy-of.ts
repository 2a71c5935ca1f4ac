import type { VaultConfig } from "#config/config-schema.ts";
import type { RetentionPolicy } from "#vault/plan-retention.ts";

/** The configuration's words as the vault's policy. */
export function retentionPolicyOf({ keepAll, rules }: VaultConfig["retention"]): RetentionPolicy {
  return { keepAllMs: keepAll, rules: rules.map(({ every, for: forMs }) => ({ every, forMs })) };
}
