/** A whole cloud in this process: core, dialect, compute and HTTP. `devcloud-main.ts` and the CLI call it. */
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import type { DiskHost } from "#cloud/disk-host.ts";
import type { Cloud } from "#devcloud/core/cloud.ts";
import type { Compute } from "#devcloud/core/compute.ts";
import type { Account, Dialect, DialectKind } from "#devcloud/core/dialect.ts";
import { defaultLifecycle, startLifecycle, type LifecycleOptions } from "#devcloud/core/lifecycle.ts";
import { openCloud } from "#devcloud/core/open-cloud.ts";
import { defaultQuotas, type Quotas } from "#devcloud/core/quotas.ts";
import type { QuotaName } from "#devcloud/core/refusal.ts";
import { AddressRelays } from "#devcloud/compute/address-relays.ts";
import { bearsTypes } from "#devcloud/compute/qemu-guest-spec.ts";
import { hostLimits } from "#hypervisor/guests/host-capacity.ts";
import { openNoCompute } from "#devcloud/compute/no-compute.ts";
import { copyVolumeImages } from "#devcloud/compute/volume-images.ts";
import { openProcessCompute } from "#devcloud/compute/process-compute.ts";
import { openQemuCompute } from "#devcloud/compute/qemu-compute.ts";
import { SnapshotFiles } from "#devcloud/core/snapshot-files.ts";
import { type CopyDisks, Snapshots } from "#devcloud/core/snapshots.ts";
import { ec2Kind } from "#devcloud/ec2/ec2-kind.ts";
import { openstackKind } from "#devcloud/openstack/openstack-kind.ts";
import type { AdminContext } from "#devcloud/front/admin-api.ts";
import { startApiServer } from "#devcloud/front/api-server.ts";
import { CallCounters } from "#devcloud/front/call-counters.ts";
import {
  latencySpec,
  RateLimits,
  rateLimitSpec,
  type LatencySpec,
  type RateLimitSpec,
} from "#devcloud/front/call-limits.ts";
import { FaultRules, faultList, type FaultSpec } from "#devcloud/front/fault-rules.ts";
import { openSecretFile } from "#devcloud/front/secret-file.ts";
import type { Accelerator } from "#hypervisor/plan-command-line.ts";
import { startHostApi } from "#hypervisor/host-api/host-api-server.ts";
import { systemClock, type Clock } from "#kernel/clock.ts";
import { OperationalError } from "#kernel/errors.ts";
import { silentLog, type Log } from "#kernel/log.ts";
import { systemRandom, type Random } from "#kernel/random.ts";
import type { Secret } from "#kernel/secret.ts";

/** Every dialect that devcloud speaks. */
export const dialectKinds = { ec2: ec2Kind, openstack: openstackKind } as const satisfies Readonly<
  Record<string, DialectKind>
>;

export type DialectName = keyof typeof dialectKinds;

/** What servers are: programs on this machine, real guests, or nothing at all. */
export const computeNames = ["process", "qemu", "none"] as const;
export type ComputeName = (typeof computeNames)[number];

export interface DevcloudOptions {
  readonly dialect: DialectName;
  /** Records, secrets and servers' files; made if absent. */
  readonly dataDir: string;
  /** Default 127.0.0.1. */
  readonly host?: string;
  /** Default 0: any free port. */
  readonly port?: number;
  /** Default: the dialect's own, e.g. us-east-1. */
  readonly region?: string;
  /** Default 127.40.0.0/16. Two clouds on one machine need different ones. */
  readonly addressBase?: string;
  /** Default `process`. */
  readonly compute?: ComputeName;
  /** Access key id or user name; default: the dialect's own. Its secret is in `secretKeyFile`. */
  readonly accessKeyId?: string;
  /** Account or project id; default: the dialect's own. */
  readonly accountId?: string;
  readonly quotas?: Partial<Quotas>;
  readonly latency?: LatencySpec;
  readonly rateLimits?: RateLimitSpec;
  readonly faults?: readonly FaultSpec[];
  readonly lifecycle?: Partial<LifecycleOptions>;
  /** Between asking a server's processes or guest to end and ending them, in milliseconds; default 5000. */
  readonly stopGraceMs?: number;
  /** Of all guests together, in MiB; default: most of what the host has. */
  readonly guestMemoryMiB?: number;
  /** What runs guests; default: what a timed probe boot says. */
  readonly accelerator?: Accelerator;
  readonly log?: Log;
  readonly clock?: Clock;
  readonly random?: Random;
}

