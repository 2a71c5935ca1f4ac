/**
 * EBS direct APIs, REST with JSON: which blocks a snapshot has, which differ from another one's, and the blocks.
 * https://docs.aws.amazon.com/ebs/latest/APIReference/Welcome.html
 */
import { createHmac, hash, randomBytes, timingSafeEqual } from "node:crypto";
import type { ApiCall, ApiRequest, ApiResponse, InjectedFailure } from "#devcloud/core/dialect.ts";
import type { SnapshotRecord } from "#devcloud/core/records.ts";
import { snapshotBlockBytes } from "#devcloud/core/snapshot-files.ts";
import type { Ec2 } from "./ec2-context.ts";

export const ebsOperations: ReadonlySet<string> = new Set([
  "ListSnapshotBlocks",
  "ListChangedBlocks",
  "GetSnapshotBlock",
]);

/** As AWS: a block's token lives for seven days, a page's for an hour. */
const blockTokenMs = 7 * 86_400_000;
const pageTokenMs = 3_600_000;
const pageBlocks = { least: 100, most: 10_000, usual: 10_000 };

class EbsError extends Error {
  readonly type: string;
  readonly status: number;
  readonly reason: string | undefined;

  constructor(type: string, status: number, message: string, reason?: string) {
    super(message);
    this.type = type;
    this.status = status;
    this.reason = reason;
  }
}

const invalid = (reason: string, message: string): EbsError =>
  new EbsError("ValidationException", 400, message, reason);

export class EbsDirect {
  readonly #ec2: Ec2;
  /** Tokens end with the process, as they may at any time for other reasons. */
  readonly #key = randomBytes(32);

  constructor(ec2: Ec2) {
    this.#ec2 = ec2;
  }

