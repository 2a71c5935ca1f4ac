/** Key pairs. */
import type * as Api from "@aws-sdk/client-ec2";
import { findAll } from "#devcloud/core/cloud.ts";
import { createKeyPair, generateKey, parsePublicKey } from "#devcloud/core/key-pairs.ts";
import type { KeyPairRecord } from "#devcloud/core/records.ts";
import { AwsProtocolError } from "#wire/aws/aws-protocol-error.ts";
import { type Answer, type Ec2, type Operation, required, specifiedTags, tagList } from "./ec2-context.ts";
import { invalidValue } from "./ec2-error.ts";
import { compileFilters } from "./ec2-filter.ts";

function byName(ec2: Ec2, name: string): KeyPairRecord {
  const found = ec2.cloud.data.tables.keyPair.by("name", name)[0];
  if (found === undefined) {
    throw new AwsProtocolError("InvalidKeyPair.NotFound", `The key pair '${name}' does not exist`);
  }
  return found;
}

export const keyOperations = {
  CreateKeyPair(ec2: Ec2, input: Api.CreateKeyPairCommandInput): Answer<Api.CreateKeyPairCommandOutput> {
    const name = required(input.KeyName, "keyName");
    if (name.length > 255) throw invalidValue(name, "keyName", "At most 255 characters.");
    const type = input.KeyType ?? "rsa";
    if (type !== "rsa" && type !== "ed25519") throw invalidValue(type, "keyType");
    if (input.KeyFormat !== undefined && input.KeyFormat !== "pem") {
      throw new AwsProtocolError("UnsupportedOperation", "Only the key format pem is supported here.");
    }
    const generated = generateKey(type, name);
    const pair = createKeyPair(ec2.cloud, {
      name,
      publicKey: generated.publicKey,
      fingerprint: generated.fingerprint,
      type,
      tags: specifiedTags(input.TagSpecifications, "key-pair"),
    });
    return {
      KeyPairId: pair.id,
      KeyName: name,
      KeyFingerprint: pair.fingerprint,
      KeyMaterial: generated.privateKey,
      Tags: tagList(pair.tags),
    };
  },

  ImportKeyPair(ec2: Ec2, input: Api.ImportKeyPairCommandInput): Answer<Api.ImportKeyPairCommandOutput> {
    const name = required(input.KeyName, "keyName");
    // The schema's blob is base64 text once decoded.
    const material = required(input.PublicKeyMaterial as unknown as string | undefined, "publicKeyMaterial");
    const publicKey = Buffer.from(material, "base64").toString("utf8").trim();
    const parsed = parsePublicKey(publicKey);
    if (parsed === undefined || parsed.type === "ecdsa") {
      throw new AwsProtocolError("InvalidKey.Format", "Key is not in valid OpenSSH public key format");
    }
    const pair = createKeyPair(ec2.cloud, {
      name,
      publicKey,
      fingerprint: parsed.ec2Fingerprint,
      type: parsed.type,
      tags: specifiedTags(input.TagSpecifications, "key-pair"),
    });
    return {
      KeyPairId: pair.id,
      KeyName: name,
      KeyFingerprint: pair.fingerprint,
      Tags: tagList(pair.tags),
    };
  },

  /** Deleting one that is not there succeeds, as in EC2. */
  DeleteKeyPair(ec2: Ec2, input: Api.DeleteKeyPairCommandInput): Answer<Api.DeleteKeyPairCommandOutput> {
    const { keyPair } = ec2.cloud.data.tables;
    if (input.KeyPairId === undefined) required(input.KeyName, "keyName");
    const pair =
      input.KeyPairId === undefined
        ? keyPair.by("name", input.KeyName ?? "")[0]
        : keyPair.get(input.KeyPairId);
    if (pair === undefined) return { Return: true };
    keyPair.delete(pair.id);
    return { Return: true, KeyPairId: pair.id };
  },

  DescribeKeyPairs(
    ec2: Ec2,
    input: Api.DescribeKeyPairsCommandInput,
  ): Answer<Api.DescribeKeyPairsCommandOutput> {
    const keep = compileFilters<KeyPairRecord>(input.Filters, {
      "key-name": (pair) => pair.name,
      "key-pair-id": (pair) => pair.id,
      fingerprint: (pair) => pair.fingerprint,
    });
    const names = input.KeyNames ?? [];
    const ids = input.KeyPairIds ?? [];
    const chosen =
      names.length + ids.length > 0
        ? [...names.map((name) => byName(ec2, name)), ...findAll(ec2.cloud, "keyPair", ids)]
        : [...ec2.cloud.data.tables.keyPair.values()];
    return {
      KeyPairs: chosen.filter(keep).map((pair) => ({
        KeyPairId: pair.id,
        KeyName: pair.name,
        KeyFingerprint: pair.fingerprint,
        KeyType: pair.type as Api.KeyType,
        CreateTime: new Date(pair.createdAt),
        Tags: tagList(pair.tags),
        ...(input.IncludePublicKey === true ? { PublicKey: pair.publicKey } : {}),
      })),
    };
  },
} satisfies Readonly<Record<string, Operation>>;
