/** Whether writes to loop devices can be traced here: root, loop devices, and tracefs, which is mounted where it is not. */
import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";

const folder = "/sys/kernel/tracing";

function canTrace(): boolean {
  try {
    execFileSync("losetup", ["--find"], { stdio: "ignore" });
    if (!existsSync(`${folder}/instances`))
      execFileSync("mount", ["-t", "tracefs", "tracefs", folder], { stdio: "ignore" });
    return existsSync(`${folder}/instances`) && existsSync(`${folder}/events/block/block_bio_queue`);
  } catch {
    return false;
  }
}

export const traceSkip =
  process.getuid?.() === 0 && canTrace()
    ? false
    : "needs root, loop devices and the kernel's block events (tracefs)";
