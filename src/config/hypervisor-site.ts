/** A site that is one host with our own agent: what guests it runs, from what, and how many. */
import { resolve } from "node:path";
import { z } from "zod";
import { byteSize } from "#config/byte-size.ts";
import { bareHost } from "#config/host-config.ts";

const name = z
  .string()
  .regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/u, "a name is letters, digits, dots, dashes and underscores");

const MIB = 1024 ** 2;

const type = z.strictObject({
  cpus: z.number().int().min(1).max(64),
  memory: byteSize.refine((bytes) => bytes >= 80 * MIB, "a guest needs 80MiB of memory at least"),
});

/** What the guest prints on its console when it serves; without it, a server is ready when its machine runs. */
const ready = z.string().min(1).max(200).optional();
const format = z.enum(["raw", "qcow2"]).default("qcow2");

const image = z.union([
  /** The small guest that `script/guest-image` builds. */
  z.strictObject({ guest: z.literal("small") }),
  /** A kernel without a boot loader, with a first disk or without. */
  z.strictObject({
    kernel: z.string().min(1),
    initrd: z.string().min(1).optional(),
    append: z.string().max(1024).default(""),
    disk: z.string().min(1).optional(),
    format,
    ready,
  }),
  /** A disk image that boots by itself. Servers write beside it: it must stay as it is. */
  z.strictObject({ disk: z.string().min(1), format, ready }),
]);

const octet = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])";
const address = z
  .string()
  .regex(
    new RegExp(`^${octet}(\\.${octet}){3}(/([89]|[12][0-9]|3[0-2]))?$`, "u"),
    "an address looks like 192.0.2.7, or 192.0.2.0/28",
  )
  .refine((text) => isPrefix(text), "the prefix has bits behind its length: 192.0.2.0/28, not 192.0.2.7/28");

function isPrefix(text: string): boolean {
  const [start = "", bits = "32"] = text.split("/");
  const value = start.split(".").reduce((sum, part) => sum * 256 + Number(part), 0);
  return value % 2 ** (32 - Number(bits)) === 0;
}

const notEmpty = (value: object): boolean => Object.keys(value).length > 0;

export const hypervisorSite = z.strictObject({
  driver: z.literal("hypervisor"),
  /** Where `understudy host up` serves the site's API, and the content of its disks. */
  host: bareHost,
  /** Machines, disks and records of the host agent. */
  data: z.string().min(1).default("./understudy-host"),
  /** Addresses that this host has; each guest is reached at one of them. */
  addresses: z.array(address).min(1).prefault(["127.60.0.0/24"]),
  /** Guests whose groups let them out reach the host, its loopback services among it, and what the host reaches. */
  outbound: z.boolean().default(false),
  limits: z
    .strictObject({
      /** Of all running guests; without it, three quarters of the host's. */
      memory: byteSize.optional(),
      /** Of all running guests; without it, eight for each of the host's. */
      cpus: z.number().int().min(1).optional(),
      /** Of all disks as their guests see them; without it, what the file system of `data` holds. */
      disk: byteSize.optional(),
      servers: z.number().int().min(1).optional(),
    })
    .prefault({}),
  types: z.record(name, type).refine(notEmpty, "name at least one type of server"),
  images: z.record(name, image).refine(notEmpty, "name at least one image"),
});

export type HypervisorSiteConfig = z.output<typeof hypervisorSite>;

/** Paths as of the configuration's folder. */
export function withAbsoluteImages(site: HypervisorSiteConfig, folder: string): HypervisorSiteConfig {
  const at = (path: string): string => resolve(folder, path);
  const images = Object.entries(site.images).map(([id, one]): [string, (typeof site.images)[string]] => {
    if ("guest" in one) return [id, one];
    if (!("kernel" in one)) return [id, { ...one, disk: at(one.disk) }];
    const { kernel, initrd, disk } = one;
    return [
      id,
      {
        ...one,
        kernel: at(kernel),
        ...(initrd === undefined ? {} : { initrd: at(initrd) }),
        ...(disk === undefined ? {} : { disk: at(disk) }),
      },
    ];
  });
  return { ...site, data: at(site.data), images: Object.fromEntries(images) };
}
