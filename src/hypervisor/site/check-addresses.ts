import { createServer } from "node:net";
import { OperationalError } from "#kernel/errors.ts";
import { freeAddress, type SiteSettings } from "./site-settings.ts";

/** QEMU listens at these: of each prefix, one is tried. Errors: `config.invalid` for one that this host does not have. */
export async function checkAddresses({ name, addresses }: SiteSettings): Promise<void> {
  for (const each of addresses) {
    const address = freeAddress([each], new Set());
    if (address === undefined) continue;
    const code = await tryToListen(address);
    if (code === null) continue;
    throw new OperationalError(
      "config.invalid",
      `sites.${name}.addresses: this host has no address ${address}: add it to an interface, e.g. ip address add ${address}/32 dev lo`,
      { detail: code },
    );
  }
}

/** Null: it can be listened at. */
function tryToListen(address: string): Promise<string | null> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once("error", (error) => resolve(String(error)));
    server.listen(0, address, () => server.close(() => resolve(null)));
  });
}