export interface Devcloud {
  readonly endpoint: string;
  readonly region: string;
  readonly dialect: string;
  readonly accessKeyId: string;
  readonly secretAccessKey: Secret;
  readonly adminToken: Secret;
  /** What the ready line prints: paths instead of secrets. */
  readonly ready: Readonly<Record<string, string>>;
  /** Ends servers and connections; the state stays on disk. */
  close(): Promise<void>;
}

/** Errors: `config.invalid`, `config.missing`, `machine.refused`, `port.in_use`, `port.forbidden`, `store.*`. */
export async function startDevcloud(options: DevcloudOptions): Promise<Devcloud> {
  const { dataDir } = options;
  const log = options.log ?? silentLog;
  const clock = options.clock ?? systemClock;
  const kind: DialectKind = dialectKinds[options.dialect];
  const region = options.region ?? kind.defaults.region;
  const adminTokenFile = join(dataDir, "admin-token");
  const secretKeyFile = join(dataDir, "secret-key");
  const adminToken = await openSecretFile(adminTokenFile);
  const account: Account = {
    id: options.accountId ?? kind.defaults.accountId,
    user: options.accessKeyId ?? kind.defaults.user,
    secret: await openSecretFile(secretKeyFile),
  };
  const cloud = openCloud({
    dataDir,
    ids: kind.ids,
    catalog: kind.catalog(region),
    clock,
    random: options.random ?? systemRandom,
    ...(options.addressBase === undefined ? {} : { addressBase: options.addressBase }),
    quotas: { ...kind.defaults.quotas, ...options.quotas },
  });
  const { compute, disks, copyDisks } = await openCompute(options, cloud, log);
  const snapshots = new Snapshots(cloud, new SnapshotFiles(join(dataDir, "snapshots")), copyDisks, log);
  await snapshots.resume();
  const dialect = await kind.open(cloud, compute, account, snapshots);
  if (cloud.data.tables.network.size === 0) cloud.data.transact(() => dialect.bootstrap(cloud));
  await cloud.data.durable();
  const running = await serveCloud(options, cloud, compute, dialect, adminToken, log);
  const hostSocket = join(dataDir, "host.sock");
  const hostApi = disks === null ? null : await startHostApi(disks, hostSocket, log).catch(closing(running));
  const credentialsFile = join(dataDir, "credentials");
  await writeFile(credentialsFile, kind.credentials(account, region, running.endpoint), { mode: 0o600 });
  return {
    endpoint: running.endpoint,
    region,
    dialect: dialect.name,
    accessKeyId: account.user,
    secretAccessKey: account.secret,
    adminToken,
    ready: {
      endpoint: running.endpoint,
      dialect: dialect.name,
      region,
      accessKeyId: account.user,
      secretKeyFile,
      credentialsFile,
      adminTokenFile,
      addressBase: cloud.pool.cidr,
      ...(hostApi !== null && { hostSocket }),
    },
    close: async () => {
      await hostApi?.[Symbol.asyncDispose]();
      await snapshots.close();
      await running.close();
    },
  };
}

