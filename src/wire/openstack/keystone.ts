/** Keystone v3, as far as a scoped token and its catalogue. Source: Identity API v3, `POST /v3/auth/tokens`. */
import { z } from "zod";
import type { Secret } from "#kernel/secret.ts";

const named = z.object({ id: z.string().optional(), name: z.string().optional() });

const endpointSchema = z.object({
  interface: z.string(),
  region: z.string().nullish(),
  region_id: z.string().nullish(),
  url: z.string(),
});

const catalogueEntrySchema = z.object({
  type: z.string(),
  name: z.string().optional(),
  endpoints: z.array(endpointSchema).default([]),
});
export type CatalogueEntry = z.infer<typeof catalogueEntrySchema>;

export const tokenResponseSchema = z.object({
  token: z.object({
    expires_at: z.string(),
    user: z.object({ id: z.string(), name: z.string() }),
    project: z.object({ id: z.string(), name: z.string() }).optional(),
    catalog: z.array(catalogueEntrySchema).default([]),
  }),
});
export type TokenResponse = z.infer<typeof tokenResponseSchema>;

const userSchema = named.extend({ domain: named.optional() });
export const tokenRequestSchema = z.object({
  auth: z.object({
    identity: z.object({
      methods: z.array(z.string()).min(1).max(8),
      password: z.object({ user: userSchema.extend({ password: z.string() }) }).optional(),
      application_credential: named.extend({ secret: z.string(), user: userSchema.optional() }).optional(),
      token: z.object({ id: z.string() }).optional(),
    }),
    scope: z
      .union([z.object({ project: userSchema }), z.object({ domain: named }), z.string(), z.looseObject({})])
      .optional(),
  }),
});
export type TokenRequest = z.infer<typeof tokenRequestSchema>;

/** By id, or by name within a domain. */
export interface DomainRef {
  readonly id?: string;
  readonly name?: string;
}

export interface ScopedRef {
  readonly id?: string;
  readonly name?: string;
  readonly domain?: DomainRef;
}

export type OpenstackCredentials =
  | { readonly type: "password"; readonly user: ScopedRef; readonly password: Secret }
  /** Scoped to its project by itself. By id, or by name with its user. */
  | {
      readonly type: "applicationCredential";
      readonly id?: string;
      readonly name?: string;
      readonly user?: ScopedRef;
      readonly secret: Secret;
    }
  | { readonly type: "token"; readonly token: Secret };

function withDomain(ref: ScopedRef): z.infer<typeof userSchema> {
  if (ref.id !== undefined) return { id: ref.id };
  return { name: ref.name ?? "", domain: { ...(ref.domain ?? { name: "Default" }) } };
}

/** The one place where credentials leave their `Secret`. */
export function tokenRequest(
  credentials: OpenstackCredentials,
  project: ScopedRef | undefined,
): TokenRequest {
  const scope = project === undefined ? {} : { scope: { project: withDomain(project) } };
  switch (credentials.type) {
    case "password": {
      const user = { ...withDomain(credentials.user), password: credentials.password.reveal() };
      return { auth: { identity: { methods: ["password"], password: { user } }, ...scope } };
    }
    case "applicationCredential": {
      const { id, name, user } = credentials;
      const credential =
        id !== undefined ? { id } : { ...(name === undefined ? {} : { name }), user: withDomain(user ?? {}) };
      return {
        auth: {
          identity: {
            methods: ["application_credential"],
            application_credential: { ...credential, secret: credentials.secret.reveal() },
          },
        },
      };
    }
    case "token":
      return {
        auth: { identity: { methods: ["token"], token: { id: credentials.token.reveal() } }, ...scope },
      };
  }
}

export type OpenstackService = "identity" | "compute" | "network" | "image" | "volume";

const serviceTypes: Readonly<Record<OpenstackService, readonly string[]>> = {
  identity: ["identity"],
  compute: ["compute"],
  network: ["network"],
  image: ["image"],
  // Official type first (service-types authority), then its aliases; `volume` itself was Cinder v1.
  volume: ["block-storage", "volumev3", "block-store"],
};

/** The service's address in the catalogue; an endpoint without a region serves every region. */
export function findEndpoint(
  catalogue: readonly CatalogueEntry[],
  service: OpenstackService,
  want: { readonly region?: string; readonly interface: string },
): string | undefined {
  for (const type of serviceTypes[service]) {
    for (const entry of catalogue) {
      if (entry.type !== type) continue;
      const found = entry.endpoints.find((endpoint) => {
        const region = endpoint.region_id ?? endpoint.region ?? undefined;
        const regionFits = want.region === undefined || region === undefined || region === want.region;
        return regionFits && endpoint.interface.replace(/URL$/, "") === want.interface;
      });
      if (found !== undefined) return found.url;
    }
  }
  return undefined;
}
