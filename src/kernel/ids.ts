/** Branded strings: the compiler keeps an environment's id out of a site's place; nothing at run time. */
declare const brand: unique symbol;
export type Id<Name extends string> = string & { readonly [brand]: Name };

export type EnvironmentId = Id<"environment">;
export type SiteId = Id<"site">;
export type RunId = Id<"run">;
/** The id that a cloud gave to a resource (`i-0abc...`, an OpenStack UUID). */
export type ResourceId = Id<"resource">;
/** Ours, one per intercepted command; also the seed of its idempotency token. */
export type CommandId = Id<"command">;

export const environmentId = (text: string): EnvironmentId => text as EnvironmentId;
export const siteId = (text: string): SiteId => text as SiteId;
export const runId = (text: string): RunId => text as RunId;
export const resourceId = (text: string): ResourceId => text as ResourceId;
export const commandId = (text: string): CommandId => text as CommandId;
