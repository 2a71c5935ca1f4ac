// Builds the small guest that the machine tests and the demo run: see docs/guide/machines.md. Usage: script/guest-image [FOLDER]
import { execFileSync } from "node:child_process";
import { buildGuestImage } from "#hypervisor/guest/build-guest-image.ts";
import { publicMessage } from "#kernel/errors.ts";

function progress(line: string): void {
  process.stderr.write(`guest-image: ${line}\n`);
}

try {
  const image = await buildGuestImage({
    progress,
    ...(process.argv[2] !== undefined && { folder: process.argv[2] }),
  });
  try {
    execFileSync("qemu-system-x86_64", ["--version"], { stdio: "ignore" });
  } catch {
    progress(
      "built, but qemu-system-x86_64 is missing: apt-get install qemu-system-x86 qemu-utils e2fsprogs",
    );
  }
  console.log(JSON.stringify(image));
} catch (error) {
  progress(publicMessage(error));
  process.exitCode = 1;
}
