/**
 * A host agent that is to be killed. Arguments: folder, a machine's spec as JSON, what to do with it (`create start pause ...`),
 * and at which checkpoint it kills itself (0: never). Prints each checkpoint and each thing done as a line.
 */
import { writeSync } from "node:fs";
import type { MachineSpecInput } from "#hypervisor/machine-spec.ts";
import { openHost } from "#hypervisor/open-host.ts";

const [folder = "", spec = "{}", actions = "", dieAt = "0"] = process.argv.slice(2);
const input = JSON.parse(spec) as MachineSpecInput;
let checkpoints = 0;

function say(line: string): void {
  writeSync(1, `${line}\n`);
}

const host = await openHost({
  folder,
  accelerator: "tcg",
  checkpoint: (step) => {
    checkpoints++;
    say(`checkpoint ${checkpoints} ${step}`);
    if (checkpoints === Number(dieAt)) process.kill(process.pid, "SIGKILL");
  },
});
await host.resumed;
for (const action of actions.split(" ")) {
  await perform(action);
  say(`done ${action}`);
}
// Until it is killed.
setInterval(() => {}, 1000);

async function perform(action: string): Promise<unknown> {
  switch (action) {
    case "create":
      return host.create(input);
    case "start":
      return host.machine(input.id).start();
    case "pause":
      return host.machine(input.id).pause();
    case "resume":
      return host.machine(input.id).resume();
    case "stop":
      return host.machine(input.id).stop(0);
    case "destroy":
      return host.destroy(input.id);
    default:
      throw new Error(`unknown action ${action}`);
  }
}
