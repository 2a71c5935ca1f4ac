/** The shape of understudy.yaml. Every object is strict: an unknown key is an error, never ignored. */
import { z } from "zod";
import { byteSize } from "#config/byte-size.ts";
import { cloudHost, vaultHosts } from "#config/host-config.ts";
import { hypervisorSite } from "#config/hypervisor-site.ts";
import { listenAddress } from "#config/listen-address.ts";
import { noticeCodes, type NoticeCode } from "#model/notice.ts";

const durationUnits: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
};

/** `500ms`, `3s`, `10m`, `1h`, `2d` -> milliseconds. */
export const duration = z
  .string()
  .regex(/^\d+(\.\d+)?(ms|s|m|h|d)$/u, "a duration looks like 500ms, 3s, 10m, 1h or 2d")
  .transform((text) => {
    const unit = /[a-z]+$/u.exec(text)?.[0] ?? "ms";
    return Math.round(Number.parseFloat(text) * (durationUnits[unit] ?? 1));
  });

/** Secrets never stand in the file: they are named, by environment variable or by file. */
export const secretReference = z.union([
  z.strictObject({ env: z.string().min(1) }),
  z.strictObject({ file: z.string().min(1) }),
]);

const tags = z.record(z.string(), z.string());

export { byteSize };

const ec2Site = z.strictObject({
  driver: z.literal("ec2"),
  /** A host agent of ours beside the site: what captures disks there, and gives them their content. */
  host: cloudHost.optional(),
  region: z.string().min(1),
  /** Only for clouds other than AWS. */
  endpoint: z.url().optional(),
  credentials: z.strictObject({
    accessKeyId: secretReference,
    secretAccessKey: secretReference,
    sessionToken: secretReference.optional(),
  }),
});

const openstackSite = z.strictObject({
  driver: z.literal("openstack"),
  host: cloudHost.optional(),
  authUrl: z.url(),
  region: z.string().min(1),
  project: z.string().min(1),
  projectDomain: z.string().min(1).default("Default"),
  credentials: z.union([
    z.strictObject({
      username: z.string().min(1),
      password: secretReference,
      userDomain: z.string().min(1).default("Default"),
    }),
    z.strictObject({
      applicationCredentialId: z.string().min(1),
      applicationCredentialSecret: secretReference,
    }),
  ]),
  /** The network that routers and floating IPs use; needed where the cloud has several external ones. */
  publicNetwork: z.string().min(1).optional(),
});

const site = z.discriminatedUnion("driver", [ec2Site, openstackSite, hypervisorSite]);

const reserve = z.strictObject({
  servers: z
    .union([
      z.enum(["none", "full"]),
      z.strictObject({
        ratio: z.number().gt(0).lte(1),
        minimumPerGroup: z.number().int().min(0).default(1),
        groupBy: z.string().min(1).default("tier"),
      }),
    ])
    .default({ ratio: 0.2, minimumPerGroup: 1, groupBy: "tier" }),
  onlyTags: tags.default({}),
  smallerTypes: z.boolean().default(false),
  volumes: z.enum(["with_servers", "all"]).default("with_servers"),
});

const through = z.union([
  z.strictObject({
    forwarder: z.strictObject({
      listen: listenAddress,
      mode: z.enum(["http", "tcp"]).default("http"),
      drain: duration.prefault("10s"),
    }),
  }),
  z.strictObject({
    haproxy: z.strictObject({ socket: z.string().min(1), backend: z.string().min(1) }),
  }),
  z.strictObject({
    dns: z.strictObject({
      server: listenAddress,
      zone: z.string().min(1),
      record: z.string().min(1),
      ttl: duration.prefault("5s"),
      /** TSIG, hmac-sha256. */
      key: z.strictObject({
        name: z.string().min(1),
        secret: secretReference,
      }),
    }),
  }),
  z.strictObject({
    powerdns: z.strictObject({
      url: z.url(),
      serverId: z.string().min(1).default("localhost"),
      zone: z.string().min(1),
      record: z.string().min(1),
      ttl: duration.prefault("5s"),
      apiKey: secretReference,
    }),
  }),
]);

const route = z.strictObject({
  name: z.string().regex(/^[a-z0-9-]{1,40}$/u, "a route's name is lower-case letters, digits and dashes"),
  /** Servers that bear all these tags receive this route's traffic. */
  select: tags.refine((value) => Object.keys(value).length > 0, "select at least one tag"),
  port: z.number().int().min(1).max(65_535),
  through,
});

