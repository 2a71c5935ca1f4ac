/** The CLI's way to a running control plane. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { errorCodes, OperationalError, type ErrorCode } from "#kernel/errors.ts";
import { Secret } from "#kernel/secret.ts";

/** Written by `understudy up` into its data folder, readable by its user alone. */
export const tokenFileName = "api-token";

export interface ApiClient {
  get<T>(path: string, signal?: AbortSignal): Promise<T>;
  post<T>(path: string, body: unknown, signal?: AbortSignal): Promise<T>;
}

export interface ApiTarget {
  readonly url: string;
  readonly token: Secret;
}

export interface TargetFlags {
  readonly config: string;
  readonly api?: string;
  readonly tokenFile?: string;
}

/** From flags, else the environment (UNDERSTUDY_API, UNDERSTUDY_TOKEN), else understudy.yaml. */
export async function findTarget(
  flags: TargetFlags,
  environment: Readonly<Record<string, string | undefined>>,
): Promise<ApiTarget> {
  const fromEnvironment = environment["UNDERSTUDY_TOKEN"];
  const url = flags.api ?? environment["UNDERSTUDY_API"];
  if (url !== undefined && !/^https?:\/\/./u.test(url)) {
    throw new OperationalError(
      "input.invalid",
      `"${url}" is no address of a control plane: it looks like http://127.0.0.1:7481`,
    );
  }
  if (url !== undefined && (flags.tokenFile !== undefined || fromEnvironment !== undefined)) {
    const token =
      flags.tokenFile === undefined ? new Secret(fromEnvironment ?? "") : readToken(flags.tokenFile);
    return { url, token };
  }
  const { readConfig } = await import("#config/read-config.ts");
  const { config } = readConfig(flags.config);
  const { host, port } = config.listen.api;
  const address = host.includes(":") ? `[${host}]` : host;
  return {
    url: url ?? `http://${address}:${port}`,
    token:
      flags.tokenFile === undefined
        ? readToken(join(config.data, tokenFileName))
        : readToken(flags.tokenFile),
  };
}

function readToken(path: string): Secret {
  try {
    const token = readFileSync(path, "utf8").trim();
    if (!/^[\x21-\x7e]{1,512}$/u.test(token)) {
      throw new OperationalError("auth.invalid", `what stands in ${path} is no API token`);
    }
    return new Secret(token);
  } catch (error) {
    if (error instanceof OperationalError) throw error;
    throw new OperationalError(
      "auth.missing",
      `cannot read the API token in ${path}: is the control plane running ("understudy up"), and are you its user?`,
      { cause: error },
    );
  }
}

export function createApiClient(target: ApiTarget): ApiClient {
  async function call<T>(
    method: "GET" | "POST",
    path: string,
    body: unknown,
    signal?: AbortSignal,
  ): Promise<T> {
    const { request } = await import("undici");
    let answer;
    try {
      answer = await request(new URL(path, target.url), {
        method,
        headers: {
          authorization: `Bearer ${target.token.reveal()}`,
          ...(body === undefined ? {} : { "content-type": "application/json" }),
        },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
        ...(signal === undefined ? {} : { signal }),
        headersTimeout: 60_000,
      });
    } catch (error) {
      signal?.throwIfAborted();
      throw new OperationalError(
        "api.unreachable",
        `no control plane answers at ${target.url}: start it with "understudy up", or name it with --api`,
        { cause: error },
      );
    }
    const text = await answer.body.text();
    if (answer.statusCode < 300) return (text === "" ? undefined : JSON.parse(text)) as T;
    throw toError(answer.statusCode, text, target.url);
  }
  return {
    get: (path, signal) => call("GET", path, undefined, signal),
    post: (path, body, signal) => call("POST", path, body, signal),
  };
}

function toError(status: number, text: string, url: string): OperationalError {
  try {
    const { error } = JSON.parse(text) as { error: { code: string; message: string } };
    if (error.code in errorCodes) return new OperationalError(error.code as ErrorCode, error.message);
  } catch {
    // Not ours: some other program listens there. The error below says so.
  }
  return new OperationalError(
    "api.unreachable",
    `${url} answered ${status}, but not as an Understudy control plane does`,
  );
}
