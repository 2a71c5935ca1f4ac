/** `understudy recover`: back to a moment, where and how much of it the flags say. */
import type { Command } from "commander";
import { confirmTyped, openApi, type CommandContext } from "#cli/command-context.ts";
import { chooseEnvironment } from "#cli/environment-commands.ts";
import { examples, globalFlags, wholeNumber } from "#cli/global-flags.ts";
import { describeMoment, momentOf, type RunFlags, withMoment, withRun } from "#cli/moment-flags.ts";
import { beginRun } from "#cli/run-commands.ts";
import { OperationalError } from "#kernel/errors.ts";
import type { RunKind } from "#model/run.ts";

interface RecoverFlags extends RunFlags {
  readonly live?: boolean;
  readonly here?: boolean;
  readonly isolated?: boolean;
  readonly server: readonly string[];
  readonly volume: readonly string[];
  readonly hold?: number;
  readonly force?: boolean;
}

const collected = (one: string, before: readonly string[]): readonly string[] => [...before, one];

export function addRecover(program: Command, context: CommandContext): void {
  const command = program
    .command("recover [environment]")
    .description(
      "bring disks back to a named moment: the environment at its standby site; with --live also where it is, a part of it, or a copy",
    )
    .addHelpText(
      "after",
      examples(
        'understudy recover shop --at "20s ago"',
        "understudy recover shop --point point-1a2b3c4d --live",
        'understudy recover shop --at "1h ago" --live --server db-1',
        'understudy recover shop --at "1h ago" --live --here --confirm shop',
        'understudy recover shop --at "1h ago" --live --server db-1 --isolated --hold 600',
      ),
    )
    .option(
      "--live",
      "servers run while their disks come over: followed until they are whole, which needs nobody to watch",
    )
    .option("--here", "with --live: where the environment is served, instead of at its standby site")
    .option(
      "--server <server>",
      "with --live: this server alone, by id or name; again for more",
      collected,
      [],
    )
    .option(
      "--volume <volume>",
      "with --live: this volume and its servers alone; again for more",
      collected,
      [],
    )
    .option("--isolated", "with --live: a copy at the standby site that no user reaches; needs --hold")
    .option("--hold <seconds>", "with --isolated: leave it standing so long", wholeNumber)
    .option("--confirm <environment>", "instead of typing the environment's name")
    .option(
      "--force",
      "go on although the active site can't be fenced, or what its disks hold now is not in the vault; needs --reason",
    );
  withRun(withMoment(command, "protected disks")).action(
    async (name: string | undefined, options: RecoverFlags, self: Command) => {
      const flags = globalFlags(self);
      const plan = planRecovery(options);
      const api = await openApi(context, flags);
      const environment = await chooseEnvironment(api, name);
      const moment = await momentOf(api, environment, options, true);
      if (plan.warning !== null) {
        await confirmTyped(context, environment, plan.warning(describeMoment(moment)), options.confirm);
      }
      await beginRun(context, api, environment, {
        body: { ...plan.body, reason: options.reason, ...moment },
        wait: options.wait,
        json: flags.json,
        copies: plan.copies,
      });
    },
  );
}

interface RecoveryPlan {
  readonly body: { readonly kind: RunKind } & Readonly<Record<string, unknown>>;
  /** Null: nothing that exists is changed. */
  readonly warning: ((moment: string) => string) | null;
  readonly copies: boolean;
}

/** Which run the flags ask for. Errors: `input.invalid` for those that mean nothing together. */
function planRecovery(options: RecoverFlags): RecoveryPlan {
  const { live = false, here = false, isolated = false, server, volume, hold, force = false } = options;
  const named = server.length + volume.length > 0;
  if (!live && (here || isolated || named)) {
    throw new OperationalError(
      "input.invalid",
      "--here, --server, --volume and --isolated are ways of --live",
    );
  }
  if (isolated !== (hold !== undefined)) {
    throw new OperationalError(
      "input.invalid",
      "--isolated needs --hold SECONDS, and --hold goes with --isolated",
    );
  }
  if (isolated && (here || force)) {
    throw new OperationalError(
      "input.invalid",
      "--isolated makes a copy at the standby site: neither --here nor --force goes with it",
    );
  }
  if (force && options.reason === undefined) {
    throw new OperationalError("input.invalid", "--force needs --reason: why is kept with the run");
  }
  const part = {
    ...(server.length === 0 ? {} : { servers: server }),
    ...(volume.length === 0 ? {} : { volumes: volume }),
  };
  if (hold !== undefined) {
    return { body: { kind: "drill", holdMs: hold * 1000, ...part }, warning: null, copies: false };
  }
  if (here || named) {
    const what = named ? [...server, ...volume].join(", ") : "every protected disk";
    return {
      body: { kind: "restore", live: true, force, ...part },
      warning: (moment) =>
        `${what} is replaced by its content of ${moment}, and its servers are stopped for a moment. What it was given since can be gone back to as long as the vault keeps it.`,
      copies: true,
    };
  }
  return {
    body: { kind: "failover", force },
    warning: (moment) =>
      `The environment goes back to ${moment}: what its disks were given since is not in it, and all users are moved.`,
    copies: live,
  };
}
