/** A disk that a test writes to, and that a hook holds still and copies: what it held at each moment is known. In a file, or a loop device over one. */
import { execFileSync } from "node:child_process";
import {
  closeSync,
  constants,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { ftruncateSync } from "node:fs";
import { join } from "node:path";

export class WrittenDisk implements Disposable {
  readonly path: string;
  readonly #folder: string;
  readonly #file: number;

  constructor(folder: string, name: string, sizeBytes: number, kind: "file" | "device" = "file") {
    this.#folder = join(folder, name);
    mkdirSync(join(this.#folder, "truth"), { recursive: true });
    const image = join(this.#folder, "disk.raw");
    this.#file = openSync(image, "w+");
    ftruncateSync(this.#file, sizeBytes);
    this.path = image;
    if (kind === "device") {
      closeSync(this.#file);
      this.path = execFileSync("losetup", ["--find", "--show", image], { encoding: "utf8" }).trim();
      // A write is on the device when it returns, not in the page cache alone.
      this.#file = openSync(this.path, constants.O_RDWR | constants.O_SYNC);
    }
    // Each step is one that `write` looks at: a write is over before the copy begins, or does not begin before it is let go.
    writeFileSync(
      join(this.#folder, "hold"),
      `#!/bin/sh
cd "$(dirname "$0")"
: > held
while [ -e busy ]; do sleep 0.005; done
cp --sparse=always ${this.path} copy
mv copy "truth/$(date +%s%3N)"
`,
      { mode: 0o755 },
    );
    writeFileSync(join(this.#folder, "let-go"), '#!/bin/sh\nrm -f "$(dirname "$0")/held"\n', { mode: 0o755 });
  }

  /** Lines of the agent's configuration. */
  get consistency(): string {
    const hook = `{before: [${join(this.#folder, "hold")}], after: [${join(this.#folder, "let-go")}]}`;
    return `consistency: {hook: ${hook}, limit: 30s}\n`;
  }

  /** False: the disk is held still now. */
  write(offset: number, data: Buffer): boolean {
    const busy = join(this.#folder, "busy");
    closeSync(openSync(busy, "w"));
    try {
      if (existsSync(join(this.#folder, "held"))) return false;
      writeSync(this.#file, data, 0, data.length, offset);
      return true;
    } finally {
      rmSync(busy);
    }
  }

  get content(): Buffer {
    return readFileSync(this.path);
  }

  /** What it held at the moment: the last copy that was made before it. */
  truthAt(instantMs: number): Buffer {
    const truth = join(this.#folder, "truth");
    const times = readdirSync(truth)
      .map(Number)
      .filter((time) => time <= instantMs);
    if (times.length === 0) throw new Error(`the disk was not held at ${instantMs}`);
    return readFileSync(join(truth, String(Math.max(...times))));
  }

  [Symbol.dispose](): void {
    closeSync(this.#file);
    if (this.path.startsWith("/dev/")) execFileSync("losetup", ["--detach", this.path]);
  }
}
