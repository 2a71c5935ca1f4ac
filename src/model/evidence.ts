/** What was seen of an environment's copy when it was booted and probed: kept beside the recovery point that it was made of. */

export interface CheckVerdict {
  /** As it is called in the configuration. */
  readonly check: string;
  /** Null: it held. */
  readonly problem: string | null;
  /** What a program printed last; bounded. */
  readonly output: string;
}

export interface ServerEvidence {
  /** Where the environment is served. */
  readonly id: string;
  readonly name: string;
  /** Its copy, where that was booted. */
  readonly copyId: string;
  readonly verdicts: readonly CheckVerdict[];
  /** The end of what it printed; null: nobody could be asked, or there was no room. */
  readonly console: string | null;
  /** PNG, base64; null: it has no display, or there was no room. */
  readonly screenshot: string | null;
}

export interface Evidence {
  /** Milliseconds since the epoch. */
  readonly at: number;
  /** All of it held, and every server was up. */
  readonly good: boolean;
  readonly summary: string;
  readonly servers: readonly ServerEvidence[];
}

const consoleChars = 16_384;
const outputChars = 4096;
const screenshotChars = 200_000;
/** One message between our own processes holds it all. */
const totalChars = 600_000;

/** Within bounds, whatever was found: output and consoles lose their beginning; what has no room any more is left out. */
export function boundEvidence(evidence: Evidence): Evidence {
  let room = totalChars;
  const take = (text: string | null, most: number): string | null => {
    if (text === null) return null;
    const kept = text.slice(-most);
    if (kept.length > room) return null;
    room -= kept.length;
    return kept;
  };
  const servers = evidence.servers.map((server) => ({
    ...server,
    verdicts: server.verdicts.map((one) => ({
      ...one,
      problem: one.problem === null ? null : one.problem.slice(0, 1000),
      output: take(one.output, outputChars) ?? "",
    })),
    console: take(server.console, consoleChars),
    // Half a picture is none.
    screenshot:
      (server.screenshot?.length ?? 0) > screenshotChars ? null : take(server.screenshot, screenshotChars),
  }));
  return { ...evidence, summary: evidence.summary.slice(0, 4000), servers };
}
