/** What a probe or agent says about the state of things, and how bad it is. */

/** `source`: about the active site; `environment`: about the application that runs there. */
export const noticeCodes = {
  "cloud.api_unreachable": { about: "source", severity: "critical", text: "the cloud's API does not answer" },
  "cloud.api_failing": {
    about: "source",
    severity: "major",
    text: "the cloud's API answers with server errors",
  },
  "application.unresponsive": {
    about: "environment",
    severity: "critical",
    text: "the application does not answer",
  },
  "application.failing": {
    about: "environment",
    severity: "major",
    text: "the application answers with errors",
  },
  "machine.failed": { about: "environment", severity: "critical", text: "a machine has failed" },
  "service.failed": { about: "environment", severity: "major", text: "a service has failed" },
  "network.malfunction": {
    about: "environment",
    severity: "major",
    text: "the network loses or refuses traffic",
  },
} as const;

export type NoticeCode = keyof typeof noticeCodes;
export type NoticeSeverity = "critical" | "major" | "minor" | "clear";

export interface Notice {
  readonly environment: string;
  /** Who says so. */
  readonly witness: string;
  /** The probe that saw it; a witness may run several. */
  readonly probe: string;
  readonly code: NoticeCode;
  /** True: it is so now. False: it is over. */
  readonly raised: boolean;
  /** What was seen, e.g. `connect ECONNREFUSED`. */
  readonly detail: string;
  readonly at: number;
}
