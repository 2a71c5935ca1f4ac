/** OpenStack's ids: UUIDs for what services make, 32 hexadecimal digits for what Keystone makes. */
import { createHash } from "node:crypto";
import type { IdScheme } from "#devcloud/core/cloud.ts";

export const openstackIds: IdScheme = {
  make: (_kind, random) => random.uuid(),
  // The services look any text up and answer 404.
  wellFormed: () => true,
};

/** The same name has the same id in every run, so that configurations that hold ids stay good. */
export function keystoneId(kind: string, name: string): string {
  return createHash("sha256").update(`${kind}/${name}`).digest("hex").slice(0, 32);
}

/** Likewise, as a UUID (RFC 9562, version 8). */
export function stableUuid(kind: string, name: string): string {
  const hex = keystoneId(kind, name);
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-8${hex.slice(13, 16)}-8${hex.slice(17, 20)}-${hex.slice(20)}`;
}
