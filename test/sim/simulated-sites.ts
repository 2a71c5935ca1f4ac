import type { MemoryCloud } from "#drivers/memory/memory-cloud.ts";
import type { Site } from "#takeover/stage.ts";

export const siteNames = ["east", "west"] as const;
export type SiteName = (typeof siteNames)[number];

export interface SimulatedSite {
  readonly cloud: MemoryCloud;
  readonly site: Site;
  /** Nothing answers there. */
  down: boolean;
}
