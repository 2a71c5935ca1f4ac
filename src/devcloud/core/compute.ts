/** The compute port: what runs servers. The lifecycle calls it; drivers live in devcloud/compute. */

/** Everything a server's machine needs to know. */
export interface ServerLaunch {
  readonly id: string;
  readonly name: string;
  /** Loopback address on which it should listen. */
  readonly address: string;
  readonly privateIp: string | null;
  readonly publicIp: string | null;
  readonly imageId: string;
  readonly type: string;
  readonly vcpus: number;
  readonly memoryMiB: number;
  /** Rises with each start and reboot. */
  readonly boot: number;
  readonly zone: string;
  readonly region: string;
  readonly macs: readonly string[];
  readonly groupNames: readonly string[];
  readonly keyName: string | null;
  readonly publicKey: string | null;
  /** Base64; null: no process. */
  readonly userData: string | null;
  readonly tags: Readonly<Record<string, string>>;
}

/** `exited`: the machine is on but its program is gone; `absent`: not started. */
export type ComputeStatus = "running" | "exited" | "absent";

export interface Compute {
  /** Whether servers answer on their addresses, so that public addresses are worth relaying. */
  readonly reachable: boolean;
  /**
   * Starting what this process has started already is an error of the caller. A machine of the same boot that outlived the last
   * process is taken over as it is. Rejects if the machine cannot be started at all; then nothing of it runs.
   */
  start(server: ServerLaunch): Promise<void>;
  /** Resolves when nothing of it runs any more; also for one that never ran. */
  stop(id: string): Promise<void>;
  status(id: string): ComputeStatus;
  /** The end of what it printed; empty for one that never ran. */
  console(id: string): Buffer;
  /** Forgets console output and files of a server that is gone. */
  forget(id: string): Promise<void>;
  /** Tags and addresses as they are now, for the metadata service; ignored for one that does not run. */
  refresh(server: ServerLaunch): void;
  /** The driver ends. Machines that outlive it are left as they are: the lifecycle stops them before, where they are to end. */
  close(): Promise<void>;
}
