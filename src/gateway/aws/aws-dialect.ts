/**
 * The AWS query protocols as a gateway dialect: EC2, Elastic Load Balancing v2, Auto Scaling and STS, told apart by the
 * service in the credential's scope, as AWS's own endpoints do.
 */
import type { Clock } from "#kernel/clock.ts";
import type { EnvironmentId } from "#kernel/ids.ts";
import { invariant } from "#kernel/invariant.ts";
import type { Random } from "#kernel/random.ts";
import type { Intent } from "#model/command.ts";
import { AwsProtocolError } from "#wire/aws/aws-protocol-error.ts";
import { decodeQueryRequest } from "#wire/aws/query-decode.ts";
import { peekAction } from "#wire/aws/query-parameters.ts";
import { type AwsService, awsService, awsServiceNames } from "#wire/aws/service-model.ts";
import type { AwsServiceName } from "#wire/aws/service-name.ts";
import { signSigV4, verifySigV4 } from "#wire/aws/sigv4.ts";
import { type KnownResources, nothingKnown } from "#wire/ec2/ec2-effect.ts";
import type { AccessKeyDirectory } from "#gateway/access-keys.ts";
import type {
  Answer,
  Authentication,
  Caller,
  Classified,
  Dialect,
  GatewayRequest,
  OutgoingRequest,
  Problem,
  RequestHead,
  Resolution,
  ResolveContext,
  SignedRequest,
  UpstreamName,
  UpstreamService,
  Upstreams,
} from "#gateway/dialect.ts";
import { awsCommand, awsLocks, awsRead, rawCommand } from "./aws-command.ts";
import { awsCredentialsOf } from "./aws-credentials.ts";
import { endpointOf } from "./aws-endpoint.ts";
import { formOf, forwardedHeaders, rawParameters, versionOf } from "./aws-form.ts";
import { type AwsRefusal, refusalOf, renderRefusal } from "./aws-problem.ts";
import { stsReads, stsRefusal, unknownAction, versionRefusal } from "./aws-refusals.ts";
import { resolveAws } from "./aws-resolve.ts";

export interface AwsDialectOptions {
  readonly keys: AccessKeyDirectory;
  readonly clock: Clock;
  readonly random: Random;
  /** What is known of an environment before a command; see `ec2Changes`. Default: nothing. */
  readonly known?: (environment: EnvironmentId) => KnownResources;
  /**
   * Forward operations that this release's model does not know, recorded with raw parameters and as a gap. Default false:
   * `InvalidAction`, since what is not understood cannot be carried over.
   */
  readonly passUnknownOperations?: boolean;
  /** Bytes of a request body. Default 1 MiB. */
  readonly maxBodyBytes?: number;
}

/** Loads the description of EC2 (0.2 s); the other services' at their first request. */
export async function openAwsDialect(options: AwsDialectOptions): Promise<Dialect> {
  return new AwsDialect(options, await awsService("ec2"));
}

interface Scoped {
  readonly request: GatewayRequest;
  readonly caller: Caller;
  readonly service: AwsService;
}

class AwsDialect implements Dialect {
  readonly name = "aws";
  readonly services = ["ec2", "elasticloadbalancing", "autoscaling", "sts"] as const;
  readonly maxBodyBytes: number;
  readonly #options: AwsDialectOptions;
  readonly #loaded = new Map<string, AwsService>();
  readonly #ec2: AwsService;

  constructor(options: AwsDialectOptions, ec2: AwsService) {
    this.#options = options;
    this.maxBodyBytes = options.maxBodyBytes ?? 1024 * 1024;
    this.#ec2 = ec2;
    this.#loaded.set("ec2", ec2);
  }

  accepts(head: RequestHead): boolean {
    const { authorization } = head.headers;
    return (
      (typeof authorization === "string" && authorization.startsWith("AWS4-")) ||
      head.target.includes("X-Amz-Algorithm=")
    );
  }

