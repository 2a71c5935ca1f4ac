/**
 * Why the cloud says no, in terms of no dialect: each dialect renders its own codes and messages. Thrown inside a
 * transaction, so that a refusal half-way undoes what came before it.
 */
import type { RecordKind } from "#devcloud/core/records.ts";

export type RefusalReason =
  | { readonly code: "not_found"; readonly kind: RecordKind; readonly ids: readonly string[] }
  | { readonly code: "malformed_id"; readonly kind: RecordKind; readonly id: string }
  /** The resource is held by others, `by` names one of them. */
  | {
      readonly code: "in_use";
      readonly kind: RecordKind;
      readonly id: string;
      readonly by?: { readonly kind: RecordKind; readonly id: string };
    }
  | { readonly code: "duplicate"; readonly kind: RecordKind; readonly name: string; readonly within?: string }
  | { readonly code: "wrong_state"; readonly kind: RecordKind; readonly id: string; readonly state: string }
  | {
      readonly code: "quota";
      readonly quota: QuotaName;
      readonly limit: number;
      readonly held: number;
      readonly wanted: number;
    }
  /** The account may, but the cloud's hosts cannot. */
  | { readonly code: "no_capacity"; readonly type: string; readonly zone: string }
  /** Overlaps a sibling. */
  | { readonly code: "cidr_conflict"; readonly cidr: string; readonly with: string }
  /** Not a prefix, or one of a length that is not allowed, or outside its network. */
  | {
      readonly code: "cidr_invalid";
      readonly kind: RecordKind;
      readonly cidr: string;
      readonly reason: "syntax" | "size" | "outside";
    }
  | { readonly code: "no_free_address"; readonly subnetId: string }
  | { readonly code: "address_in_use"; readonly ip: string }
  | { readonly code: "token_mismatch"; readonly token: string }
  | {
      readonly code: "already_associated";
      readonly kind: RecordKind;
      readonly id: string;
      readonly to: string;
    }
  | {
      readonly code: "not_associated";
      readonly kind: RecordKind;
      readonly id: string;
      readonly from?: string;
    }
  /** Resources of two networks or zones cannot be joined. */
  | { readonly code: "crosses"; readonly boundary: "network" | "zone"; readonly ids: readonly string[] }
  | { readonly code: "protected"; readonly id: string; readonly against: "termination" | "stop" }
  | { readonly code: "missing"; readonly field: string }
  | { readonly code: "invalid"; readonly field: string; readonly value: string; readonly message: string }
  | { readonly code: "not_permitted"; readonly message: string };

export type QuotaName =
  | "servers"
  | "vcpus"
  | "networks"
  | "subnetsPerNetwork"
  | "gateways"
  | "groups"
  | "rulesPerGroup"
  | "groupsPerPort"
  | "keyPairs"
  | "volumes"
  | "volumeGiB"
  | "addresses"
  | "tagsPerResource";

export class Refusal extends Error {
  override readonly name = "Refusal";
  readonly reason: RefusalReason;

  constructor(reason: RefusalReason) {
    super(`refused: ${JSON.stringify(reason)}`);
    this.reason = reason;
  }
}

export function refuse(reason: RefusalReason): never {
  throw new Refusal(reason);
}
