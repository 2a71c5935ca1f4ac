/** Server side of the EC2 and AWS query protocols: a form body becomes an operation and its input. */
import { AwsProtocolError } from "./aws-protocol-error.ts";
import type { AwsShape, ScalarShape, StructShape } from "./aws-shape.ts";
import { forEachParameter, queryLimits } from "./query-parameters.ts";
import type { AwsOperation, AwsService } from "./service-model.ts";
import { canonicalTimestamp } from "./timestamp-text.ts";

/** Dates are ISO strings, blobs base64 text, so that it survives JSON. */
export interface PlainObject {
  [key: string]: PlainValue;
}
export type PlainValue = string | number | boolean | PlainValue[] | PlainObject;

export interface DecodedQuery {
  readonly operation: AwsOperation;
  readonly input: PlainObject;
  /** Parameters that the vendor's schema does not know; empty unless they were allowed. No prototype. */
  readonly unknown: Readonly<Record<string, string>>;
}

export interface DecodeOptions {
  /**
   * `refuse` (default): `UnknownParameter`. `keep`: hand them back as received; for a forwarder, whose users may know a
   * newer API than this one.
   */
  readonly unknownParameters?: "refuse" | "keep";
}

/** Parameters of the protocol and of its signatures, not of any operation. */
const protocolParameters: ReadonlySet<string> = new Set([
  "Action",
  "Version",
  "AWSAccessKeyId",
  "Signature",
  "SignatureMethod",
  "SignatureVersion",
  "Timestamp",
  "Expires",
  "SecurityToken",
  "X-Amz-Algorithm",
  "X-Amz-Credential",
  "X-Amz-Date",
  "X-Amz-Expires",
  "X-Amz-Security-Token",
  "X-Amz-Signature",
  "X-Amz-SignedHeaders",
]);

/** Throws AwsProtocolError with AWS's own codes for whatever is wrong with the request. */
export function decodeQueryRequest(
  service: AwsService,
  body: string | URLSearchParams,
  options: DecodeOptions = {},
): DecodedQuery {
  const parameters: [string, string][] = [];
  const protocol = new Map<string, string>();
  forEachParameter(body, (key, value) => {
    if (!protocolParameters.has(key)) parameters.push([key, value]);
    else if (protocol.has(key)) throw duplicate(key);
    else protocol.set(key, value);
  });
  const operation = operationOf(service, protocol.get("Action"));
  const keep = options.unknownParameters === "keep";
  const unknown: Record<string, string> = Object.create(null);
  const builder = new InputBuilder(service.protocol === "awsQuery");
  // A protocol parameter's name may also be a member's: then it is both.
  for (const [key, value] of protocol) {
    if (operation.input.byQueryName.has(key)) builder.put(operation.input, key, value);
  }
  for (const [key, value] of parameters) {
    if (builder.put(operation.input, key, value)) continue;
    if (!keep) {
      throw new AwsProtocolError("UnknownParameter", `The parameter ${shown(key)} is not recognized`);
    }
    if (Object.hasOwn(unknown, key)) throw duplicate(key);
    unknown[key] = value;
  }
  return { operation, input: builder.finish(), unknown };
}

function operationOf(service: AwsService, action: string | undefined): AwsOperation {
  if (action === undefined || action === "") {
    throw new AwsProtocolError(
      "MissingAction",
      "The request is missing an action. Name one in the parameter Action.",
    );
  }
  const operation = service.operations.get(action);
  if (operation === undefined) {
    throw new AwsProtocolError(
      "InvalidAction",
      `The action ${shown(action)} is not valid for this web service.`,
    );
  }
  return operation;
}

/** Lists and maps are gathered by index first: their parameters may come in any order, with gaps. */
class InputBuilder {
  readonly #root: PlainObject = {};
  readonly #lists = new Map<PlainValue[], Map<number, PlainValue>>();
  readonly #maps = new Map<PlainObject, Map<number, MapEntry>>();
  readonly #emptyLists: boolean;

