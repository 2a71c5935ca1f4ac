// How soon a guest answers whose disk is still in the vault, from the moment that its host is told to start it; what a run does before that
// (fence, choose a moment, make the resources) is in the demo's figures. Real guests (QEMU) on the vault's desk, a process of its own, over NBD: with its
// store as fast as this machine, and with the store at 50 MB/s and a wait before each answer. The peers of the same run: the same guest on a
// local disk, and a full restore before the start.
import { execFile } from "node:child_process";
import { copyFileSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { type HypervisorHost, openHost } from "#hypervisor/open-host.ts";
import type { DiskMoment } from "#recovery/disk-mover.ts";
import { Desk, noLimit } from "./desk/desk.ts";
import { ask, firstAnswer, guest, makeDisk, MIB } from "./live/live-stage.ts";
import { freePort } from "../demo/free-ports.ts";

export const summary =
  'from "recover" to the guest\'s first answer, live and after a full restore; priorities; the hand-over';

const sizesGiB = (process.env["BENCH_LIVE_GIB"] ?? "1,4").split(",").map(Number);
const rounds = Number(process.env["BENCH_LIVE_ROUNDS"] ?? 3);
const slowMBs = Number(process.env["BENCH_LIVE_MBS"] ?? 50);
/** Of a store at a distance, before each answer, in milliseconds. */
const slowWaitMs = Number(process.env["BENCH_LIVE_WAIT_MS"] ?? 10);

const execute = promisify(execFile);
const median = (values: readonly number[]): number =>
  values.toSorted((a, b) => a - b)[values.length >> 1] ?? Number.NaN;
const round = (value: number, digits = 2): number => Number(value.toFixed(digits));

interface Scene {
  readonly folder: string;
  readonly host: HypervisorHost;
  readonly path: string;
  readonly sizeBytes: number;
  readonly volume: string;
  moment: DiskMoment;
}

/** Milliseconds to the first answer of a guest on a raw image of this machine. */
async function localStart({ host }: Scene, path: string): Promise<number> {
  const port = await freePort();
  const machine = await host.create(await guest("local", port, { kind: "existing", path, format: "raw" }));
  const began = performance.now();
  await machine.start(noLimit);
  await firstAnswer(port);
  const tookMs = performance.now() - began;
  await host.destroy("local");
  return tookMs;
}

interface LiveStart {
  readonly answerMs: number;
  /** The longest answer around the hand-over, and the usual ones of the copy; of a start that was followed to its end. */
  readonly handover?: { readonly longestMs: number; readonly usualP95Ms: number; readonly copyMs: number };
}

async function liveStart(scene: Scene, desk: Desk, followed: boolean): Promise<LiveStart> {
  const { host, sizeBytes, volume, moment } = scene;
  const port = await freePort();
  const began = performance.now();
  const { location } = await desk.serve(volume, moment);
  const machine = await host.create(await guest("live", port, { kind: "live", source: location, sizeBytes }));
  const copy = await host.disksOf("live").startBackgroundCopy("data");
  await machine.start(noLimit);
  await firstAnswer(port);
  const answerMs = performance.now() - began;
  try {
    if (!followed) return { answerMs };
    const end: { at: number } = { at: Number.POSITIVE_INFINITY };
    void copy.complete.then(() => (end.at = performance.now()));
    const answers: { readonly at: number; readonly tookMs: number }[] = [];
    while (performance.now() < end.at + 500) {
      const at = performance.now();
      answers.push({ at, tookMs: await ask(port) });
    }
    const around = answers.filter(({ at, tookMs }) => at + tookMs > end.at - 500);
    const usual = answers.filter((one) => !around.includes(one)).map(({ tookMs }) => tookMs);
    const longestMs = Math.max(...around.map(({ tookMs }) => tookMs));
    const usualP95Ms = usual.toSorted((a, b) => a - b)[Math.floor(usual.length * 0.95)] ?? Number.NaN;
    return { answerMs, handover: { longestMs, usualP95Ms, copyMs: end.at - began } };
  } finally {
    await host.destroy("live");
  }
}

async function fullRestore(scene: Scene, desk: Desk): Promise<number> {
  const path = join(scene.folder, "restored.raw");
  const began = performance.now();
  const { uri } = await desk.serve(scene.volume, scene.moment);
  await execute("qemu-img", ["convert", "-f", "raw", "-O", "raw", uri, path]);
  const restoredMs = performance.now() - began;
  const tookMs = restoredMs + (await localStart(scene, path));
  rmSync(path);
  return tookMs;
}

interface Taken {
  readonly local: number[];
  readonly live: number[];
  readonly full: number[];
  readonly slowPlain: number[];
  readonly slowFirst: number[];
  readonly slowRules: number[];
  readonly pause: number[];
  readonly usual: number[];
}

/** Pairwise: what is compared is measured in turns. */
async function measure(scene: Scene): Promise<Taken> {
  const taken: Taken = {
    local: [],
    live: [],
    full: [],
    slowPlain: [],
    slowFirst: [],
    slowRules: [],
    pause: [],
    usual: [],
  };
  const local = join(scene.folder, "local.raw");
  {
    await using desk = await Desk.start(scene.folder, 0, 0);
    scene.moment = await desk.takeIn(scene.volume, scene.path, scene.sizeBytes);
    copyFileSync(scene.path, local);
    for (let turn = 0; turn < rounds; turn += 1) {
      taken.local.push(await localStart(scene, local));
      desk.forget();
      const { answerMs, handover } = await liveStart(scene, desk, turn === 0);
      taken.live.push(answerMs);
      if (handover !== undefined) {
        taken.pause.push(handover.longestMs);
        taken.usual.push(handover.usualP95Ms);
        console.log(`  the copy was complete after ${round(handover.copyMs / 1000)} s`);
      }
      taken.full.push(await fullRestore(scene, desk));
    }
  }
  for (let turn = 0; turn < rounds; turn += 1) {
    {
      await using desk = await Desk.start(scene.folder, slowMBs, slowWaitMs);
      desk.forget();
      taken.slowPlain.push((await liveStart(scene, desk, false)).answerMs);
    }
    {
      await using desk = await Desk.start(scene.folder, 0, 0);
      desk.forget();
      await desk.rank(scene.volume, scene.moment);
    }
    {
      // What the rules say of its files, and nothing of earlier starts.
      await using desk = await Desk.start(scene.folder, slowMBs, slowWaitMs);
      taken.slowRules.push((await liveStart(scene, desk, false)).answerMs);
    }
    // A process of its own, which has nothing in memory but finds what the start before read.
    await using desk = await Desk.start(scene.folder, slowMBs, slowWaitMs);
    taken.slowFirst.push((await liveStart(scene, desk, false)).answerMs);
  }
  rmSync(local);
  for (const [name, values] of Object.entries(taken))
    console.log(`  ${name}`, values.map((value: number) => `${round(value, 0)} ms`).join(", "));
  return taken;
}

export async function run(): Promise<Record<string, number | string>> {
  const figures: Record<string, number | string> = {};
  const ratios = {
    first: [] as number[],
    full: [] as number[],
    gain: [] as number[],
    ruleGain: [] as number[],
    pause: [] as number[],
  };
  for (const gib of sizesGiB) {
    const folder = mkdtempSync(join(tmpdir(), "bench-live-"));
    const host = await openHost({ folder: join(folder, "host"), accelerator: "tcg" });
    try {
      console.log(`${gib} GiB`);
      const sizeBytes = gib * 1024 * MIB;
      const path = await makeDisk(folder, sizeBytes);
      const scene = { folder, host, path, sizeBytes, volume: `disk-${gib}`, moment: { sequence: 0, at: 0 } };
      const taken = await measure(scene);
      const live = median(taken.live);
      ratios.first.push(live / median(taken.local));
      ratios.full.push(median(taken.full) / live);
      ratios.gain.push(median(taken.slowPlain) / median(taken.slowFirst));
      ratios.ruleGain.push(median(taken.slowPlain) / median(taken.slowRules));
      ratios.pause.push(Math.max(...taken.pause));
      figures[`live${gib}GiBMs`] = round(live, 0);
      figures[`full${gib}GiBMs`] = round(median(taken.full), 0);
      figures[`slow${gib}GiBMs`] = round(median(taken.slowFirst), 0);
      figures[`usualAnswerP95${gib}GiBMs`] = round(Math.max(...taken.usual), 0);
    } finally {
      await Promise.all(host.list().map(({ id }) => host.destroy(id)));
      await host[Symbol.asyncDispose]();
      rmSync(folder, { recursive: true, force: true });
    }
  }
  return {
    firstAnswerVsLocalBoot: round(Math.max(...ratios.first)),
    fullRestoreVsLive: round(Math.min(...ratios.full)),
    priorityGain: round(Math.min(...ratios.gain)),
    ruleGain: round(Math.min(...ratios.ruleGain)),
    handoverPauseMs: round(Math.max(...ratios.pause), 0),
    ...figures,
  };
}