/** `disks`: what a host agent offers for volumes' content; only real guests have one. */
async function openCompute(
  options: DevcloudOptions,
  cloud: Cloud,
  log: Log,
): Promise<{ readonly compute: Compute; readonly disks: DiskHost | null; readonly copyDisks: CopyDisks }> {
  const { dataDir, stopGraceMs } = options;
  const shared = { dataDir, clock: cloud.clock, ...(stopGraceMs !== undefined && { stopGraceMs }) };
  const copyDisks = copyVolumeImages(dataDir);
  try {
    switch (options.compute ?? "process") {
      case "none":
        return { compute: openNoCompute(), disks: null, copyDisks };
      case "process":
        return { compute: openProcessCompute(shared), disks: null, copyDisks };
      case "qemu": {
        const limits = hostLimits(options.guestMemoryMiB);
        const compute = await openQemuCompute({
          ...shared,
          cloud,
          log,
          limits,
          ...(options.accelerator !== undefined && { accelerator: options.accelerator }),
        });
        cloud.hostsBear = (held, wanted) => bearsTypes(limits, held, wanted);
        const guestDisks = compute.disks;
        return {
          compute,
          disks: guestDisks,
          copyDisks: (wanted, stop) => guestDisks.copyVolumes(wanted, stop),
        };
      }
    }
  } catch (error) {
    cloud.data.close();
    throw error;
  }
}

/** For a failure after the cloud serves. */
function closing(running: { close(): Promise<void> }): (error: unknown) => Promise<never> {
  return async (error) => {
    await running.close();
    throw error;
  };
}

async function serveCloud(
  options: DevcloudOptions,
  cloud: Cloud,
  compute: Compute,
  dialect: Dialect,
  token: Secret,
  log: Log,
): Promise<{ endpoint: string; close(): Promise<void> }> {
  const lifecycle = startLifecycle(cloud, compute, { ...defaultLifecycle, ...options.lifecycle }, log);
  const relays = compute.reachable ? new AddressRelays(cloud, log) : null;
  const context: AdminContext = {
    cloud,
    dialect,
    lifecycle,
    token,
    faults: new FaultRules(options.faults ?? []),
    limits: new RateLimits(cloud.clock, options.rateLimits ?? {}),
    counters: new CallCounters(),
    latency: options.latency ?? { fixedMs: 0, jitterMs: 0 },
  };
  const stop = async (machines: () => Promise<void>): Promise<void> => {
    relays?.close();
    await machines();
    await compute.close();
    cloud.data.close();
  };
  try {
    const listen = { host: options.host ?? "127.0.0.1", port: options.port ?? 0 };
    const server = await startApiServer(context, listen, log);
    return {
      endpoint: `http://${server.host}:${server.port}`,
      close: async () => {
        await server.close();
        await stop(() => lifecycle.halt());
      },
    };
  } catch (error) {
    // A port that is taken is no reason to end guests that run.
    await stop(() => lifecycle.release());
    throw error;
  }
}

/** The faults of a `--faults` file: a JSON list. Errors: `config.missing`, `config.invalid`. */
export function readFaults(path: string): Promise<FaultSpec[]> {
  return readSettings(path, faultList);
}

const limitsSpec = z.strictObject({
  quotas: z.partialRecord(z.enum(Object.keys(defaultQuotas) as QuotaName[]), z.int().min(0)).optional(),
  latency: latencySpec.optional(),
  rateLimits: rateLimitSpec.optional(),
  guestMemoryMiB: z.int().min(0).optional(),
});

/** The limits of a `--limits` file: a JSON object. Errors: `config.missing`, `config.invalid`. */
export async function readLimits(
  path: string,
): Promise<Pick<DevcloudOptions, "quotas" | "latency" | "rateLimits" | "guestMemoryMiB">> {
  const { quotas, latency, rateLimits, guestMemoryMiB } = await readSettings(path, limitsSpec);
  return {
    ...(quotas === undefined ? {} : { quotas }),
    ...(latency === undefined ? {} : { latency }),
    ...(rateLimits === undefined ? {} : { rateLimits }),
    ...(guestMemoryMiB === undefined ? {} : { guestMemoryMiB }),
  };
}

async function readSettings<T>(path: string, spec: z.ZodType<T>): Promise<T> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    throw new OperationalError("config.missing", `the file ${path} cannot be read`, { cause: error });
  }
  try {
    return spec.parse(JSON.parse(text));
  } catch (error) {
    const why = error instanceof z.ZodError ? z.prettifyError(error) : (error as Error).message;
    throw new OperationalError("config.invalid", `${path} is not as it should be: ${why}`, { cause: error });
  }
}
