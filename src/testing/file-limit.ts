/**
 * Loaded before each test file (`node --test --import`): one that goes on for longer than any of its tests may, because one left a process or
 * a socket open, ends here with the names of what is open. Otherwise nothing would end it.
 */
import { readFileSync } from "node:fs";

const LIMIT_MS = 16 * 60_000;

/** Those that this process started and has not waited for; where the kernel does not tell, none. */
function children(): number[] {
  try {
    const text = readFileSync(`/proc/self/task/${process.pid}/children`, "utf8").trim();
    return text === "" ? [] : text.split(" ").map(Number);
  } catch {
    return [];
  }
}

// Also loaded by the process that starts one for each file.
if (process.env["NODE_TEST_CONTEXT"] !== undefined) {
  setTimeout(() => {
    const open = process.getActiveResourcesInfo().join(", ");
    process.stderr.write(`this test file has not ended after ${LIMIT_MS / 60_000} minutes; open: ${open}\n`);
    // They have our standard error, and whoever reads it would wait for them.
    for (const pid of children()) {
      try {
        process.kill(pid, "SIGKILL");
      } catch {
        // Somebody else's, or gone: this file ends all the same.
      }
    }
    process.exit(1);
  }, LIMIT_MS).unref();
}
