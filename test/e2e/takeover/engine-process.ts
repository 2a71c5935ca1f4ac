// The control plane as a process of its own, which dies (SIGKILL) at its n-th durable step after it was armed. Arguments:
// the configuration's path, and at which step from its very start it dies (0: never). `arm N` on stdin starts a count of its own.
import { createInterface } from "node:readline";
import { readConfig } from "#config/read-config.ts";
import { systemClock } from "#kernel/clock.ts";
import { systemRandom } from "#kernel/random.ts";
import { startEngine } from "#main/engine.ts";
import { createPinoLog } from "#main/pino-log.ts";

const [, , path = "", killAtStart = "0"] = process.argv;
let killAt = Number(killAtStart);
let steps = 0;

const { config, folder } = readConfig(path);
const engine = await startEngine({
  config,
  folder,
  version: "0.0.0",
  clock: systemClock,
  random: systemRandom,
  log: createPinoLog(process.env["ENGINE_LOG"] ?? "error"),
  // Synchronous, before any caller is told: what is on disk is all that the next process will know.
  onCommit: () => {
    steps += 1;
    if (steps === killAt) process.kill(process.pid, "SIGKILL");
  },
});
console.log(JSON.stringify({ gateway: engine.gatewayUrl, api: engine.apiUrl }));

const lines = createInterface({ input: process.stdin });
lines.on("line", (line) => {
  const [word, count] = line.split(" ");
  if (word === "arm") {
    steps = 0;
    killAt = Number(count);
    console.log("armed");
  }
  if (word === "steps") console.log(String(steps));
});
lines.once("close", () => {
  void engine.close().then(() => process.exit(0));
});
