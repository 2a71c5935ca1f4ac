import {
  DeleteObjectCommand,
  GetObjectCommand,
  HeadObjectCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  S3Client,
  type S3ClientConfig,
} from "@aws-sdk/client-s3";
import { createHash } from "node:crypto";
import { type Clock, systemClock } from "#kernel/clock.ts";
import { OperationalError, isOperational } from "#kernel/errors.ts";
import { type Random, systemRandom } from "#kernel/random.ts";
import { backoffMs } from "#kernel/retry.ts";
import type { Secret } from "#kernel/secret.ts";
import { checkBlobName, checkBlobPrefix } from "./blob-name.ts";
import type { BlobFacts, BlobStorage, ByteRange } from "./blob-storage.ts";
import { checkRange } from "./memory-storage.ts";

export interface S3StorageOptions {
  readonly bucket: string;
  /** Stands before every name, with its own slash if it wants one: `vaults/prod/`. */
  readonly prefix?: string;
  readonly region: string;
  /** For stores that are not AWS: addressed by path. */
  readonly endpoint?: string;
  readonly credentials: { readonly accessKeyId: string; readonly secretAccessKey: Secret };
  /**
   * Whether the store honours `If-None-Match: *` on a put (AWS does since August 2024). Without it a name is looked up before it is put: two
   * writers of one name at the same moment could then both win. The vault's names are random, so that only its `config` could meet that.
   */
  readonly conditionalPut: boolean;
  /** For one request, in milliseconds. Default 60 s: a pack of 16 MiB at 2 Mbit/s. */
  readonly requestTimeoutMs?: number;
  readonly attempts?: number;
  readonly clock?: Clock;
  readonly random?: Random;
}

const retryPolicy = { baseMs: 200, capMs: 10_000 };

/** A store in an S3 bucket. Nothing is ever rewritten, so versions and Object Lock may be on; a delete under a lock is `auth.forbidden`. */
export function openS3Storage(options: S3StorageOptions): BlobStorage {
  return new S3Storage(options);
}

class S3Storage implements BlobStorage {
  readonly description: string;
  readonly #client: S3Client;
  readonly #options: S3StorageOptions;
  readonly #prefix: string;

  constructor(options: S3StorageOptions) {
    this.#options = options;
    this.#prefix = options.prefix ?? "";
    this.description = `s3 ${options.bucket}/${this.#prefix}`;
    const config: S3ClientConfig = {
      region: options.region,
      credentials: {
        accessKeyId: options.credentials.accessKeyId,
        secretAccessKey: options.credentials.secretAccessKey.reveal(),
      },
      // Retries are ours: only here is it known what an unanswered put means.
      maxAttempts: 1,
      // Other makes do not know the SDK's trailing checksums; a put carries its MD5 instead, and every object of ours its own tag.
      requestChecksumCalculation: "WHEN_REQUIRED",
      responseChecksumValidation: "WHEN_REQUIRED",
      ...(options.endpoint === undefined ? {} : { endpoint: options.endpoint, forcePathStyle: true }),
    };
    this.#client = new S3Client(config);
  }

