/** An agent's own configuration, on the machine whose disks it reads. Every object is strict, as in understudy.yaml. */
import { dirname, resolve } from "node:path";
import { z } from "zod";
import { checkDocument, type ConfigProblem, formatProblems } from "#config/check-document.ts";
import { byteSize, duration, secretReference } from "#config/config-schema.ts";
import { readConfigText } from "#config/read-config.ts";
import { isOperational, OperationalError } from "#kernel/errors.ts";

const command = z.array(z.string().min(1)).min(1);
const absolute = z.string().regex(/^\//u, "a path here begins with /");

/** `22:00-06:00` -> minutes since midnight. */
const timeRange = z
  .string()
  .regex(/^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$/u, "a range looks like 22:00-06:00")
  .transform((text) => {
    const [fromMinute = 0, toMinute = 0] = text.split("-").map((time) => {
      const [hour = 0, minute = 0] = time.split(":").map(Number);
      return hour * 60 + minute;
    });
    return { fromMinute, toMinute };
  });

const consistency = z.strictObject({
  /** Mount points of the file systems on the disks: frozen while the disks are read. */
  freeze: z.array(absolute).default([]),
  hook: z
    .strictObject({
      before: command.optional(),
      /** Run whatever happened, perhaps twice. */
      after: command.optional(),
    })
    .optional(),
  /** What the disks' content is while they are held; `application` where the hook lets an application write out what it holds. */
  gives: z.enum(["crash", "application"]).default("crash"),
  /** Disks that could not be read in this time are let go, and the pass is no moment of them. */
  limit: duration.prefault("10s"),
  hookLimit: duration.prefault("1m"),
});

const agentSchema = z.strictObject({
  version: z.literal(1),
  state: z.string().min(1).default("./understudy-agent"),
  vault: z.strictObject({
    url: z.url().regex(/^https:\/\//u, "the vault's intake speaks HTTPS"),
    key: secretReference,
    /** PEM file; without it, the machine's own CAs. */
    ca: z.string().min(1).optional(),
  }),
  disks: z
    .array(
      z.strictObject({
        /** Its name in the vault: the id of the volume in its cloud. */
        volume: z.string().regex(/^[^/\p{C}]{1,64}$/u, "a volume is named by its id"),
        path: absolute,
        /** What the hook makes of it: a snapshot that stands still. */
        snapshot: absolute.optional(),
      }),
    )
    .min(1),
  every: duration.prefault("10m"),
  /** At the latest, a pass reads whole disks, although the kernel told what was written. */
  wholeEvery: duration.prefault("1d"),
  consistency: consistency.optional(),
  spoolLimit: byteSize.prefault("10GiB"),
  /** A second. */
  bandwidth: byteSize.optional(),
  window: z
    .strictObject({ zone: z.enum(["utc", "local"]).default("utc"), ranges: z.array(timeRange).min(1) })
    .optional(),
});

export type AgentConfig = z.output<typeof agentSchema>;

/** Smaller, and the spool holds not even two parts. */
const minSpoolBytes = 32 * 1024 * 1024;

export type AgentConfigCheck =
  | { readonly ok: true; readonly config: AgentConfig }
  | { readonly ok: false; readonly problems: readonly ConfigProblem[] };

/** Pure. */
export function checkAgentConfig(text: string): AgentConfigCheck {
  const document = checkDocument(text, agentSchema);
  if (!document.ok) return document;
  const { value, lineOf } = document;
  const problems = crossChecks(value).map(({ path, message }) => ({
    line: lineOf(path),
    path: path.join("."),
    message,
  }));
  return problems.length > 0 ? { ok: false, problems } : { ok: true, config: value };
}

/** Relative paths are relative to the file's own folder. Errors: `config.missing`, `config.invalid`. */
export function readAgentConfig(path: string): { readonly config: AgentConfig; readonly folder: string } {
  const check = checkAgentConfig(readAgentText(path));
  if (!check.ok) throw new OperationalError("config.invalid", formatProblems(path, check.problems));
  const { config } = check;
  const folder = dirname(resolve(path));
  const { ca } = config.vault;
  const vault = { ...config.vault, ...(ca !== undefined && { ca: resolve(folder, ca) }) };
  return { config: { ...config, state: resolve(folder, config.state), vault }, folder };
}

function readAgentText(path: string): string {
  try {
    return readConfigText(path);
  } catch (error) {
    if (!isOperational(error, "config.missing") || (error.cause as NodeJS.ErrnoException).code !== "ENOENT")
      throw error;
    const advice = `there is no ${path}: an agent's configuration is in docs/guide/agent.md; name yours with --config`;
    throw new OperationalError("config.missing", advice, { cause: error });
  }
}

interface Finding {
  readonly path: readonly PropertyKey[];
  readonly message: string;
}

function crossChecks({ disks, consistency: held, spoolLimit }: AgentConfig): Finding[] {
  const findings: Finding[] = [];
  for (const key of ["volume", "path"] as const) {
    for (const [index, disk] of disks.entries()) {
      if (disks.findIndex((one) => one[key] === disk[key]) === index) continue;
      findings.push({ path: ["disks", index, key], message: `two disks have the ${key} ${disk[key]}` });
    }
  }
  const snapshot = disks.findIndex((disk) => disk.snapshot !== undefined);
  if (snapshot >= 0 && held?.hook?.before === undefined) {
    const message = "a snapshot is made by `consistency.hook.before`: there is none";
    findings.push({ path: ["disks", snapshot, "snapshot"], message });
  }
  if (snapshot >= 0 && (held?.freeze.length ?? 0) > 0) {
    const message =
      "with a snapshot nothing is to be frozen: freeze within the hook, while the snapshot is made";
    findings.push({ path: ["consistency", "freeze"], message });
  }
  if (held !== undefined && held.freeze.length === 0 && held.hook === undefined) {
    findings.push({
      path: ["consistency"],
      message: "name what holds the disks still: `freeze`, or a `hook`",
    });
  }
  if (held?.gives === "application" && held.hook?.before === undefined) {
    const message =
      "only a hook can let an application write out what it holds: add `hook.before`, or take `crash`";
    findings.push({ path: ["consistency", "gives"], message });
  }
  if (spoolLimit < minSpoolBytes)
    findings.push({ path: ["spoolLimit"], message: "the spool needs 32MiB or more" });
  return findings;
}
