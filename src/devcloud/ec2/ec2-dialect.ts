/** The EC2 API (and STS's GetCallerIdentity) on the core: SigV4, the query protocol, and one function per operation. */
import type { Cloud } from "#devcloud/core/cloud.ts";
import type { Compute } from "#devcloud/core/compute.ts";
import type { ApiCall, ApiRequest, ApiResponse, Dialect, InjectedFailure } from "#devcloud/core/dialect.ts";
import type { Snapshots } from "#devcloud/core/snapshots.ts";
import { Refusal } from "#devcloud/core/refusal.ts";
import { isOperational } from "#kernel/errors.ts";
import type { Secret } from "#kernel/secret.ts";
import { AwsProtocolError } from "#wire/aws/aws-protocol-error.ts";
import { decodeQueryRequest, type DecodedQuery } from "#wire/aws/query-decode.ts";
import { awsService, type AwsService } from "#wire/aws/service-model.ts";
import { verifySigV4, type SigV4Key } from "#wire/aws/sigv4.ts";
import { encodeQueryError, encodeQueryResponse } from "#wire/aws/xml-encode.ts";
import { EbsDirect, ebsOperations } from "./ebs-direct.ts";
import { addressOperations } from "./ec2-address-operations.ts";
import { catalogOperations } from "./ec2-catalog-operations.ts";
import type { Ec2, LongOperation, Operation } from "./ec2-context.ts";
import { ec2ErrorOf } from "./ec2-error.ts";
import { groupOperations } from "./ec2-group-operations.ts";
import { keyOperations } from "./ec2-key-operations.ts";
import { createDefaultVpc, networkOperations } from "./ec2-network-operations.ts";
import { routeOperations } from "./ec2-route-operations.ts";
import { serverOperations } from "./ec2-server-operations.ts";
import { longSnapshotOperations, snapshotOperations } from "./ec2-snapshot-operations.ts";
import { tagOperations } from "./ec2-tag-operations.ts";
import { volumeOperations } from "./ec2-volume-operations.ts";

const ec2Operations: ReadonlyMap<string, Operation> = new Map(
  Object.entries<Operation>({
    ...networkOperations,
    ...routeOperations,
    ...groupOperations,
    ...keyOperations,
    ...volumeOperations,
    ...snapshotOperations,
    ...addressOperations,
    ...serverOperations,
    ...tagOperations,
    ...catalogOperations,
  }),
);

const longOperations: ReadonlyMap<string, LongOperation> = new Map(
  Object.entries<LongOperation>({ ...longSnapshotOperations }),
);

const stsOperations: ReadonlyMap<string, Operation> = new Map(
  Object.entries<Operation>({
    GetCallerIdentity: (ec2: Ec2) => ({
      Account: ec2.accountId,
      UserId: "AIDADEVCLOUD00000001",
      Arn: `arn:aws:iam::${ec2.accountId}:user/devcloud`,
    }),
  }),
);

export interface Ec2DialectOptions {
  readonly accountId: string;
  readonly accessKeyId: string;
  readonly secretAccessKey: Secret;
}

interface Service {
  readonly model: AwsService;
  readonly operations: ReadonlyMap<string, Operation>;
}

/** Thrown to undo what a dry run did. */
class DryRun extends Error {
  override readonly name = "DryRun";
}

export async function openEc2Dialect(
  cloud: Cloud,
  compute: Compute,
  snapshots: Snapshots,
  options: Ec2DialectOptions,
): Promise<Dialect> {
  return new Ec2Dialect(
    { cloud, compute, snapshots, accountId: options.accountId },
    options,
    { model: await awsService("ec2"), operations: ec2Operations },
    { model: await awsService("sts"), operations: stsOperations },
  );
}

class Ec2Dialect implements Dialect {
  readonly name = "ec2";
  readonly #ec2: Ec2;
  readonly #accessKeyId: string;
  readonly #key: SigV4Key;
  readonly #ec2Service: Service;
  readonly #stsService: Service;
  readonly #ebs: EbsDirect;

  constructor(ec2: Ec2, options: Ec2DialectOptions, ec2Service: Service, stsService: Service) {
    this.#ec2 = ec2;
    this.#accessKeyId = options.accessKeyId;
    this.#key = { secretAccessKey: options.secretAccessKey };
    this.#ec2Service = ec2Service;
    this.#stsService = stsService;
    this.#ebs = new EbsDirect(ec2);
  }