  async put(name: string, parts: readonly Uint8Array[], signal?: AbortSignal): Promise<"stored" | "present"> {
    checkBlobName(name);
    signal?.throwIfAborted();
    // A copy: the SDK reads it again when it signs, and the caller may use its buffers as soon as we return.
    const bytes = Buffer.concat(parts);
    const place = { Bucket: this.#options.bucket, Key: this.#prefix + name };
    const md5 = createHash("md5").update(bytes).digest("base64");
    if (!this.#options.conditionalPut) {
      const there = await this.#compare(name, bytes, signal);
      if (there !== undefined) return there;
    }
    let unanswered = false;
    for (let attempt = 1; ; attempt += 1) {
      try {
        await this.#send(
          (abortSignal) =>
            this.#client.send(
              new PutObjectCommand({
                ...place,
                Body: bytes,
                ContentLength: bytes.length,
                ContentMD5: md5,
                ...(this.#options.conditionalPut ? { IfNoneMatch: "*" } : {}),
              }),
              { abortSignal },
            ),
          name,
          "unknown",
          signal,
        );
        return "stored";
      } catch (error) {
        if (isOperational(error, "state.conflict")) {
          // Someone's object: ours, if an earlier attempt arrived after all.
          const there = await this.#compare(name, bytes, signal);
          if (there !== undefined) return unanswered ? "stored" : there;
        }
        if (!isOperational(error) || error.retry === "never" || attempt >= this.#attempts) throw error;
        unanswered = true;
        await this.#pause(attempt, error, signal);
      }
    }
  }

  async get(name: string, range?: ByteRange, signal?: AbortSignal): Promise<Buffer> {
    checkBlobName(name);
    const input = {
      Bucket: this.#options.bucket,
      Key: this.#prefix + name,
      ...(range === undefined ? {} : { Range: `bytes=${range.offset}-${range.offset + range.length - 1}` }),
    };
    return this.#retried(name, "not_applied", signal, async (abortSignal) => {
      const answer = await this.#client.send(new GetObjectCommand(input), { abortSignal });
      const body = Buffer.from((await answer.Body?.transformToByteArray()) ?? []);
      if (range === undefined) {
        if (answer.ContentLength !== undefined && body.length !== answer.ContentLength) throw cutShort(name);
        return body;
      }
      const total = Number(/\/(\d+)$/.exec(answer.ContentRange ?? "")?.[1] ?? Number.NaN);
      if (!Number.isNaN(total)) checkRange(name, total, range);
      if (body.length !== range.length) throw cutShort(name);
      return body;
    });
  }

  async size(name: string, signal?: AbortSignal): Promise<number> {
    checkBlobName(name);
    const input = { Bucket: this.#options.bucket, Key: this.#prefix + name };
    return this.#retried(name, "not_applied", signal, async (abortSignal) => {
      const answer = await this.#client.send(new HeadObjectCommand(input), { abortSignal });
      return answer.ContentLength ?? 0;
    });
  }

  async *list(prefix: string, signal?: AbortSignal): AsyncGenerator<BlobFacts> {
    checkBlobPrefix(prefix);
    let token: string | undefined;
    do {
      const input = {
        Bucket: this.#options.bucket,
        Prefix: this.#prefix + prefix,
        ...(token === undefined ? {} : { ContinuationToken: token }),
      };
      const page = await this.#retried(prefix, "not_applied", signal, (abortSignal) =>
        this.#client.send(new ListObjectsV2Command(input), { abortSignal }),
      );
      for (const { Key, Size, LastModified } of page.Contents ?? []) {
        if (Key === undefined || !Key.startsWith(this.#prefix)) continue;
        const name = Key.slice(this.#prefix.length);
        yield { name, sizeBytes: Size ?? 0, storedAtMs: LastModified?.getTime() ?? 0 };
      }
      token = page.IsTruncated === true ? page.NextContinuationToken : undefined;
      if (page.IsTruncated === true && token === undefined)
        throw new OperationalError(
          "store.failing",
          `the store cut a list of ${prefix} without saying how it goes on`,
        );
    } while (token !== undefined);
  }

  async delete(name: string, signal?: AbortSignal): Promise<void> {
    checkBlobName(name);
    const input = { Bucket: this.#options.bucket, Key: this.#prefix + name };
    try {
      await this.#retried(name, "unknown", signal, (abortSignal) =>
        this.#client.send(new DeleteObjectCommand(input), { abortSignal }),
      );
    } catch (error) {
      // AWS answers success for what is not there; other makes say so.
      if (!isOperational(error, "not_found")) throw error;
    }
  }

  async close(): Promise<void> {
    this.#client.destroy();
  }

  get #attempts(): number {
    return this.#options.attempts ?? 5;
  }

  /** What the name holds: `present` if these bytes, nothing if it is free; throws `state.conflict` if others. */
  async #compare(
    name: string,
    bytes: Buffer,
    signal: AbortSignal | undefined,
  ): Promise<"present" | undefined> {
    let there: Buffer;
    try {
      if ((await this.size(name, signal)) !== bytes.length) throw conflict(name);
      there = await this.get(name, undefined, signal);
    } catch (error) {
      if (isOperational(error, "not_found")) return undefined;
      throw error;
    }
    if (there.equals(bytes)) return "present";
    throw conflict(name);
  }

  async #retried<T>(
    name: string,
    outcome: "not_applied" | "unknown",
    signal: AbortSignal | undefined,
    work: (signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await this.#send(work, name, outcome, signal);
      } catch (error) {
        if (!isOperational(error) || error.retry === "never" || attempt >= this.#attempts) throw error;
        await this.#pause(attempt, error, signal);
      }
    }
  }

  async #pause(attempt: number, error: OperationalError, signal: AbortSignal | undefined): Promise<void> {
    const { clock = systemClock, random = systemRandom } = this.#options;
    const policy = { ...retryPolicy, attempts: this.#attempts };
    await clock.sleep(backoffMs(policy, attempt, random, error.retryAfterMs), signal);
  }

  /** One request within its time; what goes wrong comes out as ours. */
  async #send<T>(
    work: (signal: AbortSignal) => Promise<T>,
    name: string,
    outcome: "not_applied" | "unknown",
    signal: AbortSignal | undefined,
  ): Promise<T> {
    signal?.throwIfAborted();
    const deadline = AbortSignal.timeout(this.#options.requestTimeoutMs ?? 60_000);
    try {
      return await work(signal === undefined ? deadline : AbortSignal.any([signal, deadline]));
    } catch (error) {
      signal?.throwIfAborted();
      if (error instanceof OperationalError) throw error;
      throw translate(error, name, outcome, deadline.aborted);
    }
  }
}

