// A host agent that is to be killed. Arguments: the configuration's path, the site, and how many resources a page of a listing holds.
// Prints a line when it is ready; ends in order when its input ends, and its guests run on.
import { readConfig } from "#config/read-config.ts";
import { systemClock } from "#kernel/clock.ts";
import { systemRandom } from "#kernel/random.ts";
import { startHostAgent } from "#main/host-agent.ts";
import { createPinoLog } from "#main/pino-log.ts";

const [, , path = "", site = "", pageSize = "200"] = process.argv;
const { config } = readConfig(path);
const log = createPinoLog(process.env["HOST_LOG"] ?? "error");
const ports = { clock: systemClock, random: systemRandom, log, pageSize: Number(pageSize), stopGraceMs: 500 };
const agent = await startHostAgent(config, site, ports, "tcg");
console.log("ready");
process.stdin.resume().once("end", () => {
  void agent[Symbol.asyncDispose]().then(() => process.exit(0));
});
