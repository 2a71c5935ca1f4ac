/** A devcloud with real guests as a process of its own, which tests kill; at the end nothing of it runs any more. */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import http from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { readGuestImage } from "#hypervisor/guest/build-guest-image.ts";

const missing = ["qemu-system-x86_64", "qemu-img", "qemu-nbd"].filter((name) => {
  try {
    execFileSync("which", [name], { stdio: "ignore" });
    return false;
  } catch {
    return true;
  }
});

/** For `test`'s options: why it cannot run here; in strict mode that is an error. */
export const skip: string | false =
  missing.length > 0
    ? `missing: ${missing.join(", ")}`
    : (await readGuestImage()) === null
      ? "the guest image is missing: script/guest-image"
      : false;
if (skip !== false && process.env["UNDERSTUDY_STRICT"] === "1") throw new Error(skip);

export interface Ready {
  readonly endpoint: string;
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly adminToken: string;
  readonly hostSocket: string;
}

export class Stage implements AsyncDisposable {
  readonly data = mkdtempSync(join(tmpdir(), "devcloud-qemu-"));
  readonly #arguments: readonly string[];
  #child: ChildProcess | null = null;

  /** `guestMemoryMiB`: of all guests together; a small one costs 168. */
  constructor(dialect: "ec2" | "openstack", addressBase: string, guestMemoryMiB: number) {
    const limits = join(this.data, "limits.json");
    writeFileSync(limits, JSON.stringify({ guestMemoryMiB }));
    const own = [
      "--limits",
      limits,
      "--dialect",
      dialect,
      "--accelerator",
      "tcg",
      "--compute",
      "qemu",
      "--address-base",
      addressBase,
      "--boot-ms",
      "0",
    ];
    this.#arguments = ["src/devcloud/devcloud-main.ts", "--data", this.data, ...own];
  }

  async start(): Promise<Ready> {
    const child = spawn(process.execPath, this.#arguments, { stdio: ["ignore", "pipe", "inherit"] });
    this.#child = child;
    const first = await Promise.race([
      once(createInterface({ input: child.stdout }), "line").then(([line]) => String(line)),
      once(child, "exit").then(([code]) => {
        throw new Error(`devcloud ended with ${String(code)} before it was ready`);
      }),
    ]);
    const ready = JSON.parse(first) as Record<string, string>;
    const read = (name: string): string => readFileSync(ready[name] ?? "", "utf8").trim();
    return {
      endpoint: ready["endpoint"] ?? "",
      accessKeyId: ready["accessKeyId"] ?? "",
      secretAccessKey: read("secretKeyFile"),
      adminToken: read("adminTokenFile"),
      hostSocket: ready["hostSocket"] ?? "",
    };
  }

  /** On the same data, after it was ended; every server that was to run has been taken over, or booted, when it returns. */
  async again(): Promise<Ready> {
    const ready = await this.start();
    const answer = await fetch(`${ready.endpoint}/_devcloud/settle`, {
      method: "POST",
      headers: { authorization: `Bearer ${ready.adminToken}` },
    });
    if (!answer.ok) throw new Error(`settle: ${answer.status}`);
    return ready;
  }

  async end(signal: "SIGTERM" | "SIGKILL"): Promise<void> {
    const child = this.#child;
    if (child === null || child.exitCode !== null || child.signalCode !== null) return;
    const gone = once(child, "exit");
    child.kill(signal);
    await gone;
  }

  /** The process that runs a server's guest; null: none. */
  guestPid(serverId: string): number | null {
    try {
      const pid = Number(readFileSync(join(this.data, "host/machines", serverId, "qemu.pid"), "utf8"));
      return isRunning(pid) ? pid : null;
    } catch {
      return null;
    }
  }

  volumeFile(volumeId: string): string {
    return join(this.data, "volumes", `${volumeId}.qcow2`);
  }

  volumeGiB(volumeId: string): number {
    const args = ["info", "-U", "--output=json", this.volumeFile(volumeId)];
    const text = execFileSync("qemu-img", args, { encoding: "utf8" });
    return (JSON.parse(text) as { "virtual-size": number })["virtual-size"] / 1024 ** 3;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.end("SIGTERM");
    let left: string[] = [];
    try {
      left = readdirSync(join(this.data, "host/machines"));
    } catch {
      // It never had any.
    }
    for (const id of left) {
      const pid = this.guestPid(id);
      if (pid !== null) process.kill(pid, "SIGKILL");
    }
    rmSync(this.data, { recursive: true, force: true, maxRetries: 10 });
  }
}

export function isRunning(pid: number): boolean {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    return !stat.slice(stat.lastIndexOf(")") + 2).startsWith("Z");
  } catch {
    return false;
  }
}