  constructor(emptyLists: boolean) {
    this.#emptyLists = emptyLists;
  }

  /** False if the schema has no such parameter. */
  put(root: StructShape, key: string, value: string): boolean {
    const member = root.byQueryName.get(key);
    if (member !== undefined && isScalar(member.shape)) {
      if (this.#root[member.name] !== undefined) throw duplicate(key);
      this.#root[member.name] = scalarValue(member.shape.kind, key, value);
      return true;
    }
    return this.#putInside(root, key, value);
  }

  #putInside(root: StructShape, key: string, value: string): boolean {
    let shape: AwsShape = root;
    let holder: PlainValue = this.#root;
    const path = new PathReader(key);
    for (;;) {
      let slot: Slot | undefined;
      if (shape.kind === "struct") slot = this.#structSlot(shape, holder as PlainObject, path);
      else if (shape.kind === "list") {
        if (shape.itemQueryName !== undefined && path.next() !== shape.itemQueryName) return false;
        const items = this.#lists.get(holder as PlainValue[]);
        if (items !== undefined) slot = listSlot(shape.item, items, path);
      } else if (shape.kind === "map") slot = this.#mapSlot(shape, holder as PlainObject, path);
      if (slot === undefined) return false;
      if (path.done) {
        this.#assign(slot, key, value);
        return true;
      }
      if (isScalar(slot.shape)) return false;
      let inner = slot.get();
      if (inner === undefined) {
        inner = this.#container(slot.shape);
        slot.set(inner);
      } else if (slot.shape.kind === "list" && !this.#lists.has(inner as PlainValue[])) {
        // An explicitly empty list, now with members: contradictory.
        throw duplicate(key);
      }
      shape = slot.shape;
      holder = inner;
    }
  }

  finish(): PlainObject {
    for (const [list, items] of this.#lists) {
      if (items.size === 1) list.push(...items.values());
      else for (const [, item] of [...items].sort(([a], [b]) => a - b)) list.push(item);
    }
    for (const [map, entries] of this.#maps) {
      for (const { key, value } of entries.values()) {
        if (typeof key !== "string" || value === undefined) {
          throw new AwsProtocolError("MalformedQueryString", "A map entry lacks its key or its value.");
        }
        if (Object.hasOwn(map, key)) throw duplicate(key);
        map[key] = value;
      }
    }
    return this.#root;
  }

  #structSlot(shape: StructShape, holder: PlainObject, path: PathReader): Slot | undefined {
    const member = shape.byQueryName.get(path.next());
    if (member === undefined) return undefined;
    const { name } = member;
    return {
      shape: member.shape,
      get: () => holder[name],
      set: (value) => {
        holder[name] = value;
      },
    };
  }

  #mapSlot(shape: AwsShape & { kind: "map" }, holder: PlainObject, path: PathReader): Slot | undefined {
    const entries = this.#maps.get(holder);
    if (entries === undefined || path.next() !== "entry") return undefined;
    const index = path.index();
    const part = path.next();
    let entry = entries.get(index);
    if (entry === undefined) {
      entry = {};
      entries.set(index, entry);
    }
    const held = entry;
    if (part === shape.keyName) {
      return { shape: { kind: "string" }, get: () => held.key, set: (value) => void (held.key = value) };
    }
    if (part !== shape.valueName) return undefined;
    return { shape: shape.value, get: () => held.value, set: (value) => void (held.value = value) };
  }

  #container(shape: AwsShape): PlainValue {
    if (shape.kind === "list") {
      const list: PlainValue[] = [];
      this.#lists.set(list, new Map());
      return list;
    }
    if (shape.kind === "map") {
      // Its keys are the caller's: no prototype to reach.
      const map: PlainObject = Object.create(null);
      this.#maps.set(map, new Map());
      return map;
    }
    return {};
  }

  #assign(slot: Slot, key: string, value: string): void {
    if (slot.get() !== undefined) throw duplicate(key);
    const { shape } = slot;
    if (!isScalar(shape)) {
      if (shape.kind !== "list" || !this.#emptyLists || value !== "")
        throw invalid(key, value, `a ${shape.kind}`);
      slot.set([]);
      return;
    }
    slot.set(scalarValue(shape.kind, key, value));
  }
}