const probe = z.strictObject({
  name: z.string().min(1).max(60),
  every: duration.prefault("1s"),
  timeout: duration.prefault("1s"),
  check: z.union([
    z.strictObject({ http: z.url(), status: z.number().int().default(200), contains: z.string().optional() }),
    z.strictObject({ tcp: listenAddress }),
    z.strictObject({ cloudApi: z.literal("active") }),
  ]),
});

const noticeCode = z.enum(Object.keys(noticeCodes) as [NoticeCode, ...NoticeCode[]]);

const trigger = z.strictObject({
  /** All of these must be raised at once. */
  codes: z.array(noticeCode).min(1),
  witnesses: z.number().int().min(1),
  for: duration,
});

/** Disks whose every write is kept in the vault; without it, the standby's disks are empty. */
const protect = z.strictObject({
  /** Volumes that bear all these tags. */
  volumes: tags.refine((value) => Object.keys(value).length > 0, "select at least one tag"),
  /** A guest's write is held by the vault no longer than this; then the guest goes on, and what it writes is caught up later. */
  stallLimit: duration.prefault("2s"),
  /**
   * Where a site has no host agent: its cloud's own snapshots, so often, feed the vault. What was written since the last one is lost with the
   * site.
   */
  snapshots: z
    .strictObject({
      every: duration.prefault("15m").refine((ms) => ms >= 1000, "snapshots are at least 1s apart"),
    })
    .optional(),
  /** A recovery point, of the configuration and all disks, so often. */
  pointsEvery: duration.prefault("10m"),
  /** `application`: the guests' file systems stand still while a recovery point is taken; needs a guest agent in each server. */
  consistency: z.enum(["crash", "application"]).default("crash"),
  /** They stand still no longer than this, whatever becomes of everything else. */
  freezeLimit: duration.prefault("5s"),
});

const port = z.number().int().min(1).max(65_535);

/** What a booted copy of a server must pass, in a drill and before a recovery point is called verified. */
const verification = z.strictObject({
  name: z.string().min(1).max(60),
  /** Servers that bear all these tags; none named: every one. */
  select: tags.default({}),
  /** How long a server may take until it holds. */
  within: duration.prefault("60s"),
  /** Of one attempt. */
  timeout: duration.prefault("10s"),
  check: z.union([
    z.strictObject({
      http: z.strictObject({
        port,
        path: z.string().startsWith("/").default("/"),
        status: z.number().int().default(200),
        contains: z.string().optional(),
      }),
    }),
    z.strictObject({ tcp: port }),
    /** The guest's agent: that it answers, or that a program in the guest ends with 0. */
    z.strictObject({
      agent: z.union([
        z.literal("ping"),
        z.strictObject({ path: z.string().min(1), args: z.array(z.string()).max(100).default([]) }),
      ]),
    }),
    /** A program beside this file, told the server's address by its environment: 0 is yes. */
    z.strictObject({ script: z.string().min(1) }),
  ]),
});

const environment = z.strictObject({
  verify: z.array(verification).max(100).default([]),
  protect: protect.optional(),
  active: z.string().min(1),
  standby: z.string().min(1),
  reserve: reserve.prefault({}),
  translate: z
    .strictObject({
      types: z.record(z.string(), z.string()).default({}),
      images: z.record(z.string(), z.string()).default({}),
      zones: z.record(z.string(), z.string()).default({}),
    })
    .prefault({}),
  traffic: z.array(route).default([]),
  probes: z.array(probe).min(1),
  /** Names of the witnesses that may report. `engine` is the control plane itself. */
  witnesses: z
    .array(
      z.union([
        z.literal("engine"),
        z.strictObject({ name: z.string().min(1).max(60), token: secretReference }),
      ]),
    )
    .min(1)
    .default(["engine"]),
  failover: z.strictObject({
    /** Empty: only a person starts a failover. */
    triggers: z.array(trigger).default([]),
    fence: z.enum(["stop_servers", "epoch_only"]).default("stop_servers"),
  }),
  return: z
    .strictObject({
      policy: z.enum(["wait", "swap", "manual"]).default("manual"),
      stableFor: duration.prefault("60s"),
    })
    .prefault({}),
});

const s3Store = z.strictObject({
  /** Only for stores other than AWS. */
  endpoint: z.url().optional(),
  region: z.string().min(1).default("us-east-1"),
  bucket: z.string().min(1),
  /** Stands before every name, with its own slash: `vaults/prod/`. */
  prefix: z.string().default(""),
  accessKeyId: secretReference,
  secretAccessKey: secretReference,
  /** False for a store that does not honour `If-None-Match` on a put. */
  conditionalPut: z.boolean().default(true),
});

