import type { Journal, PositionedChanges } from "#journal/contract.ts";
import type { EnvironmentId } from "#kernel/ids.ts";
import { EnvironmentState } from "#model/environment-state.ts";
import type { Resource, ResourceKind } from "#model/resource.ts";
import type { JournalFollower } from "./follow-journal.ts";

/**
 * What an environment is made of after every command whose caller was answered, while the record of it is still being folded: for
 * whoever tells what the next command changes. `DeleteTags` with a value removes the tag only if it has that value, which a command
 * of a moment ago may have given it.
 */
export class KnownNow implements Disposable {
  readonly #follower: Pick<JournalFollower, "state" | "position">;
  /** Of commands that the follower has not folded yet, in their order. */
  #recent: PositionedChanges[] = [];
  readonly #forget: () => void;

  constructor(
    journal: Pick<Journal, "onOutcome">,
    environment: EnvironmentId,
    follower: Pick<JournalFollower, "state" | "position">,
  ) {
    this.#follower = follower;
    this.#forget = journal.onOutcome(environment, (outcome) => {
      this.#recent = this.#unfolded();
      if (outcome.changes.length > 0) this.#recent.push(outcome);
    });
  }

  get(kind: ResourceKind, id: string): Resource | undefined {
    const folded = this.#follower.state.get(kind, id);
    const changes = this.#unfolded()
      .flatMap((outcome) => outcome.changes)
      .filter((change) => change.kind === kind);
    if (changes.length === 0) return folded;
    // What the follower has folded and not made durable is applied twice: the end is the same.
    const now = EnvironmentState.of(folded === undefined ? [] : [folded]);
    for (const change of changes) now.apply(change);
    return now.get(kind, id) ?? (folded !== undefined ? now.get(kind, folded.id) : undefined);
  }

  [Symbol.dispose](): void {
    this.#forget();
  }

  #unfolded(): PositionedChanges[] {
    const { position } = this.#follower;
    const first = this.#recent[0];
    if (first === undefined || first.position > position) return this.#recent;
    return this.#recent.filter((outcome) => outcome.position > position);
  }
}
