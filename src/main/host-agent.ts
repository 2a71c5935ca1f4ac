/** The agent of a bare host, put together: from the site's configuration to machines, and a socket that serves them. */
import { access, constants, statfs } from "node:fs/promises";
import { availableParallelism } from "node:os";
import type { Config } from "#config/config-schema.ts";
import type { HypervisorSiteConfig } from "#config/hypervisor-site.ts";
import { makeFolder } from "#kernel/durable-file.ts";
import { qemuImg } from "#hypervisor/create-disk.ts";
import { guestImageFolder, readGuestImage } from "#hypervisor/guest/build-guest-image.ts";
import { hostLimits } from "#hypervisor/guests/host-capacity.ts";
import type { Accelerator } from "#hypervisor/plan-command-line.ts";
import { type HostSiteOptions, openHostSite } from "#hypervisor/site/host-site.ts";
import { startSiteApi } from "#hypervisor/site/serve-site.ts";
import { serveRemotely } from "#main/remote-host-agent.ts";
import type { SiteImage, SiteLimits, SiteSettings } from "#hypervisor/site/site-settings.ts";
import { OperationalError, publicMessage } from "#kernel/errors.ts";

const MIB = 1024 ** 2;
const GIB = 1024 ** 3;
/** Emulated processors that mostly wait, for each of the host's. */
const CPUS_EACH = 8;

export type HostAgentPorts = Pick<HostSiteOptions, "clock" | "random" | "log" | "pageSize" | "stopGraceMs">;

export interface HostAgent extends AsyncDisposable {
  readonly socket: string;
  /** For a control plane on another machine; null: none was asked for. */
  readonly url: string | null;
}

/** Errors: `not_found`, `config.invalid` for a site that is no host; those of `openHostSite` and `startSiteApi`. */
export async function startHostAgent(
  config: Config,
  name: string,
  ports: HostAgentPorts,
  accelerator?: Accelerator,
): Promise<HostAgent> {
  const site = hostOf(config, name);
  if ("url" in site.host) {
    const advice = "the host's own file names the `socket`, and `remote` for others";
    throw new OperationalError("config.invalid", `site "${name}" is served by ${site.host.url}: ${advice}`);
  }
  const { socket, remote } = site.host;
  await makeFolder(site.data);
  const settings = await settingsOf(name, site);
  const opened = await openHostSite({
    ...ports,
    folder: site.data,
    settings,
    certificates: remote?.certificates,
    ...(accelerator === undefined ? {} : { accelerator }),
  });
  await using parts = new AsyncDisposableStack();
  parts.use(opened);
  parts.use(await startSiteApi(opened, socket, ports.log));
  const doors = remote === undefined ? null : parts.use(await serveRemotely(opened, remote, ports));
  const kept = parts.move();
  return { socket, url: doors?.url ?? null, [Symbol.asyncDispose]: () => kept.disposeAsync() };
}

function hostOf(config: Config, name: string): HypervisorSiteConfig {
  const site = config.sites[name];
  if (site === undefined) {
    const names = Object.keys(config.sites).join(", ");
    throw new OperationalError("not_found", `there is no site "${name}"; the sites are: ${names}`);
  }
  if (site.driver === "hypervisor") return site;
  const advice = "the host agent is for sites with `driver: hypervisor`";
  throw new OperationalError("config.invalid", `site "${name}" is a cloud (${site.driver}): ${advice}`);
}

async function settingsOf(name: string, site: HypervisorSiteConfig): Promise<SiteSettings> {
  const types = Object.entries(site.types).map(([id, { cpus, memory }]) => [
    id,
    { cpus, memoryMiB: Math.round(memory / MIB) },
  ]);
  const images = await Promise.all(
    Object.entries(site.images).map(
      async ([id, image]) => [id, await imageOf(`sites.${name}.images.${id}`, image)] as const,
    ),
  );
  const { addresses, outbound } = site;
  return {
    name,
    types: Object.fromEntries(types) as SiteSettings["types"],
    images: Object.fromEntries(images),
    addresses,
    outbound,
    limits: await limitsOf(site),
  };
}

async function limitsOf({ limits, data }: HypervisorSiteConfig): Promise<SiteLimits> {
  const { memory, cpus, disk, servers } = limits;
  const whole = hostLimits(memory === undefined ? undefined : Math.floor(memory / MIB));
  const files = await statfs(data);
  return {
    memoryMiB: whole.memoryMiB,
    cpus: cpus ?? CPUS_EACH * availableParallelism(),
    diskGiB: Math.floor((disk ?? files.blocks * files.bsize) / GIB),
    servers: servers ?? whole.guests,
  };
}

/** Errors: `config.missing` for files that are not there, the small guest's among them. */
async function imageOf(where: string, image: HypervisorSiteConfig["images"][string]): Promise<SiteImage> {
  if ("guest" in image) {
    const small = await readGuestImage();
    if (small === null) {
      const advice = `it is \`guest: small\`, and ${guestImageFolder()} has none: run script/guest-image`;
      throw new OperationalError("config.missing", `${where}: ${advice}`);
    }
    const { kernelPath, initrdPath } = small;
    return { boot: { kind: "kernel", kernelPath, initrdPath }, readyLine: "guest: ready" };
  }
  const files = "kernel" in image ? [image.kernel, image.initrd, image.disk] : [image.disk];
  for (const path of files) if (path !== undefined) await checkReadable(where, path);
  const readyLine = image.ready ?? null;
  const disk = image.disk === undefined ? {} : { disk: await diskOf(where, image.disk, image.format) };
  if (!("kernel" in image)) return { boot: { kind: "disk" }, ...disk, readyLine };
  const { kernel: kernelPath, initrd, append } = image;
  const initrdPath = initrd === undefined ? {} : { initrdPath: initrd };
  return { boot: { kind: "kernel", kernelPath, append, ...initrdPath }, ...disk, readyLine };
}

/** Errors: `config.invalid` for a file that is no disk image of that format. */
async function diskOf(
  where: string,
  path: string,
  format: "raw" | "qcow2",
): Promise<NonNullable<SiteImage["disk"]>> {
  try {
    const { stdout } = await qemuImg(["info", "-U", "--output=json", "-f", format, path]);
    const { "virtual-size": sizeBytes } = JSON.parse(stdout) as { "virtual-size": number };
    return { path, format, sizeGiB: Math.ceil(sizeBytes / GIB) };
  } catch (cause) {
    const message = `${where}: ${path} is no disk image of the format ${format}`;
    throw new OperationalError("config.invalid", message, { detail: publicMessage(cause), cause });
  }
}

async function checkReadable(where: string, path: string): Promise<void> {
  try {
    await access(path, constants.R_OK);
  } catch (cause) {
    const message = `${where}: ${path} cannot be read: it must be a file of this host`;
    throw new OperationalError("config.missing", message, { detail: String(cause), cause });
  }
}
