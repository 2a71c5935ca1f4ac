/**
 * The tester's side door, `/_devcloud/...`: faults, limits, the whole state. Everything but `health` needs the bearer token
 * that devcloud wrote into a file only its user can read.
 */
import { hash, timingSafeEqual } from "node:crypto";
import { z } from "zod";
import type { Cloud } from "#devcloud/core/cloud.ts";
import type { ApiRequest, ApiResponse, Dialect } from "#devcloud/core/dialect.ts";
import type { Lifecycle } from "#devcloud/core/lifecycle.ts";
import type { TableName } from "#devcloud/core/records.ts";
import { isOperational } from "#kernel/errors.ts";
import type { Secret } from "#kernel/secret.ts";
import type { CallCounters } from "./call-counters.ts";
import { latencySpec, rateLimitSpec, type LatencySpec, type RateLimits } from "./call-limits.ts";
import { faultList, faultSpec, type FaultRules } from "./fault-rules.ts";

export const ADMIN_PREFIX = "/_devcloud/";

export interface AdminContext {
  readonly cloud: Cloud;
  readonly dialect: Dialect;
  readonly lifecycle: Lifecycle;
  readonly token: Secret;
  readonly faults: FaultRules;
  readonly limits: RateLimits;
  readonly counters: CallCounters;
  latency: LatencySpec;
}

const quotaSpec = z.record(z.string(), z.int().min(0));
const stateSpec = z.strictObject({
  format: z.literal(1),
  dialect: z.string(),
  tables: z.record(z.string(), z.array(z.looseObject({ id: z.string().min(1) }))),
});

function json(status: number, body: unknown): ApiResponse {
  return { status, headers: { "content-type": "application/json" }, body: `${JSON.stringify(body)}\n` };
}

export function adminAuthorized(request: ApiRequest, token: Secret): boolean {
  const given = request.headers["authorization"] ?? "";
  const digest = (text: string): Buffer => hash("sha256", text, "buffer");
  return timingSafeEqual(digest(given), digest(`Bearer ${token.reveal()}`));
}

export async function answerAdmin(context: AdminContext, request: ApiRequest): Promise<ApiResponse> {
  const path = (request.target.split("?", 1)[0] ?? "").slice(ADMIN_PREFIX.length);
  const route = `${request.method} ${path}`;
  if (route === "GET health") return json(200, { ok: true, dialect: context.dialect.name });
  if (!adminAuthorized(request, context.token)) {
    return json(401, { error: "Send the admin token: Authorization: Bearer (content of the token file)." });
  }
  try {
    return await authorized(context, route, request);
  } catch (error) {
    if (error instanceof z.ZodError) return json(400, { error: z.prettifyError(error) });
    if (error instanceof SyntaxError) return json(400, { error: `The body is not JSON: ${error.message}` });
    if (isOperational(error)) return json(503, { error: error.message });
    throw error;
  }
}

async function authorized(context: AdminContext, route: string, request: ApiRequest): Promise<ApiResponse> {
  const { cloud, faults, limits, counters, lifecycle } = context;
  const body = (): unknown => JSON.parse(request.body.toString("utf8"));
  const single = /^DELETE faults\/([0-9]{1,9})$/.exec(route);
  if (single !== null) {
    return faults.remove(Number(single[1]))
      ? json(200, faults.list())
      : json(404, { error: "no such fault" });
  }
  switch (route) {
    case "GET faults":
      return json(200, faults.list());
    case "POST faults":
      return json(201, { id: faults.add(faultSpec.parse(body())) });
    case "PUT faults": {
      const specs = faultList.parse(body());
      faults.clear();
      for (const spec of specs) faults.add(spec);
      return json(200, faults.list());
    }
    case "DELETE faults":
      faults.clear();
      return json(200, []);
    case "GET latency":
      return json(200, context.latency);
    case "PUT latency":
      context.latency = latencySpec.parse(body());
      return json(200, context.latency);
    case "GET rate-limits":
      return json(200, limits.spec);
    case "PUT rate-limits":
      limits.set(rateLimitSpec.parse(body()));
      return json(200, limits.spec);
    case "GET quotas":
      return json(200, cloud.quotas);
    case "PUT quotas":
      return setQuotas(cloud, quotaSpec.parse(body()));
    case "GET calls":
      return json(200, counters.list());
    case "DELETE calls":
      counters.clear();
      return json(200, {});
    case "GET state":
      await cloud.data.durable();
      return json(200, { format: 1, dialect: context.dialect.name, tables: cloud.data.dump() });
    case "PUT state":
      return replaceState(context, stateSpec.parse(body()));
    case "POST reset":
      await replaceAll(context, null);
      return json(200, { reset: true });
    case "POST settle":
      await lifecycle.settled();
      return json(200, { settled: true });
    default:
      return json(404, { error: `no such admin call: ${route}` });
  }
}

function setQuotas(cloud: Cloud, wanted: Readonly<Record<string, number>>): ApiResponse {
  const unknown = Object.keys(wanted).find((name) => !Object.hasOwn(cloud.quotas, name));
  if (unknown !== undefined) {
    return json(400, { error: `no quota ${unknown}; there are: ${Object.keys(cloud.quotas).join(", ")}` });
  }
  cloud.quotas = { ...cloud.quotas, ...wanted };
  return json(200, cloud.quotas);
}

async function replaceState(context: AdminContext, state: z.infer<typeof stateSpec>): Promise<ApiResponse> {
  if (state.dialect !== context.dialect.name) {
    return json(400, { error: `this state is of dialect ${state.dialect}, not ${context.dialect.name}` });
  }
  const unknown = Object.keys(state.tables).find((name) => !Object.hasOwn(context.cloud.data.tables, name));
  if (unknown !== undefined) return json(400, { error: `no table ${unknown}` });
  await replaceAll(context, state.tables);
  return json(200, { restored: true });
}

/** `null`: as new. */
async function replaceAll(
  context: AdminContext,
  tables: Partial<Record<TableName, readonly unknown[]>> | null,
): Promise<void> {
  const { cloud, lifecycle, dialect } = context;
  await lifecycle.halt();
  try {
    cloud.data.transact(() => {
      cloud.data.replaceAll(tables ?? {});
      if (tables === null) dialect.bootstrap(cloud);
    });
  } finally {
    lifecycle.resume();
  }
  await cloud.data.durable();
}