function isScalar(shape: AwsShape): shape is ScalarShape {
  return shape.kind !== "struct" && shape.kind !== "list" && shape.kind !== "map";
}

interface MapEntry {
  key?: PlainValue;
  value?: PlainValue;
}

interface Slot {
  readonly shape: AwsShape;
  readonly get: () => PlainValue | undefined;
  readonly set: (value: PlainValue) => void;
}

function listSlot(item: AwsShape, items: Map<number, PlainValue>, path: PathReader): Slot {
  const index = path.index();
  return { shape: item, get: () => items.get(index), set: (value) => void items.set(index, value) };
}

const indexText = /^[1-9][0-9]{0,5}$/;

/** Reads a parameter's path segment by segment: `BlockDeviceMapping.1.Ebs.VolumeSize`. */
class PathReader {
  readonly #key: string;
  #at = 0;
  #segments = 0;

  constructor(key: string) {
    this.#key = key;
  }

  get done(): boolean {
    return this.#at > this.#key.length;
  }

  next(): string {
    this.#segments += 1;
    if (this.#segments > queryLimits.pathSegments) {
      throw new AwsProtocolError(
        "MalformedQueryString",
        `The parameter ${shown(this.#key)} is nested too deeply.`,
      );
    }
    const dot = this.#key.indexOf(".", this.#at);
    const end = dot < 0 ? this.#key.length : dot;
    const segment = this.#key.slice(this.#at, end);
    this.#at = end + 1;
    return segment;
  }

  index(): number {
    const text = this.next();
    if (!indexText.test(text) || Number(text) > queryLimits.listIndex) {
      throw new AwsProtocolError(
        "InvalidParameterValue",
        `The parameter ${shown(this.#key)} has ${shown(text)} where the index of a list is expected (1 to ${queryLimits.listIndex}).`,
      );
    }
    return Number(text);
  }
}

const numberText = /^-?[0-9]{1,30}(?:\.[0-9]{1,30})?(?:[eE][+-]?[0-9]{1,3})?$/;
const base64Text = /^[A-Za-z0-9+/_-]*={0,2}$/;

function scalarValue(kind: ScalarShape["kind"], key: string, text: string): PlainValue {
  switch (kind) {
    case "string":
      return text;
    case "number": {
      const value = Number(text);
      // A longer integer would come out as another number.
      const exact = Number.isFinite(value) && (!Number.isInteger(value) || Number.isSafeInteger(value));
      if (!numberText.test(text) || !exact) throw invalid(key, text, "a number");
      return value;
    }
    case "boolean": {
      const lower = text.toLowerCase();
      if (lower !== "true" && lower !== "false") throw invalid(key, text, "true or false");
      return lower === "true";
    }
    case "timestamp": {
      const time = canonicalTimestamp(text);
      if (time === undefined) throw invalid(key, text, "a time in ISO 8601, e.g. 2026-01-02T03:04:05Z");
      return time;
    }
    case "blob":
      if (!base64Text.test(text)) throw invalid(key, text, "base64 text");
      return text;
  }
}

function invalid(key: string, value: string, wanted: string): AwsProtocolError {
  return new AwsProtocolError(
    "InvalidParameterValue",
    `Invalid value '${shown(value)}' for ${shown(key)}. Expected ${wanted}.`,
  );
}

function duplicate(key: string): AwsProtocolError {
  return new AwsProtocolError("MalformedQueryString", `The parameter ${shown(key)} is given more than once.`);
}

/** Caller's text in a message: never more than a line of it. */
function shown(text: string): string {
  return text.length <= 100 ? text : `${text.slice(0, 100)}...`;
}