  bootstrap(): void {
    createDefaultVpc(this.#ec2);
  }

  open(request: ApiRequest): ApiCall | { readonly turnedAway: ApiResponse } {
    const verdict = verifySigV4(
      { method: request.method, path: request.target, headers: request.headers, body: request.body },
      (accessKeyId) => (accessKeyId === this.#accessKeyId ? this.#key : undefined),
      { now: this.#ec2.cloud.clock.now(), region: this.#ec2.cloud.catalog.region },
    );
    if (!verdict.ok) {
      if (isForEbs(request)) return { turnedAway: this.#ebs.denied(verdict.message, verdict.status) };
      const error = new AwsProtocolError(verdict.code, verdict.message, verdict.status);
      return { turnedAway: this.#error(this.#ec2Service, error) };
    }
    if (verdict.service === "ebs") return this.#ebs.open(request);
    const service = verdict.service === "sts" ? this.#stsService : this.#ec2Service;
    if (verdict.service !== "sts" && verdict.service !== "ec2") {
      const error = new AwsProtocolError(
        "SignatureDoesNotMatch",
        `Credential should be scoped to the service ec2, ebs or sts, not ${verdict.service}.`,
        403,
      );
      return { turnedAway: this.#error(service, error) };
    }
    try {
      return this.#call(service, decodeQueryRequest(service.model, formOf(request)));
    } catch (error) {
      if (error instanceof AwsProtocolError) return { turnedAway: this.#error(service, error) };
      throw error;
    }
  }

  fail(failure: InjectedFailure, operation: string | null): ApiResponse {
    if (operation !== null && ebsOperations.has(operation)) return this.#ebs.fail(failure);
    const service = operation === "GetCallerIdentity" ? this.#stsService : this.#ec2Service;
    return this.#error(service, injected(failure));
  }

  #call(service: Service, query: DecodedQuery): ApiCall {
    const { name } = query.operation;
    const operation = service.operations.get(name);
    const long = service === this.#ec2Service ? longOperations.get(name) : undefined;
    return {
      operation: name,
      run: async (signal) => {
        try {
          if (long !== undefined) return await this.#applyLong(service, long, query, signal);
          if (operation === undefined) {
            throw new AwsProtocolError(
              "UnsupportedOperation",
              `The operation ${name} is not supported by devcloud.`,
            );
          }
          return this.#answer(service, query, this.#apply(operation, query));
        } catch (error) {
          return this.#error(service, protocolError(error));
        }
      },
    };
  }

  #answer(service: Service, query: DecodedQuery, output: object): ApiResponse {
    const requestId = this.#ec2.cloud.random.uuid();
    return xml(200, encodeQueryResponse(service.model, query.operation, output, requestId), requestId);
  }

  async #applyLong(
    service: Service,
    operation: LongOperation,
    query: DecodedQuery,
    signal: AbortSignal,
  ): Promise<ApiResponse> {
    if (query.input["DryRun"] === true) throw new DryRun();
    return this.#answer(service, query, await operation(this.#ec2, query.input as never, signal));
  }

  #apply(operation: Operation, query: DecodedQuery): object {
    const dryRun = query.input["DryRun"] === true;
    return this.#ec2.cloud.data.transact(() => {
      // The vendor's schema decoded it, so it has the shape that the operation's type says.
      const output = operation(this.#ec2, query.input as never);
      if (dryRun) throw new DryRun();
      return output;
    });
  }

  #error(service: Service, error: AwsProtocolError): ApiResponse {
    const { code, message, status } = error;
    const requestId = this.#ec2.cloud.random.uuid();
    return xml(status, encodeQueryError(service.model, { code, message, status, requestId }), requestId);
  }
}

/** By its path: of a request whose signature says nothing. */
function isForEbs({ target }: ApiRequest): boolean {
  return target.startsWith("/snapshots/");
}

/** The parameters: a form body, or for GET the query. */
function formOf(request: ApiRequest): string {
  const query = request.target.indexOf("?");
  const fromQuery = query < 0 ? "" : request.target.slice(query + 1);
  if (request.body.length === 0) return fromQuery;
  const body = request.body.toString("utf8");
  return fromQuery === "" ? body : `${fromQuery}&${body}`;
}

function protocolError(error: unknown): AwsProtocolError {
  if (error instanceof AwsProtocolError) return error;
  if (error instanceof Refusal) return ec2ErrorOf(error.reason);
  if (error instanceof DryRun) {
    return new AwsProtocolError(
      "DryRunOperation",
      "Request would have succeeded, but DryRun flag is set.",
      412,
    );
  }
  if (isOperational(error)) return new AwsProtocolError("InternalError", error.message, 500);
  throw error;
}

function injected(failure: InjectedFailure): AwsProtocolError {
  switch (failure.kind) {
    case "throttled":
      return new AwsProtocolError("RequestLimitExceeded", "Request limit exceeded.", 503);
    case "internal":
      return new AwsProtocolError("InternalError", "An internal error has occurred", 500);
    case "unavailable":
      return new AwsProtocolError(
        "Unavailable",
        "The service is unavailable. Please try again shortly.",
        503,
      );
    case "code":
      return new AwsProtocolError(failure.code, failure.message, failure.status);
  }
}

/** The request's id stands in the header too, as in AWS: SDKs read it there. */
function xml(status: number, body: string, requestId: string): ApiResponse {
  return {
    status,
    headers: { "content-type": "text/xml;charset=UTF-8", "x-amzn-requestid": requestId },
    body,
  };
}
