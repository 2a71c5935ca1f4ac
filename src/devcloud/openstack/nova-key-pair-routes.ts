/** Key pairs: their name is their id. */
import { z } from "zod";
import { createKeyPair, generateKey, parsePublicKey } from "#devcloud/core/key-pairs.ts";
import type { KeyPairRecord } from "#devcloud/core/records.ts";
import { type Answer, empty, json } from "./answer.ts";
import { type Call, type Route, bodyOf, isoSeconds, param } from "./api-call.ts";
import { ApiError, badRequest, quoted } from "./api-error.ts";
import { markerPage, nextLinks } from "./marker-page.ts";
import { versionAtLeast } from "./microversion.ts";

const createSchema = z.object({
  keypair: z.strictObject({
    name: z.string().min(1).max(255),
    public_key: z.string().max(16_384).optional(),
    type: z.enum(["ssh"]).optional(),
    user_id: z.string().optional(),
  }),
});

function keyBody(call: Call, key: KeyPairRecord): Record<string, unknown> {
  return {
    name: key.name,
    public_key: key.publicKey,
    fingerprint: key.fingerprint,
    ...(versionAtLeast(call.microversion, "2.2") ? { type: "ssh" } : {}),
  };
}

function postKey(call: Call): Answer {
  const { keypair: asked } = bodyOf(call, createSchema);
  if (!/^[a-zA-Z0-9 _\-.@]+$/.test(asked.name) || asked.name.trim() === "") {
    throw badRequest(`Keypair data is invalid: Keypair name contains unsafe characters`);
  }
  const { keyPair } = call.cloud.data.tables;
  if (keyPair.countBy("name", asked.name) > 0) {
    throw new ApiError(409, `Key pair '${quoted(asked.name)}' already exists.`);
  }
  const made = asked.public_key === undefined ? generateKey("rsa", "Generated-by-Nova") : undefined;
  const publicKey = asked.public_key ?? made?.publicKey ?? "";
  const parsed = parsePublicKey(publicKey);
  if (parsed === undefined) throw badRequest("Keypair data is invalid: failed to generate fingerprint");
  const key = createKeyPair(call.cloud, {
    name: asked.name,
    publicKey,
    fingerprint: parsed.md5,
    type: parsed.type,
  });
  return json(versionAtLeast(call.microversion, "2.2") ? 201 : 200, {
    keypair: {
      ...keyBody(call, key),
      user_id: call.openstack.identity.user.id,
      ...(made === undefined ? {} : { private_key: made.privateKey }),
    },
  });
}

function namedKey(call: Call): KeyPairRecord {
  const name = param(call);
  const [key] = call.cloud.data.tables.keyPair.by("name", name);
  if (key !== undefined) return key;
  throw new ApiError(404, `Keypair ${quoted(name)} not found for user ${call.openstack.identity.user.id}`);
}

function getKey(call: Call): Answer {
  const key = namedKey(call);
  return json(200, {
    keypair: {
      ...keyBody(call, key),
      user_id: call.openstack.identity.user.id,
      created_at: isoSeconds(key.createdAt).slice(0, -1),
      deleted: false,
      deleted_at: null,
      updated_at: null,
      id: 1,
    },
  });
}

function deleteKey(call: Call): Answer {
  call.cloud.data.tables.keyPair.delete(namedKey(call).id);
  return empty(versionAtLeast(call.microversion, "2.2") ? 204 : 202);
}

function listKeys(call: Call): Answer {
  const all = [...call.cloud.data.tables.keyPair.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
  if (!versionAtLeast(call.microversion, "2.35")) {
    return json(200, { keypairs: all.map((key) => ({ keypair: keyBody(call, key) })) });
  }
  const { items, next } = markerPage(
    call,
    all,
    () => true,
    ({ name }) => name,
  );
  return json(200, {
    keypairs: items.map((key) => ({ keypair: keyBody(call, key) })),
    ...nextLinks("keypairs", `${call.base}/compute/v2.1/os-keypairs`, next),
  });
}

const service = "compute" as const;
export const keyPairRoutes: readonly Route[] = [
  { service, method: "GET", path: "/os-keypairs", handler: listKeys },
  { service, method: "POST", path: "/os-keypairs", handler: postKey },
  { service, method: "GET", path: "/os-keypairs/{name}", handler: getKey },
  { service, method: "DELETE", path: "/os-keypairs/{name}", handler: deleteKey },
];
