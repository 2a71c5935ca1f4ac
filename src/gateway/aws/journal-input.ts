/** A command's input as the journal keeps it: without secrets, but with the user data that a rebuilt server needs. */
import type { AwsOperation } from "#wire/aws/service-model.ts";
import type { PlainObject, PlainValue } from "#wire/aws/query-decode.ts";

/** `Options.TunnelOptions[].PreSharedKey` as steps: a member, `[]` for each item, `{}` for each entry. */
type Path = readonly string[];

const known = new WeakMap<AwsOperation, readonly Path[]>();

/** Removes the secret members in place: the decoded input is nobody else's. */
export function withoutSecrets(operation: AwsOperation, input: PlainObject): PlainObject {
  let paths = known.get(operation);
  if (paths === undefined) {
    // User data is what a server does: without it a takeover could not rebuild the server. The store's file is 0600.
    const kept = operation.secretMembers.input.filter((path) => !/(?:^|\.)UserData$/.test(path));
    paths = kept.map((path) => path.replaceAll("[]", ".[]").replaceAll("{}", ".{}").split("."));
    known.set(operation, paths);
  }
  for (const path of paths) remove(input, path, 0);
  return input;
}

function remove(value: PlainValue, path: Path, at: number): void {
  const step = path[at];
  if (step === undefined || typeof value !== "object") return;
  const last = at === path.length - 1;
  if (Array.isArray(value)) {
    if (step !== "[]") return;
    if (last) value.length = 0;
    else for (const item of value) remove(item, path, at + 1);
    return;
  }
  if (step === "{}") {
    if (last) for (const key of Object.keys(value)) delete value[key];
    else for (const item of Object.values(value)) remove(item, path, at + 1);
    return;
  }
  if (!Object.hasOwn(value, step)) return;
  if (last) delete value[step];
  else if (value[step] !== undefined) remove(value[step], path, at + 1);
}
