/**
 * The AWS services that are spoken here, described by the run-time schemas that the vendor's own clients export: every
 * operation with its input, output and wire names. A service's client is loaded at its first use (EC2: 0.2 s, 95 MB).
 */
import { NormalizedSchema } from "@smithy/core/schema";
import {
  type AwsProtocol,
  type AwsShape,
  type CompileShape,
  type StructShape,
  compileOperationShape,
  shapeCompiler,
} from "./aws-shape.ts";
import { isReadOnly } from "./operation-effect.ts";
import type { AwsServiceName } from "./service-name.ts";

export type { AwsServiceName } from "./service-name.ts";

export interface AwsOperation {
  readonly name: string;
  /** Compiled at first use, then kept. */
  readonly input: StructShape;
  readonly output: StructShape;
  /**
   * The input member that makes a repeated request the same request, where the operation has one: it has the vendor's
   * `idempotencyToken` trait, or is a `ClientToken` without it (16 older operations, AllocateHosts among them).
   */
  readonly tokenMember: { readonly name: string; readonly wireName: string } | undefined;
  /** See operation-effect.ts. */
  readonly readOnly: boolean;
  /**
   * Paths of members that hold secrets, e.g. `LaunchTemplateData.UserData` or `Options.TunnelOptions[].PreSharedKey`:
   * those with the vendor's `sensitive` trait and those of `alsoSecret`. A sensitive structure stands for all in it.
   */
  readonly secretMembers: { readonly input: readonly string[]; readonly output: readonly string[] };
}

export interface AwsService {
  readonly name: AwsServiceName;
  /** `2016-11-15` */
  readonly apiVersion: string;
  readonly protocol: AwsProtocol;
  readonly xmlNamespace: string;
  readonly operations: ReadonlyMap<string, AwsOperation>;
}

interface ServiceFacts {
  readonly apiVersion: string;
  readonly protocol: AwsProtocol;
  readonly xmlNamespace: string;
  readonly load: () => Promise<object>;
}

const facts: Record<AwsServiceName, ServiceFacts> = {
  ec2: {
    apiVersion: "2016-11-15",
    protocol: "ec2Query",
    // With a final slash, as the service itself answers; the client accepts either.
    xmlNamespace: "http://ec2.amazonaws.com/doc/2016-11-15/",
    load: () => import("@aws-sdk/client-ec2"),
  },
  elasticloadbalancing: {
    apiVersion: "2015-12-01",
    protocol: "awsQuery",
    xmlNamespace: "http://elasticloadbalancing.amazonaws.com/doc/2015-12-01/",
    load: () => import("@aws-sdk/client-elastic-load-balancing-v2"),
  },
  autoscaling: {
    apiVersion: "2011-01-01",
    protocol: "awsQuery",
    xmlNamespace: "http://autoscaling.amazonaws.com/doc/2011-01-01/",
    load: () => import("@aws-sdk/client-auto-scaling"),
  },
  sts: {
    apiVersion: "2011-06-15",
    protocol: "awsQuery",
    xmlNamespace: "https://sts.amazonaws.com/doc/2011-06-15/",
    load: () => import("@aws-sdk/client-sts"),
  },
};

export const awsServiceNames = Object.keys(facts) as readonly AwsServiceName[];

/** Members that hold secrets although the vendor's schema does not mark them. */
const alsoSecret: ReadonlySet<string> = new Set([
  "UserData",
  "SessionToken",
  "TokenCode",
  "SecretAccessKey",
  "ClientSecret",
  "KeyMaterial",
  "PasswordData",
  "PreSharedKey",
  "WebIdentityToken",
  "SAMLAssertion",
  "TradeInToken",
]);

const loaded = new Map<AwsServiceName, Promise<AwsService>>();

/** The service's description; one object for the life of the process. */
export function awsService(name: AwsServiceName): Promise<AwsService> {
  let service = loaded.get(name);
  if (service === undefined) {
    service = loadService(name);
    loaded.set(name, service);
  }
  return service;
}

async function loadService(name: AwsServiceName): Promise<AwsService> {
  const { apiVersion, protocol, xmlNamespace, load } = facts[name];
  const compile = shapeCompiler(protocol);
  const operations = new Map<string, AwsOperation>();
  for (const schema of Object.values(await load())) {
    if (!isOperationSchema(schema)) continue;
    operations.set(schema[2], describeOperation(name, compile, schema));
  }
  return { name, apiVersion, protocol, xmlNamespace, operations };
}

/** Smithy's static operation schema: [9, namespace, name, traits, input, output]. */
type SchemaRef = Parameters<typeof NormalizedSchema.of>[0];
type OperationSchema = readonly [9, string, string, unknown, SchemaRef, SchemaRef];

function isOperationSchema(value: unknown): value is OperationSchema {
  return Array.isArray(value) && value[0] === 9 && typeof value[2] === "string" && value.length >= 6;
}

function describeOperation(
  service: AwsServiceName,
  compile: CompileShape,
  schema: OperationSchema,
): AwsOperation {
  const [, , name, , inputSchema, outputSchema] = schema;
  const input = once(() => compileOperationShape(compile, NormalizedSchema.of(inputSchema)));
  const output = once(() => compileOperationShape(compile, NormalizedSchema.of(outputSchema)));
  const token = once(() => {
    const { members } = input();
    const member =
      members.find((candidate) => candidate.idempotencyToken) ??
      members.find((candidate) => candidate.name === "ClientToken");
    return member === undefined ? undefined : { name: member.name, wireName: member.queryName };
  });
  const secrets = once(() => ({ input: secretPaths(input()), output: secretPaths(output()) }));
  return {
    name,
    readOnly: isReadOnly(service, name),
    get input() {
      return input();
    },
    get output() {
      return output();
    },
    get tokenMember() {
      return token();
    },
    get secretMembers() {
      return secrets();
    },
  };
}

function secretPaths(root: StructShape): string[] {
  const found: string[] = [];
  const visit = (shape: AwsShape, path: string, above: readonly AwsShape[]): void => {
    // A shape inside itself repeats the paths above it.
    if (above.includes(shape)) return;
    if (shape.kind === "list") {
      if (shape.sensitive) found.push(`${path}[]`);
      else visit(shape.item, `${path}[]`, [...above, shape]);
    }
    if (shape.kind === "map") visit(shape.value, `${path}{}`, [...above, shape]);
    if (shape.kind !== "struct") return;
    for (const member of shape.members) {
      const inner = path === "" ? member.name : `${path}.${member.name}`;
      if (member.sensitive || alsoSecret.has(member.name)) found.push(inner);
      else visit(member.shape, inner, [...above, shape]);
    }
  };
  visit(root, "", []);
  return found;
}

function once<T>(make: () => T): () => T {
  let made: { readonly value: T } | undefined;
  return () => (made ??= { value: make() }).value;
}
