/** Which vault a command means: the configuration's, or a store and a key that were named on the command line. */
import { resolve } from "node:path";
import type { VaultFlags } from "#cli/vault-tools.ts";
import type { VaultConfig } from "#config/config-schema.ts";
import { readConfig } from "#config/read-config.ts";
import { resolveSecret } from "#config/resolve-secret.ts";
import { systemClock } from "#kernel/clock.ts";
import { OperationalError } from "#kernel/errors.ts";
import type { Log } from "#kernel/log.ts";
import { Secret } from "#kernel/secret.ts";
import { openVault, type Vault } from "#vault/open-vault.ts";
import type { BlobStorage } from "#vault/storage/blob-storage.ts";
import { openFolderStorage } from "#vault/storage/folder-storage.ts";

export interface VaultPlace {
  readonly storage: BlobStorage;
  readonly passphrase: Secret;
  /** Undefined where store and key were named on the command line. */
  readonly config: VaultConfig | undefined;
}

/** Errors: `config.*`, those of the store. The storage is the caller's to close. */
export async function openVaultPlace(flags: VaultFlags): Promise<VaultPlace> {
  if (flags.store !== undefined) {
    if (flags.passphraseFile === undefined) {
      throw new OperationalError(
        "config.missing",
        "--store needs --passphrase-file: the file that the key's passphrase is in",
      );
    }
    const passphrase = resolveSecret({ file: resolve(flags.passphraseFile) }, "/");
    return { storage: await openNamedStore(flags.store, process.env), passphrase, config: undefined };
  }
  const { config, folder } = readConfig(flags.config);
  if (config.vault === undefined) {
    throw new OperationalError(
      "config.missing",
      `${flags.config} has no vault: add \`vault\` (store and passphrase), or name one with --store and --passphrase-file`,
    );
  }
  const passphrase = resolveSecret(config.vault.passphrase, folder);
  return { storage: await openConfiguredStore(config.vault, folder), passphrase, config: config.vault };
}

/** Opens the vault for the work, and closes both after it. */
export async function withVault<T>(
  flags: VaultFlags,
  log: Log,
  work: (vault: Vault, place: VaultPlace) => Promise<T>,
): Promise<T> {
  const place = await openVaultPlace(flags);
  const { storage, passphrase } = place;
  try {
    await using vault = await openVault({ storage, unlock: { passphrase }, clock: systemClock, log });
    return await work(vault, place);
  } finally {
    await storage.close();
  }
}

async function openConfiguredStore({ store }: VaultConfig, folder: string): Promise<BlobStorage> {
  if ("folder" in store) return openFolderStorage(store.folder);
  const { accessKeyId, secretAccessKey, endpoint, ...rest } = store.s3;
  const { openS3Storage } = await import("#vault/storage/s3-storage.ts");
  return openS3Storage({
    ...rest,
    ...(endpoint === undefined ? {} : { endpoint }),
    credentials: {
      accessKeyId: resolveSecret(accessKeyId, folder).reveal(),
      secretAccessKey: resolveSecret(secretAccessKey, folder),
    },
  });
}

export interface NamedS3Store {
  readonly bucket: string;
  readonly prefix: string;
  readonly endpoint: string | undefined;
  readonly region: string | undefined;
  readonly conditionalPut: boolean;
}

/** `s3://BUCKET/PREFIX?endpoint=URL&region=NAME&conditional-put=no`; undefined for what is a folder. Errors: `input.invalid`. */
export function parseStoreName(text: string): NamedS3Store | undefined {
  if (!text.startsWith("s3://")) return undefined;
  const invalid = (why: string): OperationalError =>
    new OperationalError(
      "input.invalid",
      `--store ${text}: ${why}; it looks like s3://BUCKET/PREFIX/?endpoint=https://s3.example.com&region=eu-west-1`,
    );
  if (!URL.canParse(text)) throw invalid("it is no URL");
  const url = new URL(text);
  for (const name of url.searchParams.keys()) {
    if (!["endpoint", "region", "conditional-put"].includes(name)) throw invalid(`there is no "${name}"`);
  }
  const endpoint = url.searchParams.get("endpoint") ?? undefined;
  if (endpoint !== undefined && !/^https?:\/\/./u.test(endpoint)) throw invalid("its endpoint is no URL");
  if (url.hostname === "" || url.username !== "" || url.password !== "") throw invalid("it names no bucket");
  return {
    bucket: url.hostname,
    prefix: decodeURIComponent(url.pathname.slice(1)),
    endpoint,
    region: url.searchParams.get("region") ?? undefined,
    conditionalPut: url.searchParams.get("conditional-put") !== "no",
  };
}

/** A bucket's keys come from where AWS's own tools look first: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. */
async function openNamedStore(
  text: string,
  environment: Readonly<Record<string, string | undefined>>,
): Promise<BlobStorage> {
  const named = parseStoreName(text);
  if (named === undefined) return openFolderStorage(resolve(text));
  const { AWS_ACCESS_KEY_ID: id, AWS_SECRET_ACCESS_KEY: secret, AWS_REGION: region } = environment;
  if (id === undefined || secret === undefined || id === "" || secret === "") {
    throw new OperationalError(
      "config.missing",
      "a store in a bucket needs AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment",
    );
  }
  const { openS3Storage } = await import("#vault/storage/s3-storage.ts");
  const { bucket, prefix, endpoint, conditionalPut } = named;
  return openS3Storage({
    bucket,
    prefix,
    conditionalPut,
    region: named.region ?? region ?? "us-east-1",
    ...(endpoint === undefined ? {} : { endpoint }),
    credentials: { accessKeyId: id, secretAccessKey: new Secret(secret) },
  });
}