/** The body of a GET, asked again until the guest answers; the test's signal bounds it. */
export async function get(url: string, signal: AbortSignal): Promise<string> {
  for (;;) {
    const answer = await getOnce(url).catch(() => null);
    if (answer !== null) return answer;
    signal.throwIfAborted();
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}

/** Of the first answer that comes. */
export async function statusOf(url: string, signal: AbortSignal): Promise<number> {
  for (;;) {
    try {
      await getOnce(url);
      return 200;
    } catch (error) {
      const status = /^HTTP (\d+)$/u.exec((error as Error).message)?.[1];
      if (status !== undefined) return Number(status);
    }
    signal.throwIfAborted();
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}

/** Rejects unless it answers 200 soon. */
export function getOnce(url: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const request = http.get(url, { agent: false, timeout: 3000 }, (response) => {
      let text = "";
      response.setEncoding("utf8");
      response.on("data", (chunk: string) => (text += chunk));
      response.on("error", reject);
      response.on("end", () => {
        if (response.statusCode === 200) resolve(text.trim());
        else reject(new Error(`HTTP ${response.statusCode}`));
      });
    });
    request.on("timeout", () => request.destroy(new Error("no answer")));
    request.on("error", reject);
  });
}

/** Repeats until `probe` gives a value; the signal bounds it. */
export async function until<Value>(
  probe: () => Promise<Value | undefined | false>,
  signal: AbortSignal,
): Promise<Value> {
  for (;;) {
    const found = await probe();
    if (found !== undefined && found !== false) return found;
    signal.throwIfAborted();
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}

/**
 * Waits for the disk with this serial number, makes a file system on it if there is none, adds a line to a file on it, and
 * serves that over HTTP on port 80. /cgi-bin/append adds a line, /cgi-bin/release lets the disk go, /cgi-bin/off ends the guest.
 */
export function servesFrom(serial: string, line: string): string {
  const folder = `/disks/${serial}`;
  return `#!/bin/sh
mkdir -p /www/cgi-bin
cat >/www/cgi-bin/release <<'END'
#!/bin/sh
touch /tmp/release
printf 'Content-Type: text/plain\\r\\n\\r\\nreleasing'
END
cat >/www/cgi-bin/lines <<'END'
#!/bin/sh
printf 'Content-Type: text/plain\\r\\n\\r\\n'
cat ${folder}/lines
END
cat >/www/cgi-bin/append <<'END'
#!/bin/sh
echo more >>${folder}/lines && sync
printf 'Content-Type: text/plain\\r\\n\\r\\nappended'
END
cat >/www/cgi-bin/off <<'END'
#!/bin/sh
poweroff -f
END
chmod 755 /www/cgi-bin/*
until device=$(disk-of ${serial}); do sleep 0.1; done
mkdir -p ${folder}
if ! grep -q " ${folder} " /proc/mounts && ! mount -t ext4 $device ${folder} 2>/dev/null; then
  mke2fs $device >/dev/null && mount -t ext4 $device ${folder}
fi
echo "${line}" >>${folder}/lines
sync
echo "serving from $device"
httpd -h /www
until [ -e /tmp/release ]; do sleep 0.1; done
umount ${folder} && echo "released ${serial}"
`;
}
