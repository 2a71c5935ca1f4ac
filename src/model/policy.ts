/** What a user decides once, in understudy.yaml; plain data. */
import type { Tags } from "#model/resource.ts";

/** How the standby's servers grow with the active site's. */
export type ReserveScale =
  | { readonly mode: "none" }
  | { readonly mode: "full" }
  | {
      readonly mode: "ratio";
      /** In (0, 1]: 0.2 holds one server in five. */
      readonly ratio: number;
      readonly minimumPerGroup: number;
      /** Servers with the same value of this tag form a group (a tier). */
      readonly groupBy: string;
    };

export interface ReservePolicy {
  readonly servers: ReserveScale;
  /** Only servers that bear all these tags have a reserve; empty: all. */
  readonly onlyTags: Tags;
  /** Reserve servers use the smallest type that the site has, and are resized at takeover. */
  readonly smallerTypes: boolean;
  /** Volumes cost money: hold those of reserve servers only, or all. */
  readonly volumes: "with_servers" | "all";
  /**
   * Volumes that bear all these tags come back from the vault: no idle copy of them is held, nor of the servers that they are
   * attached to, which would run without their data. Absent or null: no volume does.
   */
  readonly recovered?: Tags | null;
}

/** `wait`: return by itself once the source is healthy; `swap`: exchange the roles; `manual`: a person decides. */
export type ReturnPolicy = "wait" | "swap" | "manual";
