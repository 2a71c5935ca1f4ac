/**
 * KVM or TCG. That /dev/kvm opens says nothing: under nested PVM QEMU even reports KVM as enabled, and a kernel then runs in
 * the host's instruction emulator, tens of times slower than under TCG. A timed boot of the small guest says it.
 */
import { spawn } from "node:child_process";
import { access, constants, readFile } from "node:fs/promises";
import { join } from "node:path";
import { readFileIfAny, replaceFile } from "#kernel/durable-file.ts";
import type { Clock } from "#kernel/clock.ts";
import { readGuestImage } from "./guest/build-guest-image.ts";
import type { Accelerator } from "./plan-command-line.ts";
import { QEMU } from "./qemu-process.ts";

export interface ChooseOptions {
  /** The answer is kept here until the host is booted again. */
  readonly folder: string;
  readonly clock: Clock;
  readonly signal?: AbortSignal | undefined;
}

const ANSWER_FILE = "accelerator.json";
/** TCG takes 1.6 s for the same boot, KVM a fraction of it. */
const PROBE_LIMIT_MS = 3000;

/** `tcg` unless KVM has booted the small guest in time. Without a guest image nothing can be shown: `tcg`. */
export async function chooseAccelerator(options: ChooseOptions): Promise<Accelerator> {
  try {
    await access("/dev/kvm", constants.R_OK | constants.W_OK);
  } catch {
    return "tcg";
  }
  const bootId = (await readFile("/proc/sys/kernel/random/boot_id", "latin1")).trim();
  const path = join(options.folder, ANSWER_FILE);
  const kept = await readFileIfAny(path);
  if (kept !== null) {
    const answer = JSON.parse(kept) as { bootId: string; accelerator: Accelerator };
    if (answer.bootId === bootId) return answer.accelerator;
  }
  const image = await readGuestImage();
  if (image === null) return "tcg";
  const accelerator = (await bootsUnderKvm(image.kernelPath, image.initrdPath, options)) ? "kvm" : "tcg";
  await replaceFile(path, JSON.stringify({ bootId, accelerator }));
  return accelerator;
}

async function bootsUnderKvm(kernel: string, initrd: string, options: ChooseOptions): Promise<boolean> {
  const child = spawn(
    QEMU,
    [
      "-nodefaults",
      "-no-user-config",
      "-display",
      "none",
      "-M",
      "q35,usb=off,smm=off",
      "-accel",
      "kvm",
      "-cpu",
      "host",
      "-m",
      "128",
      "-bios",
      "qboot.rom",
      "-kernel",
      kernel,
      "-initrd",
      initrd,
      "-append",
      "console=ttyS0 quiet",
      "-serial",
      "stdio",
    ],
    { stdio: ["ignore", "pipe", "ignore"] },
  );
  const over = new AbortController();
  const signals = options.signal === undefined ? [over.signal] : [over.signal, options.signal];
  try {
    return await new Promise<boolean>((resolve) => {
      let text = "";
      child.once("error", () => resolve(false));
      child.once("exit", () => resolve(false));
      child.stdout.on("data", (chunk: Buffer) => {
        text += chunk.toString("latin1");
        if (text.includes("guest: ready")) resolve(true);
      });
      const limit = options.clock.sleep(PROBE_LIMIT_MS, AbortSignal.any(signals));
      void limit.catch(() => {}).then(() => resolve(false));
    });
  } finally {
    over.abort();
    child.kill("SIGKILL");
  }
}
