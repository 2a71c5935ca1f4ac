/**
 * The gateway's own access keys. Users give these to their tools; the cloud's real credentials stay in this process.
 *
 * Threat model. SigV4 is a shared-secret scheme: whoever verifies must hold the secret itself, a hash does not do. So the
 * secrets stand in one file, in the clear, guarded by its mode: it is created 0600, and a file that others may read is refused
 * rather than used. Whoever can read the file (the service's own user, root, a backup of it) can act on the environments
 * named there, through this gateway only, until the key is disabled; the cloud's credentials are not in it. Disabling a key
 * takes effect for requests that arrive after it, in other processes within a second.
 */
import { type FileHandle, open, stat } from "node:fs/promises";
import { z } from "zod";
import type { Clock } from "#kernel/clock.ts";
import { replaceFile } from "#kernel/durable-file.ts";
import { OperationalError } from "#kernel/errors.ts";
import type { EnvironmentId } from "#kernel/ids.ts";
import type { Random } from "#kernel/random.ts";
import { Secret } from "#kernel/secret.ts";
import type { Rights } from "./dialect.ts";

export interface AccessKey {
  /** 20 characters, as AWS's are: `UKIA` and 16 of A-Z2-7. */
  readonly id: string;
  readonly environment: EnvironmentId;
  readonly rights: Rights;
  /** What it is for, in the user's words. */
  readonly label: string;
  /** Milliseconds since the Unix epoch. */
  readonly createdAt: number;
  readonly disabledAt: number | null;
}

export interface AccessKeyWithSecret extends AccessKey {
  readonly secret: Secret;
}

/** What a dialect needs of it. */
export interface AccessKeyDirectory {
  /** Brings the view up to date; a promise only when the file has to be looked at. Call it before `find`. */
  refresh(): Promise<void> | undefined;
  /** The key if it exists and is not disabled. */
  find(id: string): AccessKeyWithSecret | undefined;
}

export interface AccessKeys extends AccessKeyDirectory {
  /** The only moment at which a secret is handed out. */
  create(request: {
    readonly environment: EnvironmentId;
    readonly rights: Rights;
    readonly label: string;
  }): Promise<AccessKeyWithSecret>;
  list(): Promise<readonly AccessKey[]>;
  /** Disabling what is disabled changes nothing. `not_found` if there is no such key. */
  disable(id: string): Promise<void>;
}

const fileSchema = z.strictObject({
  version: z.literal(1),
  keys: z.array(
    z.strictObject({
      id: z.string().regex(/^[A-Z0-9]{16,32}$/),
      secret: z.string().min(32),
      environment: z.string().min(1),
      rights: z.enum(["read-only", "change"]),
      label: z.string(),
      createdAt: z.number(),
      disabledAt: z.number().nullable(),
    }),
  ),
});

/** How old the view of the file may be: another process may have disabled a key. */
const freshMs = 1_000;

/** Opens the directory of keys at `path`; without a file it is empty. Throws `config.invalid` for a file that is unsafe or broken. */
export async function openAccessKeys(
  path: string,
  ports: { readonly clock: Clock; readonly random: Random },
): Promise<AccessKeys> {
  const keys = new FileAccessKeys(path, ports);
  await keys.list();
  return keys;
}

class FileAccessKeys implements AccessKeys {
  readonly #path: string;
  readonly #clock: Clock;
  readonly #random: Random;
  #keys = new Map<string, AccessKeyWithSecret>();
  #stamp = "";
  #checkedAt = Number.NEGATIVE_INFINITY;
  #refreshing: Promise<void> | undefined;
  #writing: Promise<unknown> = Promise.resolve();

  constructor(path: string, ports: { readonly clock: Clock; readonly random: Random }) {
    this.#path = path;
    this.#clock = ports.clock;
    this.#random = ports.random;
  }

  refresh(): Promise<void> | undefined {
    return this.#clock.monotonicMs() - this.#checkedAt <= freshMs ? undefined : this.#refresh();
  }

  find(id: string): AccessKeyWithSecret | undefined {
    const key = this.#keys.get(id);
    return key?.disabledAt === null ? key : undefined;
  }