  admit(head: RequestHead): Answer | undefined {
    if (head.headers["authorization"] !== undefined || head.target.includes("X-Amz-Signature="))
      return undefined;
    return this.#refuse(head, {
      code: "MissingAuthenticationToken",
      status: 403,
      message:
        "The request is not signed. Sign it with an access key of this gateway (AWS Signature Version 4).",
    });
  }

  authenticate(request: GatewayRequest): Authentication | Promise<Authentication> {
    const refreshing = this.#options.keys.refresh();
    return refreshing === undefined ? this.#verify(request) : refreshing.then(() => this.#verify(request));
  }

  #verify(request: GatewayRequest): Authentication {
    const { keys, clock } = this.#options;
    const { method, target, headers, body } = request;
    const verdict = verifySigV4(
      { method, path: target, headers, body },
      (id) => {
        const key = keys.find(id);
        return key === undefined ? undefined : { secretAccessKey: key.secret };
      },
      { now: clock.now() },
    );
    if (!verdict.ok) return { ok: false, answer: this.#refuse(request, verdict) };
    const key = keys.find(verdict.accessKeyId);
    invariant(key !== undefined, "a key that has just verified a signature is in the directory");
    const caller: Caller = { principal: key.id, environment: key.environment, rights: key.rights };
    return {
      ok: true,
      caller,
      classify: (upstreams) => this.#classify(request, caller, verdict, upstreams),
    };
  }

  #classify(
    request: GatewayRequest,
    caller: Caller,
    scope: { readonly service: string; readonly region: string },
    upstreams: Upstreams,
  ): Classified | Promise<Classified> {
    const name = awsServiceNames.find((candidate) => candidate === scope.service);
    if (name === undefined) {
      return this.#answer(request, {
        code: "UnsupportedOperation",
        status: 400,
        message: `This endpoint speaks ${awsServiceNames.join(", ")}; the request is signed for ${scope.service}. Point only those services at it.`,
      });
    }
    const wanted = upstreams.get(name)?.region;
    if (wanted !== undefined && wanted !== scope.region) {
      return this.#answer(request, {
        code: "SignatureDoesNotMatch",
        status: 403,
        message: `Credential should be scoped to a valid region: environment ${caller.environment} is in ${wanted}, the request is signed for ${scope.region}. Set the region of your tool to ${wanted}.`,
      });
    }
    const service = this.#loaded.get(name);
    return service === undefined
      ? this.#load(name).then((loaded) => this.#classifyFor({ request, caller, service: loaded }))
      : this.#classifyFor({ request, caller, service });
  }

  async #load(name: AwsServiceName): Promise<AwsService> {
    const service = await awsService(name);
    this.#loaded.set(name, service);
    return service;
  }

  #classifyFor(scoped: Scoped): Classified {
    try {
      return this.#classifyForm(scoped, formOf(scoped.request));
    } catch (error) {
      if (error instanceof AwsProtocolError) return this.#answer(scoped.request, error);
      throw error;
    }
  }

  #classifyForm({ request, caller, service }: Scoped, body: Buffer | string): Classified {
    const text = typeof body === "string" ? body : body.toString("latin1");
    const action = peekAction(text);
    // An Action that is missing, doubled or malformed: the decoder says what is wrong in AWS's words.
    if (action === undefined) decodeQueryRequest(service, text);
    const operation = action === undefined ? undefined : service.operations.get(action);
    const forwarded = forwardedHeaders(request);
    if (service.name === "sts") {
      if (operation === undefined || !stsReads.has(operation.name)) {
        return this.#answer(request, stsRefusal(action ?? ""));
      }
      return awsRead("sts", operation.name, body, forwarded);
    }
    const { name } = service;
    if (operation === undefined) {
      if (action === undefined || this.#options.passUnknownOperations !== true) {
        return this.#answer(request, unknownAction(service, action ?? ""));
      }
      return { kind: "change", command: rawCommand(name, action, rawParameters(text), body, forwarded) };
    }
    if (name !== "ec2") {
      const refused = versionRefusal(service, versionOf(text));
      if (refused !== undefined) return this.#answer(request, refused);
    }
    if (operation.readOnly) return awsRead(name, operation.name, body, forwarded);
    const decoded = decodeQueryRequest(service, text, { unknownParameters: "keep" });
    if (decoded.input["DryRun"] === true) return awsRead(name, operation.name, body, forwarded);
    const known = this.#known(caller.environment);
    return { kind: "change", command: awsCommand({ service, name, decoded, body, forwarded, known }) };
  }

  sign(service: UpstreamName, request: OutgoingRequest, upstream: UpstreamService): SignedRequest {
    const { host, path } = endpointOf(upstream);
    const headers: Record<string, string> = { host };
    for (let at = 0; at + 1 < request.headers.length; at += 2) {
      headers[request.headers[at] ?? ""] = request.headers[at + 1] ?? "";
    }
    const added = signSigV4(
      { method: request.method, path, headers, body: request.body },
      awsCredentialsOf(upstream),
      { region: upstream.region, service },
      this.#options.clock.now(),
    );
    const flat = ["host", host, ...request.headers];
    for (const name in added) flat.push(name, added[name] ?? "");
    return { method: request.method, path, headers: flat, body: request.body };
  }

  locksOf(intent: Intent): ReturnType<typeof awsLocks> {
    return awsLocks(intent.service, intent.operation, intent.input);
  }

  resolve(intent: Intent, context: ResolveContext): Promise<Resolution> {
    return resolveAws(this.#ec2, intent, context, this.#known(intent.environment));
  }

  #known(environment: EnvironmentId): KnownResources {
    return this.#options.known?.(environment) ?? nothingKnown;
  }

  renderProblem(problem: Problem, head: RequestHead): Answer {
    return this.#refuse(head, refusalOf(problem));
  }

  #answer(head: RequestHead, refusal: AwsRefusal): Classified {
    return { kind: "answer", answer: this.#refuse(head, refusal) };
  }

  #refuse(head: RequestHead, refusal: AwsRefusal): Answer {
    return renderRefusal(this.#serviceNamed(head), refusal, this.#options.random.uuid());
  }

  /** For the form of an error alone: the service that the request claims to be for, proven or not. */
  #serviceNamed(head: RequestHead): AwsService {
    const { authorization } = head.headers;
    const claimed = typeof authorization === "string" ? authorization.split("/", 4)[3] : undefined;
    return this.#loaded.get(claimed ?? "") ?? this.#ec2;
  }
}
