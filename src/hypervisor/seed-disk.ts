/** User data as a cloud gives it: a disk that cloud-init's NoCloud source reads, and the small guest too. */
import { encodeIso9660 } from "./iso9660.ts";
import { type MachineSpec, SEED_DISK } from "./machine-spec.ts";

/** cloud-init, "NoCloud": a volume labelled `cidata` with `meta-data` and `user-data`. */
export function encodeSeed(spec: MachineSpec, instanceId: string): Buffer {
  // JSON is YAML: whatever a key's comment holds, it stays a string.
  const keys = spec.publicKeys === undefined ? "" : `public-keys: ${JSON.stringify(spec.publicKeys)}\n`;
  return encodeIso9660(SEED_DISK, {
    "meta-data": `instance-id: ${instanceId}\nlocal-hostname: ${spec.hostname ?? spec.id}\n${keys}`,
    "user-data": spec.userData ?? "",
  });
}
