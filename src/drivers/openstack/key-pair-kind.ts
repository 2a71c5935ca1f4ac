/**
 * Key pairs are their name. Nova keeps the public key as it was given, comment and all, so that token and scope stand
 * at the end of the comment.
 */
import { OperationalError, isOperational } from "#kernel/errors.ts";
import { keypairResponseSchema, keypairSchema } from "#wire/openstack/nova.ts";
import { keyPairFromBody, keyPairMarker } from "#wire/openstack/openstack-resources.ts";
import { markerFor, markerText } from "#wire/openstack/openstack-tags.ts";
import { z } from "zod";
import type { Calls } from "./calls.ts";
import type { KindDriver } from "./kind-driver.ts";
import { noTags, onlyUpdates } from "./kind-driver.ts";

const listedSchema = z.object({ keypair: keypairSchema });

function pathOf(name: string): string {
  return `/os-keypairs/${encodeURIComponent(name)}`;
}

export function keyPairKind(): KindDriver<"keyPair"> {
  const existing = async (name: string, calls: Calls): Promise<z.infer<typeof keypairSchema> | undefined> =>
    (await calls.find("compute", pathOf(name), keypairResponseSchema))?.keypair;

  return {
    async create({ spec, token, scope }, calls) {
      if (spec.publicKey === undefined) {
        throw new OperationalError(
          "cloud.unsupported",
          `the public key of key pair ${spec.name} is not known, and a new pair would have another one: import it`,
        );
      }
      const marker = markerFor(scope, token);
      const public_key = `${spec.publicKey.trim()} ${markerText(marker)}`;
      try {
        await calls.act("POST", "compute", "/os-keypairs", { keypair: { name: spec.name, public_key } });
        return keyPairFromBody({ name: spec.name, public_key });
      } catch (error) {
        if (!isOperational(error, "cloud.conflict")) throw error;
        const known = await existing(spec.name, calls);
        if (known === undefined) throw error;
        if (keyPairMarker(known)?.tokenDigest === marker.tokenDigest) return keyPairFromBody(known);
        throw new OperationalError(
          "cloud.conflict",
          `there is another key pair ${spec.name}: delete or rename it`,
          { retry: "never", cause: error },
        );
      }
    },

    async get(id, calls) {
      const known = await existing(id, calls);
      return known === undefined ? undefined : keyPairFromBody(known);
    },

    async *list(_filter, calls) {
      const pages = calls.pages("compute", "/os-keypairs", "keypairs", listedSchema, {
        markerOf: ({ keypair }) => keypair.name,
      });
      for await (const page of pages) {
        yield page.map(({ keypair }) => ({
          mapped: keyPairFromBody(keypair),
          scopeDigest: keyPairMarker(keypair)?.scopeDigest,
        }));
      }
    },

    async update(_id, set) {
      onlyUpdates("keyPair", set, []);
    },

    async setTags() {
      throw noTags("keyPair");
    },

    async delete(id, calls) {
      await calls.remove("compute", pathOf(id));
    },
  };
}
