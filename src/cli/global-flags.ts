import { InvalidArgumentError, type Command } from "commander";
import type { TargetFlags } from "#cli/api-client.ts";

export type GlobalFlags = TargetFlags & { readonly json: boolean };

/** The flags that every command has, wherever on the line they stand. */
export function globalFlags(command: Command): GlobalFlags {
  return command.optsWithGlobals<GlobalFlags>();
}

export function examples(...lines: readonly string[]): string {
  const shown = lines.map((line) => `  $ ${line}`).join("\n");
  return `\nExamples\n${shown}\n\nExit codes: see understudy --help\n`;
}

/** An option's value: `20`; nothing that only begins like a number. */
export function wholeNumber(text: string): number {
  if (!/^\d{1,9}$/u.test(text)) throw new InvalidArgumentError("It takes a whole number.");
  return Number(text);
}

export function positiveNumber(text: string): number {
  const value = Number(text);
  if (!/^[\d.]{1,12}$/u.test(text) || !(value > 0))
    throw new InvalidArgumentError("It takes a number above 0.");
  return value;
}
