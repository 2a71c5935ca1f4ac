/**
 * A wrapper of the cloud contract that fails as networks and clouds do: refuses, loses the request, loses the answer,
 * throttles, delays. Scripted call by call, or drawn from a seed.
 */
import type { Cloud } from "#cloud/contract.ts";
import type { Clock } from "#kernel/clock.ts";
import type { ErrorCode } from "#kernel/errors.ts";
import { OperationalError } from "#kernel/errors.ts";
import type { Random } from "#kernel/random.ts";

export type CloudFault =
  /** The cloud says no; nothing is applied. */
  | { readonly type: "refuse"; readonly code?: ErrorCode; readonly message?: string }
  /** The request is lost: nothing is applied, but the caller cannot know. */
  | { readonly type: "lose_request" }
  /** The answer is lost: applied, but the caller cannot know. */
  | { readonly type: "lose_answer" }
  | { readonly type: "throttle"; readonly retryAfterMs?: number }
  | { readonly type: "delay"; readonly ms: number };

export interface CloudCall {
  readonly method: FaultyMethod;
  /** The kind where the method has one. */
  readonly kind: string | undefined;
  /** Counts all calls through the wrapper, from 1. */
  readonly count: number;
}

export type FaultyMethod =
  | "identify"
  | "catalogue"
  | "create"
  | "get"
  | "list"
  | "update"
  | "setTags"
  | "delete";

/** Decides call by call; `undefined`: no fault. */
export type FaultPlan = (call: CloudCall) => CloudFault | undefined;

/** Faults in the order given, each for the next call that `matches`; then none. */
export function scriptedFaults(
  faults: readonly CloudFault[],
  matches: (call: CloudCall) => boolean = () => true,
): FaultPlan {
  const queue = [...faults];
  return (call) => (matches(call) ? queue.shift() : undefined);
}

/** Each call meets a fault with the given probability; the kinds of fault are equally likely. */
export function seededFaults(random: Random, probability: number): FaultPlan {
  const kinds: readonly CloudFault[] = [
    { type: "refuse", code: "cloud.failing" },
    { type: "lose_request" },
    { type: "lose_answer" },
    { type: "throttle", retryAfterMs: 1 },
    { type: "delay", ms: 2 },
  ];
  return () =>
    random.fraction() < probability ? kinds[Math.floor(random.fraction() * kinds.length)] : undefined;
}

const lost = (method: string): OperationalError =>
  new OperationalError("cloud.timeout", `the cloud did not answer ${method} in time: ask it what happened`, {
    outcome: "unknown",
    detail: "injected",
  });

function errorOf(fault: CloudFault, method: string): OperationalError | undefined {
  switch (fault.type) {
    case "refuse":
      return new OperationalError(
        fault.code ?? "cloud.failing",
        fault.message ?? `the cloud refused ${method}: repeat it later`,
        { detail: "injected" },
      );
    case "throttle":
      return new OperationalError("cloud.throttled", `the cloud throttles ${method}: call it less often`, {
        detail: "injected",
        ...(fault.retryAfterMs === undefined ? {} : { retryAfterMs: fault.retryAfterMs }),
      });
    case "lose_request":
    case "lose_answer":
      return lost(method);
    case "delay":
      return undefined;
  }
}

export interface FaultyCloud extends Cloud {
  /** Replaces the plan; `undefined` ends all faults. */
  setFaults(plan: FaultPlan | undefined): void;
  readonly injected: number;
}

export function createFaultyCloud(inner: Cloud, clock: Clock, first?: FaultPlan): FaultyCloud {
  let plan = first;
  let [count, injected] = [0, 0];

  async function through<T>(
    method: FaultyMethod,
    kind: string | undefined,
    signal: AbortSignal,
    work: () => Promise<T>,
  ): Promise<T> {
    signal.throwIfAborted();
    count += 1;
    const fault = plan?.({ method, kind, count });
    if (fault === undefined) return work();
    injected += 1;
    if (fault.type === "delay") await clock.sleep(fault.ms, signal);
    if (fault.type === "delay") return work();
    if (fault.type === "lose_answer") await work();
    throw errorOf(fault, method) ?? lost(method);
  }

  return {
    facts: inner.facts,
    identify: (signal) => through("identify", undefined, signal, () => inner.identify(signal)),
    catalogue: (signal) => through("catalogue", undefined, signal, () => inner.catalogue(signal)),
    create: (request, signal) => through("create", request.kind, signal, () => inner.create(request, signal)),
    get: (kind, id, signal) => through("get", kind, signal, () => inner.get(kind, id, signal)),
    // A fault meets the listing before its first page, or between two pages.
    async *list(kind, filter, signal) {
      await through("list", kind, signal, async () => {});
      for await (const page of inner.list(kind, filter, signal)) {
        yield page;
        await through("list", kind, signal, async () => {});
      }
    },
    update: (kind, id, set, signal) =>
      through("update", kind, signal, () => inner.update(kind, id, set, signal)),
    setTags: (kind, id, set, remove, signal) =>
      through("setTags", kind, signal, () => inner.setTags(kind, id, set, remove, signal)),
    delete: (kind, id, signal) => through("delete", kind, signal, () => inner.delete(kind, id, signal)),
    close: () => inner.close(),
    setFaults: (next) => {
      plan = next;
    },
    get injected() {
      return injected;
    },
  };
}
