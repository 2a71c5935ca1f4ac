/** What a server's copy must pass before the point that it was made of is called verified, as the user wrote it. */
import type { Tags } from "#model/resource.ts";

export type VerificationCheck =
  | {
      readonly type: "http";
      readonly port: number;
      readonly path: string;
      readonly status: number;
      readonly contains?: string;
    }
  | { readonly type: "tcp"; readonly port: number }
  /** By the guest's agent: that it answers, or that a program in the guest ends with 0. */
  | {
      readonly type: "agent";
      readonly program: { readonly path: string; readonly args: readonly string[] } | null;
    }
  /** A program here, that is told the server's address. */
  | { readonly type: "script"; readonly path: string };

export interface Verification {
  readonly name: string;
  /** Servers that bear all these tags. */
  readonly select: Tags;
  /** How long a server may take until it holds, in milliseconds. */
  readonly withinMs: number;
  /** Of one attempt, in milliseconds. */
  readonly timeoutMs: number;
  readonly check: VerificationCheck;
}
