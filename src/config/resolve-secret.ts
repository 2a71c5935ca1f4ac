import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import type { SecretReference } from "#config/config-schema.ts";
import { OperationalError } from "#kernel/errors.ts";
import { Secret } from "#kernel/secret.ts";

/** The value behind `{env: NAME}` or `{file: PATH}` (relative to `folder`, trailing newline dropped). */
export function resolveSecret(
  reference: SecretReference,
  folder: string,
  environment: Readonly<Record<string, string | undefined>> = process.env,
): Secret {
  if ("env" in reference) {
    const value = environment[reference.env];
    if (value === undefined || value === "") {
      throw new OperationalError(
        "config.missing",
        `the environment variable ${reference.env} is not set: the configuration takes a secret from it`,
      );
    }
    return new Secret(value);
  }
  const path = resolve(folder, reference.file);
  try {
    const value = readFileSync(path, "utf8").replace(/\r?\n$/u, "");
    if (value === "") {
      throw new OperationalError(
        "config.missing",
        `the secret file ${path} is empty: put the secret into it`,
      );
    }
    return new Secret(value);
  } catch (error) {
    if (error instanceof OperationalError) throw error;
    throw new OperationalError(
      "config.missing",
      `cannot read the secret file ${path}, which the configuration names: write it, readable by this user`,
      {
        cause: error,
      },
    );
  }
}
