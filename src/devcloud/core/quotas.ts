/** What an account may hold at most. Defaults are near those of a new AWS account, with more servers. */
import { refuse, type QuotaName } from "./refusal.ts";

export type Quotas = Readonly<Record<QuotaName, number>>;

export const defaultQuotas: Quotas = {
  servers: 2000,
  vcpus: 8000,
  networks: 50,
  subnetsPerNetwork: 200,
  gateways: 50,
  groups: 2500,
  rulesPerGroup: 60,
  groupsPerPort: 5,
  keyPairs: 5000,
  volumes: 5000,
  volumeGiB: 100_000,
  addresses: 200,
  tagsPerResource: 50,
};

/** Refuses when `held + wanted` is more than the quota. */
export function checkQuota(quotas: Quotas, quota: QuotaName, held: number, wanted = 1): void {
  if (held + wanted > quotas[quota]) refuse({ code: "quota", quota, limit: quotas[quota], held, wanted });
}
