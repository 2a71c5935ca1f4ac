/**
 * A shape of an AWS API, compiled once from the vendor's schema: every wire name is resolved here, so that no codec
 * reads a trait while a request waits. Shapes are recursive (members are references to compiled shapes).
 *
 * Source of the naming rules: Smithy 2.0, "AWS EC2 query protocol" and "AWS query protocol".
 */
import type { NormalizedSchema } from "@smithy/core/schema";

export type AwsProtocol = "ec2Query" | "awsQuery";

export interface AwsMember {
  /** The name in decoded objects, e.g. `BlockDeviceMappings`. */
  readonly name: string;
  /** Its segment in a request's parameter path, e.g. `BlockDeviceMapping`. */
  readonly queryName: string;
  /** Its element in a response, e.g. `blockDeviceMapping`. */
  readonly xmlName: string;
  readonly shape: AwsShape;
  readonly idempotencyToken: boolean;
  readonly sensitive: boolean;
}

export interface StructShape {
  readonly kind: "struct";
  readonly name: string;
  readonly members: readonly AwsMember[];
  readonly byQueryName: ReadonlyMap<string, AwsMember>;
  readonly byXmlName: ReadonlyMap<string, AwsMember>;
}

export interface ListShape {
  readonly kind: "list";
  readonly item: AwsShape;
  /** Element of one item in a response: `item` in EC2, `member` elsewhere. */
  readonly itemXmlName: string;
  /** Path segment before the index; undefined where lists are flattened (all of EC2). */
  readonly itemQueryName: string | undefined;
  readonly sensitive: boolean;
}

export interface MapShape {
  readonly kind: "map";
  readonly value: AwsShape;
  readonly keyName: string;
  readonly valueName: string;
}

/** Numbers are one kind: the vendor's run-time schema does not tell integers from floats. */
export interface ScalarShape {
  readonly kind: "string" | "number" | "boolean" | "timestamp" | "blob";
}

export type AwsShape = StructShape | ListShape | MapShape | ScalarShape;

const scalars: Record<ScalarShape["kind"], ScalarShape> = {
  string: { kind: "string" },
  number: { kind: "number" },
  boolean: { kind: "boolean" },
  timestamp: { kind: "timestamp" },
  blob: { kind: "blob" },
};

const emptyStruct: StructShape = {
  kind: "struct",
  name: "Unit",
  members: [],
  byQueryName: new Map(),
  byXmlName: new Map(),
};

export type CompileShape = (schema: NormalizedSchema) => AwsShape;

/** A compiler with its own memory: a schema used by many operations, or by itself, is compiled once. */
export function shapeCompiler(protocol: AwsProtocol): CompileShape {
  const known = new Map<unknown, AwsShape>();

  function compile(schema: NormalizedSchema): AwsShape {
    if (schema.isUnitSchema()) return emptyStruct;
    const scalar = scalarKind(schema);
    if (scalar !== undefined) return scalars[scalar];
    const raw = schema.getSchema();
    const cached = typeof raw === "object" ? known.get(raw) : undefined;
    if (cached !== undefined) return cached;
    if (schema.isStructSchema()) return compileStruct(schema);
    if (schema.isListSchema()) return compileList(schema);
    if (schema.isMapSchema()) return compileMap(schema);
    throw new TypeError(
      `schema ${schema.getName(true) ?? "?"} is of a kind that the query protocols do not have`,
    );
  }

  function compileStruct(schema: NormalizedSchema): StructShape {
    const members: AwsMember[] = [];
    const byQueryName = new Map<string, AwsMember>();
    const byXmlName = new Map<string, AwsMember>();
    const shape: StructShape = {
      kind: "struct",
      name: schema.getName() ?? "",
      members,
      byQueryName,
      byXmlName,
    };
    known.set(schema.getSchema(), shape);
    for (const [name, member] of schema.structIterator()) {
      const traits = member.getMergedTraits();
      const compiled: AwsMember = {
        name,
        queryName: queryName(protocol, name, traits),
        xmlName: traits.xmlName ?? name,
        shape: compile(member),
        idempotencyToken: member.isIdempotencyToken(),
        sensitive: traits.sensitive === 1,
      };
      members.push(compiled);
      byQueryName.set(compiled.queryName, compiled);
      byXmlName.set(compiled.xmlName, compiled);
    }
    return shape;
  }

  function compileList(schema: NormalizedSchema): ListShape {
    const item = schema.getValueSchema();
    const traits = item.getMergedTraits();
    const flat = protocol === "ec2Query" || schema.getMergedTraits().xmlFlattened !== undefined;
    const shape: { -readonly [K in keyof ListShape]: ListShape[K] } = {
      kind: "list",
      item: emptyStruct,
      itemXmlName: traits.xmlName ?? "member",
      itemQueryName: flat ? undefined : (traits.xmlName ?? "member"),
      sensitive: traits.sensitive === 1,
    };
    // Known before its item is compiled: a list may hold structures that hold the list.
    if (typeof schema.getSchema() === "object") known.set(schema.getSchema(), shape);
    shape.item = compile(item);
    return shape;
  }

  function compileMap(schema: NormalizedSchema): MapShape {
    const shape: { -readonly [K in keyof MapShape]: MapShape[K] } = {
      kind: "map",
      value: emptyStruct,
      keyName: schema.getKeySchema().getMergedTraits().xmlName ?? "key",
      valueName: schema.getValueSchema().getMergedTraits().xmlName ?? "value",
    };
    if (typeof schema.getSchema() === "object") known.set(schema.getSchema(), shape);
    shape.value = compile(schema.getValueSchema());
    return shape;
  }

  return compile;
}

/** The shape of an operation's input or output; the ones without any are an empty structure. */
export function compileOperationShape(compile: CompileShape, schema: NormalizedSchema): StructShape {
  const shape = compile(schema);
  if (shape.kind !== "struct") throw new TypeError(`${schema.getName(true) ?? "?"} is not a structure`);
  return shape;
}

function scalarKind(schema: NormalizedSchema): ScalarShape["kind"] | undefined {
  if (schema.isStringSchema()) return "string";
  if (schema.isNumericSchema()) return "number";
  if (schema.isBooleanSchema()) return "boolean";
  if (schema.isTimestampSchema()) return "timestamp";
  if (schema.isBlobSchema()) return "blob";
  return undefined;
}

interface NameTraits {
  readonly xmlName?: string | undefined;
  readonly ec2QueryName?: string | undefined;
}

function queryName(protocol: AwsProtocol, name: string, traits: object): string {
  const { xmlName, ec2QueryName }: NameTraits = traits;
  if (protocol === "awsQuery") return xmlName ?? name;
  if (ec2QueryName !== undefined) return ec2QueryName;
  const base = xmlName ?? name;
  return base.slice(0, 1).toUpperCase() + base.slice(1);
}
