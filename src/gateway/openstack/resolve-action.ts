/** What became of a `POST` below a resource: an action, an attachment, metadata. */
import { includes, isRecord } from "./body-match.ts";
import { readPath } from "./cloud-lookup.ts";
import { type Inquiry, type Trace, isLeaving } from "./resolve-trace.ts";
import { singleMember } from "./recorded-request.ts";
import { splitTarget } from "./service-paths.ts";

type State = Readonly<Record<string, unknown>>;
/** The argument is what the action's key holds. */
type Judge = (state: State, argument: unknown) => boolean;

const power =
  (statuses: readonly string[], tasks: readonly string[]): Judge =>
  (state) =>
    statuses.includes(String(state["status"])) || tasks.includes(String(state["OS-EXT-STS:task_state"]));

/** Looked for in the state of the server or volume. */
const judges: ReadonlyMap<string, Judge> = new Map<string, Judge>([
  ["os-stop", power(["SHUTOFF"], ["powering-off"])],
  ["os-start", power(["ACTIVE"], ["powering-on"])],
  ["pause", power(["PAUSED"], ["pausing"])],
  ["unpause", power(["ACTIVE"], ["unpausing"])],
  ["suspend", power(["SUSPENDED"], ["suspending"])],
  ["resume", power(["ACTIVE"], ["resuming"])],
  ["shelve", power(["SHELVED", "SHELVED_OFFLOADED"], ["shelving", "shelving_image_pending_upload"])],
  ["shelveOffload", power(["SHELVED_OFFLOADED"], ["shelving_offloading"])],
  ["unshelve", power(["ACTIVE"], ["unshelving", "spawning"])],
  ["forceDelete", isLeaving],
  ["os-force_delete", isLeaving],
  ["os-extend", (state, asked) => isRecord(asked) && Number(state["size"]) === Number(asked["new_size"])],
  ["os-retype", (state, asked) => isRecord(asked) && state["volume_type"] === asked["new_type"]],
]);

/** What they mean for the model is read from the cloud as it is, whether they did it or not. */
const readBack: ReadonlySet<string> = new Set(["confirmResize", "addSecurityGroup", "removeSecurityGroup"]);
/** Afterwards the server is to the model what it was before: whether they took effect matters to nobody. */
const quiet: ReadonlySet<string> = new Set([
  "reboot",
  "resize",
  "revertResize",
  "lock",
  "unlock",
  "os-resetState",
]);

export async function resolveAction({ ask, request }: Inquiry): Promise<Trace> {
  const { path, body, operation } = request;
  const here = splitTarget(path).path;
  if (operation.endsWith("/os-volume_attachments")) {
    const answer = await readPath(ask, here);
    return traceInList(answer.found ? answer.body : undefined, "volumeAttachments", body);
  }
  if (operation.endsWith("/metadata")) {
    const answer = await readPath(ask, here);
    const there = answer.found && includes(answer.body, body) === "yes";
    return there ? { trace: "applied", body: answer.body } : { trace: "none" };
  }
  const action = / (\S+)$/.exec(operation.slice(operation.indexOf("/")))?.[1];
  if (action === undefined) return { trace: "unclear", why: "it leaves nothing to look for" };
  const answer = await readPath(ask, here.replace(/\/action\/?$/, ""));
  const isDelete = action === "forceDelete" || action === "os-force_delete";
  if (!answer.found) return isDelete ? { trace: "applied", body: undefined } : { trace: "none" };
  if (quiet.has(action) || readBack.has(action)) return { trace: "applied", body: undefined };
  const judge = judges.get(action);
  const state = singleMember(answer.body)?.value;
  if (judge === undefined || state === undefined)
    return { trace: "unclear", why: "it leaves nothing to look for" };
  const argument = isRecord(body) ? body[action] : undefined;
  return judge(state, argument) ? { trace: "applied", body: undefined } : { trace: "none" };
}

/** An attachment has no time of its own; the volume can be at one server once only. */
function traceInList(body: unknown, noun: string, asked: unknown): Trace {
  const listed: unknown = isRecord(body) ? body[noun] : undefined;
  const member = singleMember(asked);
  const found = (Array.isArray(listed) ? listed : [])
    .filter(isRecord)
    .find((item) => item["volumeId"] !== undefined && item["volumeId"] === member?.value["volumeId"]);
  if (found === undefined || member === undefined) return { trace: "none" };
  return { trace: "applied", body: { [member.noun]: found } };
}