const conflict = (name: string): OperationalError =>
  new OperationalError("state.conflict", `the store holds another object ${name}`);

const cutShort = (name: string): OperationalError =>
  new OperationalError("vault.unreachable", `the store's answer for ${name} was cut short`);

interface SdkError {
  readonly name?: string;
  readonly message?: string;
  readonly $metadata?: { readonly httpStatusCode?: number };
  readonly $response?: { readonly headers?: Readonly<Record<string, string>> };
}

/** By the HTTP status first: stores of other makes answer errors in bodies that the SDK cannot read. */
export function translate(
  error: unknown,
  name: string,
  outcome: "not_applied" | "unknown",
  timedOut: boolean,
): OperationalError {
  const { name: code = "", message = "", $metadata, $response } = error as SdkError;
  const status = $metadata?.httpStatusCode;
  const detail = `${code} ${status ?? ""} ${message}`.slice(0, 500);
  const options = { detail, remoteCode: code, cause: error };
  if (timedOut)
    return new OperationalError("vault.unreachable", `the store gave no answer for ${name} in time`, {
      ...options,
      outcome,
    });
  if (status === 404) return new OperationalError("not_found", `the store has no object ${name}`, options);
  if (status === 416)
    return new OperationalError("disk.range", `${name} is shorter than what was asked for`, options);
  if (status === 412 || code === "ConditionalRequestConflict")
    return new OperationalError("state.conflict", `the store holds another object ${name}`, {
      ...options,
      // Another put of the name is under way: whether it will stand is not decided.
      ...(code === "ConditionalRequestConflict" ? { retry: "later" as const } : {}),
    });
  if (status === 401)
    return new OperationalError("auth.invalid", "the store does not know these credentials", options);
  if (status === 403) {
    const unknownKey = /InvalidAccessKeyId|SignatureDoesNotMatch|ExpiredToken/.test(code);
    return new OperationalError(
      unknownKey ? "auth.invalid" : "auth.forbidden",
      `the store refuses access to ${name}`,
      options,
    );
  }
  const after = Number($response?.headers?.["retry-after"]);
  const retryAfter = Number.isFinite(after) ? { retryAfterMs: after * 1000 } : {};
  if (status === 429 || status === 503 || /SlowDown|Throttl/.test(code))
    return new OperationalError("vault.unreachable", "the store asks to slow down", {
      ...options,
      outcome,
      retry: "throttled",
      ...retryAfter,
    });
  if (status === 507 || /QuotaExceeded|StorageFull/i.test(code))
    return new OperationalError("store.full", "the store is full", { ...options, retry: "never" });
  if (status !== undefined && status >= 400 && status < 500)
    return new OperationalError("store.failing", `the store refuses ${name}`, { ...options, retry: "never" });
  // 5xx, resets, refused connections, answers that are no answer.
  return new OperationalError("vault.unreachable", `the store failed on ${name}`, { ...options, outcome });
}
