/** What every command gets: a terminal, the API, and the parts that only the composition root can start. */
import { createApiClient, findTarget, type ApiClient, type TargetFlags } from "#cli/api-client.ts";
import type { AgentTools } from "#cli/agent-tools.ts";
import type { Terminal } from "#cli/terminal.ts";
import type { VaultTools } from "#cli/vault-tools.ts";
import { OperationalError } from "#kernel/errors.ts";

/** Long-lived work that is put together in `main`. Each resolves when it has ended in order. */
export interface Launchers {
  up(options: { readonly config: string; readonly json: boolean }, signal: AbortSignal): Promise<void>;
  devcloudUp(options: DevcloudFlags, signal: AbortSignal): Promise<void>;
  hostUp(options: HostFlags, signal: AbortSignal): Promise<void>;
  witness(options: WitnessFlags, signal: AbortSignal): Promise<void>;
  /** Returns false when a check failed. */
  verifyCloud(options: VerifyFlags, signal: AbortSignal): Promise<boolean>;
  keys: KeyStore;
  vault: VaultTools;
  agent: AgentTools;
  /** Copies a disk as at the moment out of the vault's process into a new file. Errors: `api.unreachable`, `not_found`, `state.conflict`. */
  exportDisk(wanted: ExportedDisk, signal: AbortSignal): Promise<ExportedDiskView>;
}

export interface ExportedDisk {
  /** Names the vault's process. */
  readonly config: string;
  readonly environment: string;
  /** Its name in the vault. */
  readonly lineage: string;
  /** Null: the last moment. */
  readonly atMs: number | null;
  /** With `atMs`, the very moment. */
  readonly sequence: number | null;
  readonly output: string;
}

export interface ExportedDiskView {
  readonly volume: string;
  readonly timeMs: number;
  readonly sequence: number;
  readonly sizeBytes: number;
  readonly output: string;
}

export interface DevcloudFlags {
  readonly dialect: "ec2" | "openstack";
  readonly data: string;
  readonly port: number;
  readonly addressBase?: string;
  readonly compute: "process" | "qemu" | "none";
  readonly latency?: string;
  readonly rate?: number;
  readonly region?: string;
  readonly faults?: string;
}

export interface HostFlags {
  readonly config: string;
  readonly site: string;
  readonly json: boolean;
  readonly accelerator?: "tcg" | "kvm";
}

export interface WitnessFlags {
  readonly api: string;
  readonly tokenFile: string;
}

export interface VerifyFlags {
  readonly config: string;
  readonly site: string;
  readonly json: boolean;
  readonly keep: boolean;
}

export interface AccessKeyView {
  readonly accessKeyId: string;
  readonly environment: string;
  readonly rights: "read" | "change";
  readonly enabled: boolean;
  readonly note: string;
}

export interface KeyStore {
  create(
    config: string,
    key: { environment: string; rights: "read" | "change"; note: string },
  ): Promise<{ accessKeyId: string; secretAccessKey: string }>;
  list(config: string): Promise<readonly AccessKeyView[]>;
  disable(config: string, accessKeyId: string): Promise<void>;
}

export interface CommandContext {
  readonly terminal: Terminal;
  readonly launchers: Launchers;
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly version: string;
  /** Aborts on SIGINT and SIGTERM. */
  readonly signal: AbortSignal;
  /** For a command that did its work and still has to say that something is not as it should be. */
  readonly exitWith: (code: number) => void;
}

export async function openApi(context: CommandContext, flags: TargetFlags): Promise<ApiClient> {
  return createApiClient(await findTarget(flags, context.environment));
}

/**
 * For what cannot be undone: the user types the name. Without a terminal, `--confirm NAME` does the same.
 * Errors: `state.confirmation_required`.
 */
export async function confirmTyped(
  context: CommandContext,
  name: string,
  what: string,
  given: string | undefined,
): Promise<void> {
  if (given === name) return;
  if (given === undefined && context.terminal.interactive) {
    const typed = await context.terminal.ask(`${what}\nType "${name}" to go on: `);
    if (typed.trim() === name) return;
  }
  throw new OperationalError("state.confirmation_required", `${what} Confirm with: --confirm ${name}`);
}
