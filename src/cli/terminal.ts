/** Where commands write, and how they ask. Tests give their own. */
export interface Terminal {
  /** Results. */
  out(text: string): void;
  /** Progress, warnings and errors. */
  err(text: string): void;
  readonly interactive: boolean;
  /** Resolves to what the user typed; only called when `interactive`. */
  ask(question: string): Promise<string>;
}