/** How long points are kept, and how densely. */
const retention = z.strictObject({
  /** All points younger than this are kept. */
  keepAll: duration.prefault("10m"),
  /** One point for each span, or for each calendar month or year (UTC), for so long. */
  rules: z
    .array(
      z.strictObject({ every: z.union([z.literal("month"), z.literal("year"), duration]), for: duration }),
    )
    .prefault([
      { every: "10m", for: "1h" },
      { every: "1h", for: "1d" },
      { every: "1d", for: "14d" },
      { every: "7d", for: "62d" },
      { every: "month", for: "366d" },
      { every: "year", for: "2562d" },
    ]),
  /** Points that are kept no longer are let go so often. */
  applyEvery: duration.prefault("10m"),
  /** And the space of what is gone is freed so often. */
  collectEvery: duration.prefault("1d"),
});

/** A name that is also a folder's, and part of an export's. */
const plainName = z
  .string()
  .regex(/^[A-Za-z0-9_][A-Za-z0-9._-]{0,62}$/u, "a name is letters, digits, dots, dashes and underscores");

/** Agents in guests of clouds where no host agent of ours captures disks. */
const agents = z.strictObject({
  /** HTTPS. */
  listen: listenAddress,
  /** PEM file, with what it was signed by where that is no CA itself. */
  certificate: z.string().min(1),
  certificateKey: secretReference,
  /** Of passes that have not come whole yet, for each agent. */
  stageLimit: byteSize.prefault("20GiB"),
  keys: z.record(
    plainName,
    z.strictObject({
      key: secretReference,
      /** Whose disks they are. */
      environment: plainName,
      /** The only ones that the key is good for. */
      volumes: z.array(z.string().regex(/^[^/\p{C}]{1,64}$/u, "a volume is named by its id")).min(1),
    }),
  ),
});

/** Holds for a file when all that it says holds. Weights of those that hold add up; below or at zero a file does not come first. */
const priority = z
  .strictObject({
    path: z
      .string()
      .startsWith("/", "a path begins with /; `**` stands for any number of names")
      .max(1000)
      .optional(),
    kind: z.enum(["executable", "library", "file", "directory"]).optional(),
    modifiedWithin: duration.optional(),
    smallerThan: byteSize.optional(),
    largerThan: byteSize.optional(),
    weight: z.number().min(-1000).max(1000).default(1),
  })
  .refine(
    ({ weight: _weight, ...says }) => Object.values(says).some((value) => value !== undefined),
    "a rule says something of a file: path, kind, modifiedWithin, smallerThan or largerThan",
  );

const vault = z.strictObject({
  /** Where the repository is. */
  store: z.union([z.strictObject({ folder: z.string().min(1) }), z.strictObject({ s3: s3Store })]),
  passphrase: secretReference,
  /** The write logs, and the sockets of the process that serves them. */
  data: z.string().min(1).default("./understudy-vault"),
  /** Any moment of the last so much can be named, as far as it fits into `windowSize`. */
  window: duration.prefault("1h"),
  windowSize: byteSize.prefault("20GiB"),
  /** The log becomes points of the repository so often. */
  foldEvery: duration.prefault("1m"),
  /** Which files of a disk come first while a machine starts on it: after what its last start read, the heaviest. */
  priorities: z.array(priority).max(100).default([]),
  /** Older points thin out. */
  retention: retention.prefault({}),
  agents: agents.optional(),
  /** Host agents on other machines. */
  hosts: vaultHosts.optional(),
});

export const configSchema = z.strictObject({
  version: z.literal(1),
  vault: vault.optional(),
  data: z.string().min(1).default("./understudy-data"),
  listen: z
    .strictObject({
      gateway: listenAddress.prefault("127.0.0.1:7480"),
      api: listenAddress.prefault("127.0.0.1:7481"),
    })
    .prefault({}),
  sites: z.record(
    z.string().regex(/^[a-z0-9-]{1,40}$/u, "a site's name is lower-case letters, digits and dashes"),
    site,
  ),
  environments: z.record(
    z.string().regex(/^[a-z0-9-]{1,40}$/u, "an environment's name is lower-case letters, digits and dashes"),
    environment,
  ),
});

export type Config = z.output<typeof configSchema>;
export type VaultConfig = NonNullable<Config["vault"]>;
export type VaultAgentsConfig = NonNullable<VaultConfig["agents"]>;
export type SiteConfig = Config["sites"][string];
export type EnvironmentConfig = Config["environments"][string];
export type RouteConfig = EnvironmentConfig["traffic"][number];
export type ProbeConfig = EnvironmentConfig["probes"][number];
export type TriggerConfig = EnvironmentConfig["failover"]["triggers"][number];
export type SecretReference = z.output<typeof secretReference>;
