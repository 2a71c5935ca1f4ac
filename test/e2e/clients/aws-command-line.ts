/** The AWS command line, one process a call, as a person types it. */
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import type { Endpoint } from "./client.ts";
import { clientEnvironment } from "./client-environment.ts";

/** Debian's: too old for AWS_ENDPOINT_URL (awscli 2.9), so that it is told with --endpoint-url. */
const program = "/usr/bin/aws";

export function awsMissing(): false | string {
  if (process.env["UNDERSTUDY_STRICT"] === "1" || existsSync(program)) return false;
  return "awscli is not installed";
}

export interface Printed {
  readonly stdout: string;
  readonly stderr: string;
  readonly exitCode: number;
}

export function runAws(endpoint: Endpoint, args: readonly string[]): Promise<Printed> {
  const env = {
    ...clientEnvironment(),
    AWS_ACCESS_KEY_ID: endpoint.accessKeyId,
    AWS_SECRET_ACCESS_KEY: endpoint.secretAccessKey,
    AWS_DEFAULT_REGION: endpoint.region,
  };
  return new Promise((resolve, reject) => {
    execFile(program, ["--endpoint-url", endpoint.url, ...args], { env }, (error, stdout, stderr) => {
      const exitCode = error === null ? 0 : error.code;
      if (typeof exitCode === "number") resolve({ stdout, stderr, exitCode });
      else reject(new Error(`${program} could not be run`, { cause: error }));
    });
  });
}
