// A witness as a user runs one, whose sight or honesty the test may take away.
import { readFileSync } from "node:fs";
import { request } from "undici";
import type { Probe } from "#health/probe.ts";
import { runWitness } from "#health/witness.ts";
import { systemClock } from "#kernel/clock.ts";
import { silentLog } from "#kernel/log.ts";
import type { Notice } from "#model/notice.ts";

export class WitnessUnderTest {
  /** Says of every cloud's API that it does not answer. */
  lies = false;
  readonly #stop = new AbortController();
  readonly #over: Promise<void>;

  private constructor(api: string, token: string, name: string, probes: readonly Probe[]) {
    const report = async (seen: readonly Notice[]): Promise<void> => {
      const notices = seen.map(({ probe, code, raised, detail, at }) => ({
        probe,
        code,
        raised: raised || (this.lies && code === "cloud.api_unreachable"),
        detail,
        at,
      }));
      const answer = await request(new URL("/v1/witness/notices", api), {
        method: "POST",
        headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
        body: JSON.stringify({ notices }),
      });
      await answer.body.dump();
      if (answer.statusCode >= 300) throw new Error(`the report was answered with ${answer.statusCode}`);
    };
    const clock = systemClock;
    this.#over = runWitness(
      { environment: "shop", name, probes, report, clock, log: silentLog },
      this.#stop.signal,
    );
  }

  static async start(api: string, tokenFile: string): Promise<WitnessUnderTest> {
    const token = readFileSync(tokenFile, "utf8").trim();
    const answer = await request(new URL("/v1/witness/probes", api), {
      headers: { authorization: `Bearer ${token}` },
    });
    const { witness, probes } = (await answer.body.json()) as { witness: string; probes: readonly Probe[] };
    return new WitnessUnderTest(api, token, witness, probes);
  }

  /** Cut off: nothing is heard of it any more. */
  async stop(): Promise<void> {
    this.#stop.abort(new Error("the witness ends"));
    await this.#over;
  }
}