  open(request: ApiRequest): ApiCall | { readonly turnedAway: ApiResponse } {
    const mark = request.target.indexOf("?");
    const path = mark < 0 ? request.target : request.target.slice(0, mark);
    const query = new URLSearchParams(mark < 0 ? "" : request.target.slice(mark + 1));
    // Ids and numbers have nothing that is to be escaped: what is, is none.
    const [, kind, id = "", what, number] = path.split("/");
    if (request.method === "GET" && kind === "snapshots") {
      if (what === "blocks" && number === undefined)
        return this.#call("ListSnapshotBlocks", () => this.#list(id, null, query));
      if (what === "changedblocks" && number === undefined)
        return this.#call("ListChangedBlocks", () => this.#list(id, query.get("firstSnapshotId"), query));
      if (what === "blocks" && number !== undefined)
        return this.#call("GetSnapshotBlock", () => this.#block(id, number, query));
    }
    const text = `${request.method} ${path.slice(0, 200)} is not supported by devcloud.`;
    return { turnedAway: this.#error(new EbsError("UnknownOperationException", 404, text)) };
  }

  fail(failure: InjectedFailure): ApiResponse {
    switch (failure.kind) {
      case "throttled":
        return this.#error(
          new EbsError(
            "RequestThrottledException",
            400,
            "The number of API requests has exceeded the maximum allowed.",
            "ACCOUNT_THROTTLED",
          ),
        );
      case "internal":
        return this.#error(new EbsError("InternalServerException", 500, "An internal error has occurred."));
      case "unavailable":
        return this.#error(new EbsError("InternalServerException", 503, "The service is unavailable."));
      case "code":
        return this.#error(
          failure.code.startsWith("INVALID_")
            ? invalid(failure.code, failure.message)
            : new EbsError(failure.code, failure.status, failure.message),
        );
    }
  }

  denied(message: string, status: number): ApiResponse {
    return this.#error(new EbsError("AccessDeniedException", status, message));
  }

  #call(operation: string, answer: () => Promise<ApiResponse>): ApiCall {
    return {
      operation,
      run: async () => {
        try {
          return await answer();
        } catch (error) {
          if (error instanceof EbsError) return this.#error(error);
          throw error;
        }
      },
    };
  }

  #snapshot(id: string): SnapshotRecord {
    const { ids, data } = this.#ec2.cloud;
    if (!ids.wellFormed("snapshot", id))
      throw invalid("INVALID_SNAPSHOT_ID", `The snapshot id ${id.slice(0, 60)} is malformed.`);
    const found = data.tables.snapshot.get(id);
    if (found === undefined) {
      const text = `The snapshot '${id}' does not exist.`;
      throw new EbsError("ResourceNotFoundException", 404, text, "SNAPSHOT_NOT_FOUND");
    }
    if (found.state !== "completed")
      throw invalid("INVALID_SNAPSHOT_ID", `The snapshot '${id}' is not completed.`);
    return found;
  }

  async #list(id: string, firstId: string | null, query: URLSearchParams): Promise<ApiResponse> {
    const snapshot = this.#snapshot(id);
    const first = firstId === null ? null : this.#snapshot(firstId);
    if (first !== null && first.volumeId !== snapshot.volumeId)
      throw invalid("UNRELATED_SNAPSHOTS", "The snapshots are not of the same volume.");
    const [blocks, before] = await Promise.all([
      this.#ec2.snapshots.blocks(id),
      first === null ? new Map<number, string>() : this.#ec2.snapshots.blocks(first.id),
    ]);
    const listing = `${firstId ?? ""}/${id}`;
    const from = this.#startOf(listing, query);
    const most = countOf(query, "maxResults", pageBlocks.usual);
    if (most < pageBlocks.least || most > pageBlocks.most)
      throw invalid("INVALID_PARAMETER_VALUE", "maxResults is between 100 and 10000.");
    const differs = [...new Set([...blocks.keys(), ...before.keys()])]
      .filter((index) => index >= from && blocks.get(index) !== before.get(index))
      .sort((a, b) => a - b);
    const page = differs.slice(0, most);
    const next = differs[most];
    const expiry = this.#ec2.cloud.clock.now() + blockTokenMs;
    const tokenOf = (of: string, index: number): string => this.#seal(`${of}/${index}`, expiry);
    const entries = page.map((BlockIndex) =>
      first === null
        ? { BlockIndex, BlockToken: tokenOf(id, BlockIndex) }
        : {
            BlockIndex,
            ...(before.has(BlockIndex) ? { FirstBlockToken: tokenOf(first.id, BlockIndex) } : {}),
            ...(blocks.has(BlockIndex) ? { SecondBlockToken: tokenOf(id, BlockIndex) } : {}),
          },
    );
    return json(200, {
      [first === null ? "Blocks" : "ChangedBlocks"]: entries,
      BlockSize: snapshotBlockBytes,
      VolumeSize: snapshot.sizeGiB,
      ExpiryTime: Math.floor(expiry / 1000),
      ...(next === undefined ? {} : { NextToken: this.#page(listing, next) }),
    });
  }

  async #block(id: string, number: string, query: URLSearchParams): Promise<ApiResponse> {
    const snapshot = this.#snapshot(id);
    const index = /^\d{1,9}$/.test(number) ? Number(number) : -1;
    if (index < 0 || index * snapshotBlockBytes >= snapshot.sizeGiB * 1024 ** 3)
      throw invalid("INVALID_BLOCK", "There is no such block.");
    if (!this.#isSealed(query.get("blockToken") ?? "", `${id}/${index}`))
      throw invalid("INVALID_BLOCK_TOKEN", "The block token is not of this block, or has expired.");
    const body = await this.#ec2.snapshots.read(id, index);
    return {
      status: 200,
      headers: {
        "content-type": "application/octet-stream",
        "x-amzn-requestid": this.#ec2.cloud.random.uuid(),
        "x-amz-data-length": String(body.length),
        "x-amz-checksum": hash("sha256", body, "base64"),
        "x-amz-checksum-algorithm": "SHA256",
      },
      body,
    };
  }

  #page(listing: string, index: number): string {
    const expiry = this.#ec2.cloud.clock.now() + pageTokenMs;
    return `${index}.${this.#seal(`page/${listing}/${index}`, expiry)}`;
  }

  #startOf(listing: string, query: URLSearchParams): number {
    const token = query.get("pageToken");
    if (token === null) return countOf(query, "startingBlockIndex", 0);
    const dot = token.indexOf(".");
    const index = Number(token.slice(0, Math.max(dot, 0)));
    if (Number.isInteger(index) && this.#isSealed(token.slice(dot + 1), `page/${listing}/${index}`))
      return index;
    throw invalid("INVALID_PAGE_TOKEN", "The page token is not of this listing, or has expired.");
  }

  #seal(what: string, expiry: number): string {
    const mac = createHmac("sha256", this.#key).update(`${what}\n${expiry}`).digest("base64url");
    return `${expiry}-${mac}`;
  }

  #isSealed(token: string, what: string): boolean {
    const expiry = Number(token.slice(0, Math.max(token.indexOf("-"), 0)));
    if (!Number.isSafeInteger(expiry) || expiry < this.#ec2.cloud.clock.now()) return false;
    const digest = (text: string): Buffer => hash("sha256", text, "buffer");
    return timingSafeEqual(digest(token), digest(this.#seal(what, expiry)));
  }

  #error({ type, status, message, reason }: EbsError): ApiResponse {
    const body = { __type: type, Message: message, ...(reason === undefined ? {} : { Reason: reason }) };
    const answer = json(status, body);
    const requestId = this.#ec2.cloud.random.uuid();
    return {
      ...answer,
      headers: { ...answer.headers, "x-amzn-errortype": type, "x-amzn-requestid": requestId },
    };
  }
}

function countOf(query: URLSearchParams, name: string, usual: number): number {
  const text = query.get(name);
  if (text === null) return usual;
  if (!/^\d{1,9}$/.test(text)) throw invalid("INVALID_PARAMETER_VALUE", `${name} is not a number.`);
  return Number(text);
}

function json(status: number, body: object): ApiResponse {
  return { status, headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
}
