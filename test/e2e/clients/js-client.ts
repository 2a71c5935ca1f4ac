/** The AWS SDK for JavaScript v3, as a user calls it. */
import * as autoscaling from "@aws-sdk/client-auto-scaling";
import * as ec2 from "@aws-sdk/client-ec2";
import * as elbv2 from "@aws-sdk/client-elastic-load-balancing-v2";
import * as sts from "@aws-sdk/client-sts";
import type { Answered, Client, Endpoint, Plain, ServiceName } from "./client.ts";

interface Sender {
  send(command: object): Promise<object>;
  destroy(): void;
}

type Exports = Readonly<Record<string, unknown>>;

const services: Readonly<Record<ServiceName, Exports>> = { ec2, sts, elbv2, autoscaling };

export interface JsOptions {
  /** Default: the SDK's own, 3. */
  readonly maxAttempts?: number;
  readonly systemClockOffset?: number;
  /** Edits each request's form before it is signed. */
  readonly tamper?: (form: string) => string;
  /** Without it the endpoint comes from AWS_ENDPOINT_URL. */
  readonly endpoint?: boolean;
}

export function openJsClient(endpoint: Endpoint, options: JsOptions = {}): Client {
  return new JsClient(endpoint, options);
}

class JsClient implements Client {
  readonly name = "js";
  readonly #clients = new Map<ServiceName, Sender>();
  readonly #endpoint: Endpoint;
  readonly #options: JsOptions;
  /** Headers of the last answer that came. */
  #headers: Plain = null;

  constructor(endpoint: Endpoint, options: JsOptions) {
    this.#endpoint = endpoint;
    this.#options = options;
  }

  userData(script: string): string {
    return Buffer.from(script).toString("base64");
  }

  call(operation: string, input: object, service: ServiceName = "ec2"): Promise<Answered> {
    const Command = exported(service, `${operation}Command`) as new (input: object) => object;
    return this.#answered(() => this.#client(service).send(new Command(decoded(input) as object)));
  }

  pages(operation: string, input: object, pageSize: number): Promise<Answered> {
    const paginate = exported("ec2", `paginate${operation}`) as (
      config: object,
      input: object,
    ) => AsyncIterable<object>;
    return this.#answered(async () => {
      const pages: object[] = [];
      for await (const page of paginate({ client: this.#client("ec2"), pageSize }, input)) pages.push(page);
      return pages;
    });
  }

  wait(state: string, input: object): Promise<Answered> {
    const waitUntil = exported("ec2", `waitUntil${state}`) as (
      config: object,
      input: object,
    ) => Promise<{ state: string; reason: object }>;
    const config = { client: this.#client("ec2"), maxWaitTime: 30, minDelay: 1, maxDelay: 1 };
    return this.#answered(async () => {
      const { state: reached, reason } = await waitUntil(config, input);
      return { reached, reason };
    });
  }

  close(): Promise<void> {
    for (const client of this.#clients.values()) client.destroy();
    return Promise.resolve();
  }

  #client(service: ServiceName): Sender {
    let client = this.#clients.get(service);
    if (client === undefined) {
      client = this.#open(service);
      this.#clients.set(service, client);
    }
    return client;
  }

  #open(service: ServiceName): Sender {
    const { url, region, accessKeyId, secretAccessKey } = this.#endpoint;
    const { maxAttempts, systemClockOffset, tamper, endpoint = true } = this.#options;
    const config: ec2.EC2ClientConfig = {
      region,
      credentials: { accessKeyId, secretAccessKey },
      ...(endpoint ? { endpoint: url } : {}),
      ...(maxAttempts === undefined ? {} : { maxAttempts }),
      ...(systemClockOffset === undefined ? {} : { systemClockOffset }),
    };
    const names = { ec2: "EC2", sts: "STS", elbv2: "ElasticLoadBalancingV2", autoscaling: "AutoScaling" };
    const Constructor = exported(service, `${names[service]}Client`) as new (config: object) => ec2.EC2Client;
    const client = new Constructor(config);
    client.middlewareStack.add(
      (next) => async (args) => {
        const result = await next(args);
        const { headers } = result.response as { headers: Record<string, string> };
        this.#headers = plain(headers);
        return result;
      },
      // Next to the wire: sees answers with an error too.
      { step: "deserialize", priority: "low" },
    );
    if (tamper !== undefined) {
      client.middlewareStack.add(
        (next) => (args) => {
          const request = args.request as { body: string; headers: Record<string, string> };
          request.body = tamper(request.body);
          request.headers["content-length"] = String(Buffer.byteLength(request.body));
          return next(args);
        },
        { step: "build", priority: "low" },
      );
    }
    return client;
  }

  async #answered(act: () => Promise<object>): Promise<Answered> {
    try {
      const output = plain(await act());
      return { code: null, status: null, output, shown: { output, headers: this.#headers } };
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      const { name, message } = error;
      const { $response: _response, ...members } = error as Error & Record<string, unknown>;
      const metadata = members["$metadata"] as { httpStatusCode?: number } | undefined;
      const shown = plain({ ...members, name, message, kind: error.constructor.name });
      return {
        code: name,
        status: metadata?.httpStatusCode ?? null,
        output: null,
        shown: { error: shown, headers: this.#headers },
      };
    }
  }
}

function exported(service: ServiceName, name: string): unknown {
  const found = services[service][name];
  if (found === undefined) throw new Error(`the SDK's client of ${service} has no ${name}`);
  return found;
}

/** Bytes as the SDK takes them. */
function decoded(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(decoded);
  if (value === null || typeof value !== "object") return value;
  if ("$bytes" in value) return Buffer.from(String(value.$bytes), "base64");
  return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, decoded(inner)]));
}

function plain(value: unknown): Plain {
  if (value instanceof Date) return value.toISOString();
  if (value instanceof Uint8Array) return { $bytes: Buffer.from(value).toString("base64") };
  if (Array.isArray(value)) return value.map(plain);
  if (value === null || value === undefined) return null;
  if (typeof value === "string" || typeof value === "number" || typeof value === "boolean") return value;
  if (typeof value !== "object") throw new TypeError(`a ${typeof value} in an answer`);
  return Object.fromEntries(
    Object.entries(value).flatMap(([name, inner]) =>
      // The pause before a repetition is drawn by lot.
      inner === undefined || name === "totalRetryDelay" ? [] : [[name, plain(inner)]],
    ),
  );
}
