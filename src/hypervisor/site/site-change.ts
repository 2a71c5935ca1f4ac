/** What a change of a resource comes to on a bare host. Pure. */
import { refuse } from "#cloud/resource-book.ts";
import { canonicalJson } from "#kernel/json.ts";
import type { Resource, ResourceKind } from "#model/resource.ts";

/** What of each kind can be changed; all else is made anew. */
const changeable: Readonly<Record<ResourceKind, readonly string[]>> = {
  network: ["cidr", "internet"],
  subnet: ["publicAddresses", "zone"],
  securityGroup: ["name", "description"],
  securityGroupRule: ["description"],
  keyPair: [],
  volume: ["sizeGiB", "type", "zone", "iops"],
  address: [],
  server: ["type", "power", "groupIds", "userData", "keyName", "publicAddress"],
  volumeAttachment: ["deleteOnTermination"],
  addressAssociation: [],
};

/** What a guest is told of at its boot. */
const bootFields = ["type", "userData", "keyName"] as const;

export interface PlannedChange {
  readonly next: Resource;
  /** Its guest has to be booted, or booted anew. */
  readonly boots: boolean;
}

/** `failed`: the server did not start; that it is to run means another attempt. Errors: `cloud.unsupported`, `cloud.refused`. */
export function planChange(held: Resource, set: object, failed: boolean): PlannedChange {
  const before = held.spec as unknown as Readonly<Record<string, unknown>>;
  for (const [field, value] of Object.entries(set)) {
    if (changeable[held.kind].includes(field) || canonicalJson(value) === canonicalJson(before[field]))
      continue;
    const message = `\`${field}\` of a ${held.kind} cannot be changed there: make another one`;
    throw refuse("cloud.unsupported", "NotChangeable", message);
  }
  const next = { ...held, spec: { ...held.spec, ...set } } as Resource;
  if (next.kind === "volume" && held.kind === "volume" && next.spec.sizeGiB < held.spec.sizeGiB) {
    throw refuse(
      "cloud.refused",
      "VolumeShrinks",
      `volume ${held.id} has ${held.spec.sizeGiB} GiB: disks only grow`,
    );
  }
  return { next, boots: needsBoot(held, next, "power" in set && failed) };
}

function needsBoot(held: Resource, next: Resource, again: boolean): boolean {
  if (held.kind !== "server" || next.kind !== "server" || next.spec.power !== "running") return false;
  if (held.spec.power === "stopped" || again) return true;
  return bootFields.some((field) => held.spec[field] !== next.spec[field]);
}
