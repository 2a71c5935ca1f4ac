/** The vault's intake for agents, put together from the configuration. */
import { dirname, join, resolve } from "node:path";
import type { VaultAgentsConfig, VaultConfig } from "#config/config-schema.ts";
import { resolveSecret } from "#config/resolve-secret.ts";
import { systemClock } from "#kernel/clock.ts";
import type { Log } from "#kernel/log.ts";
import { systemRandom } from "#kernel/random.ts";
import { readPem } from "#main/agent-tools.ts";
import { openNbdClient } from "#nbd/nbd-client.ts";
import { serveIntake, type ServedIntake } from "#recovery/intake/serve-intake.ts";
import type { VaultDesk } from "#recovery/vault-desk.ts";
import type { Vault } from "#vault/open-vault.ts";
import { parseNbdUri } from "#wire/nbd/nbd-uri.ts";

/** Errors: `config.*`, `port.*`. */
export async function serveConfiguredIntake(
  { data }: VaultConfig,
  agents: VaultAgentsConfig,
  configPath: string,
  { vault, desk, log }: { readonly vault: Vault; readonly desk: VaultDesk; readonly log: Log },
): Promise<ServedIntake> {
  const folder = dirname(resolve(configPath));
  return serveIntake({
    listen: agents.listen,
    certificate: {
      cert: readPem(agents.certificate),
      key: resolveSecret(agents.certificateKey, folder),
    },
    agents: Object.entries(agents.keys).map(([name, { key, environment, volumes }]) => ({
      rights: { name, environment, volumes },
      key: resolveSecret(key, folder),
    })),
    ports: {
      folder: join(data, "intake"),
      desk,
      keys: vault.context.keys,
      openDisk: (uri, signal) => {
        const { address, exportName } = parseNbdUri(uri);
        const ports = { clock: systemClock, random: systemRandom, log };
        // An agent's part can be written again: nobody else writes this volume.
        return openNbdClient({ ...ports, address, exportName, repeatWrites: true }, signal);
      },
      clock: systemClock,
      log,
      stageLimitBytes: agents.stageLimit,
    },
  });
}
