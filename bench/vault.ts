// What a backup costs: the same disk image into the vault, restic, borg (lz4) and qemu-img (zstd), in turns.
import { spawnSync } from "node:child_process";
import {
  closeSync,
  fsyncSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readSync,
  rmSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

export const summary = "first, unchanged and changed backup and restore vs restic, borg and qemu-img";

const rounds = Number(process.env["BENCH_ROUNDS"] ?? 3);
const fileBytes = Number(process.env["BENCH_VAULT_MIB"] ?? 1_126) * 1024 * 1024;
const diskBytes = Math.ceil((fileBytes * 2.6) / 2 ** 30) * 2 ** 30;
const changedShare = 0.01;
/** A dirty bitmap of QEMU names clusters of 64 KiB by default; a log of writes names each 4 KiB. */
const granularities = { changed: 65_536, changed4k: 4096 } as const;
type Changed = keyof typeof granularities;

interface Took {
  /** Of the whole process, started to ended. */
  readonly seconds: number;
  /** User and system time of the process and its children. */
  readonly cpuSeconds: number;
  readonly output: string;
}

/** By bash's own clock for children, so that processor time is known too: on a busy machine it says more than the wall. */
function timed(command: string, argv: readonly string[], env: NodeJS.ProcessEnv, cwd: string): Took {
  const start = performance.now();
  const script = 'TIMEFORMAT="cpu %U %S"; time "$@"';
  const done = spawnSync("bash", ["-c", script, "timed", command, ...argv], {
    cwd,
    env: { ...process.env, LC_ALL: "C", ...env },
    maxBuffer: 2 ** 26,
  });
  const seconds = (performance.now() - start) / 1000;
  const errors = String(done.stderr);
  if (done.status !== 0) throw new Error(`${command} ${argv.join(" ")}: ${errors.slice(-2000)}`);
  const [, user, system] = /cpu ([\d.]+) ([\d.]+)\s*$/.exec(errors) ?? [];
  return { seconds, cpuSeconds: Number(user) + Number(system), output: String(done.stdout) };
}

const installed = (command: string): boolean => spawnSync(command, ["--version"]).error === undefined;

/** Program files of this machine, in a fixed order, in an ext4 image whose rest is a hole. */
function buildImage(folder: string): string {
  const image = join(folder, "disk.raw");
  const script = `set -e
cd /usr; find bin sbin lib libexec share -xdev -type f -printf '%s %p\\n' 2>/dev/null | LC_ALL=C sort -k2 \
| awk -v most=${fileBytes} '{ sum += $1; if (sum > most) exit; sub(/^[0-9]+ /, ""); print }' > "$1/list"
mkdir "$1/files"; tar cf - -T "$1/list" | tar xf - -C "$1/files"
truncate -s ${diskBytes} "$2"; mke2fs -q -t ext4 -d "$1/files" "$2"; rm -rf "$1/files"`;
  timed("bash", ["-c", script, "build", folder, image], {}, folder);
  return image;
}

/** Writes all over the data, with content that files have: bytes from another place of the image. */
function changeImage(image: string, seed: number, writeBytes: number): { offset: number; length: number }[] {
  const file = openSync(image, "r+");
  const block = Buffer.alloc(writeBytes);
  let state = 1 + seed;
  const place = (): number => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * (fileBytes / writeBytes)) * writeBytes;
  };
  const places = new Set<number>();
  while (places.size < (diskBytes * changedShare) / writeBytes) places.add(place());
  for (const offset of places) {
    readSync(file, block, 0, writeBytes, place());
    // So that no two are the same, and none was there before.
    block.writeUInt32LE(state, (state % 1000) * 4);
    writeSync(file, block, 0, writeBytes, offset);
  }
  fsyncSync(file);
  closeSync(file);
  return [...places].map((offset) => ({ offset, length: writeBytes }));
}

interface OwnResult {
  readonly milliseconds: number;
  readonly peakMiB: number;
  readonly cpuMs: number;
}

type Step = "first" | "unchanged" | "restore";
type Peer = "vault" | "restic" | "borg" | "qemu-img";