  async list(): Promise<readonly AccessKey[]> {
    await this.#refresh();
    return [...this.#keys.values()].map(({ secret: _secret, ...key }) => key);
  }

  create(request: {
    readonly environment: EnvironmentId;
    readonly rights: Rights;
    readonly label: string;
  }): Promise<AccessKeyWithSecret> {
    return this.#change((keys) => {
      const key: AccessKeyWithSecret = {
        ...request,
        id: `UKIA${base32(Buffer.from(this.#random.hex(10), "hex"))}`,
        secret: new Secret(Buffer.from(this.#random.hex(30), "hex").toString("base64")),
        createdAt: this.#clock.now(),
        disabledAt: null,
      };
      keys.set(key.id, key);
      return key;
    });
  }

  async disable(id: string): Promise<void> {
    await this.#change((keys) => {
      const key = keys.get(id);
      if (key === undefined) {
        throw new OperationalError("not_found", `there is no access key ${id} in ${this.#path}`);
      }
      if (key.disabledAt === null) keys.set(id, { ...key, disabledAt: this.#clock.now() });
    });
  }

  /** Changes go one after another, each on the file's present content; others see one only once it is on disk. */
  #change<T>(edit: (keys: Map<string, AccessKeyWithSecret>) => T): Promise<T> {
    const run = async (): Promise<T> => {
      await this.#refresh();
      const keys = new Map(this.#keys);
      const result = edit(keys);
      await replaceFile(this.#path, encodeKeys(keys));
      this.#keys = keys;
      return result;
    };
    const result = this.#writing.then(run, run);
    this.#writing = result.catch(() => undefined);
    return result;
  }

  #refresh(): Promise<void> {
    this.#refreshing ??= this.#load().finally(() => {
      this.#refreshing = undefined;
    });
    return this.#refreshing;
  }

  async #load(): Promise<void> {
    const checkedAt = this.#clock.monotonicMs();
    const found = await statIfAny(this.#path);
    const stamp = found === undefined ? "none" : `${found.ino}/${found.size}/${found.mtimeNs}`;
    if (stamp !== this.#stamp) {
      this.#keys = found === undefined ? new Map() : await readKeys(this.#path);
      this.#stamp = stamp;
    }
    this.#checkedAt = checkedAt;
  }
}

async function statIfAny(
  path: string,
): Promise<{ readonly ino: bigint; readonly size: bigint; readonly mtimeNs: bigint } | undefined> {
  try {
    return await stat(path, { bigint: true });
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw cannotRead(path, cause);
  }
}

async function readKeys(path: string): Promise<Map<string, AccessKeyWithSecret>> {
  let text: string;
  let mode: number;
  let file: FileHandle | undefined;
  try {
    file = await open(path, "r");
    ({ mode } = await file.stat());
    text = await file.readFile("utf8");
  } catch (cause) {
    throw cannotRead(path, cause);
  } finally {
    await file?.close();
  }
  if ((mode & 0o077) !== 0) {
    throw new OperationalError(
      "config.invalid",
      `the access keys in ${path} can be read by other users of this machine: run chmod 600 ${path}, and replace the keys if others may have seen them`,
    );
  }
  return decodeKeys(path, text);
}

function decodeKeys(path: string, text: string): Map<string, AccessKeyWithSecret> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    // The parser's message quotes the text, which holds secrets.
    throw broken(path, "it is not JSON");
  }
  const parsed = fileSchema.safeParse(value);
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    throw broken(path, `${issue?.path.join(".") ?? ""}: ${issue?.code ?? "invalid"}`);
  }
  return new Map(
    parsed.data.keys.map((key) => [
      key.id,
      { ...key, environment: key.environment as EnvironmentId, secret: new Secret(key.secret) },
    ]),
  );
}

function encodeKeys(keys: ReadonlyMap<string, AccessKeyWithSecret>): string {
  const rows = [...keys.values()].map((key) => ({ ...key, secret: key.secret.reveal() }));
  return `${JSON.stringify({ version: 1, keys: rows }, null, 2)}\n`;
}

function broken(path: string, what: string): OperationalError {
  return new OperationalError(
    "config.invalid",
    `${path} is not a file of access keys (${what}): restore it, or move it away and create new keys`,
  );
}

function cannotRead(path: string, cause: unknown): OperationalError {
  return new OperationalError("store.failing", `cannot read the access keys in ${path}`, {
    detail: String(cause),
    cause,
  });
}

/** RFC 4648 alphabet; `bytes` must be a multiple of 5 long. */
function base32(bytes: Buffer): string {
  const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
  let text = "";
  let bits = 0;
  let held = 0;
  for (const byte of bytes) {
    held = (held << 8) | byte;
    bits += 8;
    while (bits >= 5) {
      bits -= 5;
      text += alphabet[(held >> bits) & 31] ?? "";
      held &= (1 << bits) - 1;
    }
  }
  return text;
}
