/** Idempotency tokens: the same request again gets the first one's resources, another request under the same token is refused. */
import { createHash } from "node:crypto";
import { canonicalJson } from "#kernel/json.ts";
import type { Cloud } from "./cloud.ts";
import { refuse } from "./refusal.ts";

export interface TokenUse {
  /** Tokens of different operations do not meet. */
  readonly operation: string;
  /** Absent: not idempotent. */
  readonly token: string | undefined;
  /** Whatever must be equal in a repetition. */
  readonly parameters: unknown;
}

/** The ids that `create` returned, or those that it returned when the token was first used. */
export function idempotent(cloud: Cloud, use: TokenUse, create: () => readonly string[]): readonly string[] {
  if (use.token === undefined || use.token === "") return create();
  const { token: tokens } = cloud.data.tables;
  const id = `${use.operation}/${use.token}`;
  const parametersHash = createHash("sha256").update(canonicalJson(use.parameters)).digest("hex");
  const known = tokens.get(id);
  if (known !== undefined) {
    if (known.parametersHash !== parametersHash) refuse({ code: "token_mismatch", token: use.token });
    return known.resultIds;
  }
  const resultIds = create();
  tokens.put({
    id,
    name: use.token,
    createdAt: cloud.clock.now(),
    tags: {},
    extra: {},
    parametersHash,
    resultIds,
  });
  return resultIds;
}