function peerSteps(
  image: string,
): Record<Exclude<Peer, "vault">, Partial<Record<Step, (folder: string) => Took>>> {
  const restic = (folder: string, argv: readonly string[]): Took =>
    timed(
      "restic",
      ["-q", "-r", "repo", "--cache-dir", "cache", ...argv],
      { RESTIC_PASSWORD: "bench" },
      folder,
    );
  const borgEnv = (folder: string): NodeJS.ProcessEnv => ({
    BORG_PASSPHRASE: "bench",
    BORG_BASE_DIR: folder,
  });
  const borg = (folder: string, argv: readonly string[]): Took =>
    timed("borg", argv, borgEnv(folder), folder);
  const convert = ["convert", "-f", "raw", "-O", "qcow2", "-c", "-o", "compression_type=zstd"];
  return {
    restic: {
      first: (folder) => {
        restic(folder, ["init", "--repository-version", "2"]);
        return restic(folder, ["backup", image]);
      },
      // The file's times have not changed, so that restic would not even open it.
      unchanged: (folder) => restic(folder, ["backup", "--force", image]),
      restore: (folder) => restic(folder, ["restore", "latest", "--target", "back"]),
    },
    borg: {
      first: (folder) => {
        borg(folder, ["init", "-e", "repokey-blake2", "repo"]);
        return borg(folder, ["create", "-C", "lz4", "repo::first", image]);
      },
      unchanged: (folder) =>
        borg(folder, ["create", "-C", "lz4", "--files-cache=disabled", "repo::second", image]),
      restore: (folder) => {
        mkdirSync(join(folder, "back"));
        return timed(
          "borg",
          ["extract", "--sparse", "../repo::first"],
          borgEnv(folder),
          join(folder, "back"),
        );
      },
    },
    "qemu-img": {
      first: (folder) => timed("qemu-img", [...convert, image, "disk.qcow2"], {}, folder),
      restore: (folder) => timed("qemu-img", ["convert", "-O", "raw", "disk.qcow2", "back.raw"], {}, folder),
    },
  };
}

function own(operation: string, folder: string, image: string, ...more: string[]): Took & OwnResult {
  const script = new URL("./vault/vault-process.ts", import.meta.url).pathname;
  const took = timed(process.execPath, [script, operation, join(folder, "repo"), image, ...more], {}, folder);
  return { ...took, ...(JSON.parse(took.output) as OwnResult) };
}

function sizeMiB(folder: string): number {
  const { output } = timed("du", ["-s", "--block-size=1K", folder], {}, folder);
  return Number(output.split("\t")[0]) / 1024;
}

export async function run(): Promise<Record<string, number | string>> {
  const folder = mkdtempSync(join(process.env["BENCH_FOLDER"] ?? tmpdir(), "bench-vault-"));
  try {
    return measure(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

interface Seen {
  readonly seconds: Map<string, number[]>;
  readonly cpuSeconds: Map<string, number[]>;
  readonly sizes: Map<string, number>;
  readonly changedVsFirst: Record<Changed, number[]>;
  peakMiB: number;
}

function measure(folder: string): Record<string, number | string> {
  const image = buildImage(folder);
  const peers = peerSteps(image);
  const seen: Seen = {
    seconds: new Map(),
    cpuSeconds: new Map(),
    sizes: new Map(),
    changedVsFirst: { changed: [], changed4k: [] },
    peakMiB: 0,
  };
  const note = (peer: Peer, step: string, seconds: number, cpuSeconds: number): void => {
    const key = `${step} ${peer}`;
    seen.seconds.set(key, [...(seen.seconds.get(key) ?? []), seconds]);
    seen.cpuSeconds.set(key, [...(seen.cpuSeconds.get(key) ?? []), cpuSeconds]);
  };
  const there = (["restic", "borg", "qemu-img"] as const).filter((peer) => {
    if (!installed(peer)) console.error(`${peer} is not installed: that peer is left out`);
    return installed(peer);
  });
  for (let round = 0; round < rounds; round += 1) {
    const folders = new Map<Peer, string>();
    for (const peer of ["vault", ...there] as const) {
      folders.set(peer, join(folder, peer));
      mkdirSync(join(folder, peer));
    }
    timed("dd", [`if=${image}`, "of=/dev/null", "bs=1M", "status=none"], {}, folder);
    let firstMs = Number.NaN;
    for (const step of ["first", "unchanged", "restore"] as const) {
      // In turns, each step right after the others' same step: what else the machine does falls on all.
      const mine = folders.get("vault") ?? "";
      timed("sync", [], {}, folder);
      const target = step === "restore" ? join(mine, "back.raw") : image;
      const ours = own(step, mine, target);
      if (step === "first") firstMs = ours.milliseconds;
      note("vault", step, ours.seconds, ours.cpuSeconds);
      seen.peakMiB = Math.max(seen.peakMiB, ours.peakMiB);
      if (step === "first") seen.sizes.set("vault", sizeMiB(join(mine, "repo")));
      if (step === "restore") timed("cmp", [image, target], {}, folder);
      for (const peer of there) {
        timed("sync", [], {}, folder);
        const at = folders.get(peer) ?? "";
        const took = peers[peer][step]?.(at);
        if (took !== undefined) note(peer, step, took.seconds, took.cpuSeconds);
        if (step === "first") seen.sizes.set(peer, sizeMiB(peer === "qemu-img" ? at : join(at, "repo")));
      }
    }
    for (const step of ["changed", "changed4k"] as const)
      oneChanged(step, folder, folders.get("vault") ?? "", image, round, firstMs, seen, note);
    for (const at of folders.values()) rmSync(at, { recursive: true });
  }
  return report(seen);
}

function oneChanged(
  step: Changed,
  folder: string,
  mine: string,
  image: string,
  round: number,
  firstMs: number,
  seen: Seen,
  note: (peer: Peer, step: string, seconds: number, cpuSeconds: number) => void,
): void {
  const changes = join(folder, "changes.json");
  writeFileSync(changes, JSON.stringify(changeImage(image, round, granularities[step])));
  timed("sync", [], {}, folder);
  const ours = own("changed", mine, image, changes);
  note("vault", step, ours.milliseconds / 1000, ours.cpuSeconds);
  seen.changedVsFirst[step].push(ours.milliseconds / firstMs);
  seen.peakMiB = Math.max(seen.peakMiB, ours.peakMiB);
  const back = join(mine, "changed.raw");
  own("restore", mine, back);
  timed("cmp", [image, back], {}, folder);
}

function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}

const round3 = (value: number): number => Math.round(value * 1000) / 1000;

function report(seen: Seen): Record<string, number | string> {
  for (const [key, values] of seen.seconds) {
    const cpu = median(seen.cpuSeconds.get(key) ?? []).toFixed(2);
    const each = values.map((one) => one.toFixed(2)).join(" ");
    console.log(
      `${key.padEnd(20)} ${median(values).toFixed(2).padStart(8)} s   cpu ${cpu.padStart(7)} s   of ${each}`,
    );
  }
  for (const [peer, size] of seen.sizes)
    console.log(`size ${peer.padEnd(15)} ${size.toFixed(1).padStart(8)} MiB`);
  const ratio = (step: Step, peer: Peer): number | string => {
    const theirs = seen.seconds.get(`${step} ${peer}`);
    if (theirs === undefined) return "no peer";
    const ours = seen.seconds.get(`${step} vault`) ?? [];
    return round3(median(ours.map((one, at) => one / (theirs[at] ?? Number.NaN))));
  };
  const size = (seen.sizes.get("vault") ?? Number.NaN) / (seen.sizes.get("restic") ?? Number.NaN);
  return {
    firstVsBorg: ratio("first", "borg"),
    firstVsRestic: ratio("first", "restic"),
    firstVsQemuImg: ratio("first", "qemu-img"),
    unchangedVsRestic: ratio("unchanged", "restic"),
    sizeVsRestic: Number.isNaN(size) ? "no peer" : round3(size),
    restoreVsRestic: ratio("restore", "restic"),
    changedVsFirst: round3(median(seen.changedVsFirst.changed)),
    changed4kVsFirst: round3(median(seen.changedVsFirst.changed4k)),
    rssMiB: Math.round(seen.peakMiB),
  };
}
