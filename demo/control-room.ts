// What an operator sees: the control plane's API, and its timeline as it is written.
import { request } from "undici";
import type { EnvironmentStatus, RunView } from "#takeover/control.ts";
import type { TimelineEvent } from "#takeover/run-ledger.ts";
import { say, until } from "./timeline.ts";

export class ControlRoom {
  readonly #url: string;
  readonly #token: string;
  #shown = 0;

  constructor(url: string, token: string) {
    this.#url = url;
    this.#token = token;
  }

  async #get<T>(path: string): Promise<T> {
    const { statusCode, body } = await request(new URL(path, this.#url), {
      headers: { authorization: `Bearer ${this.#token}` },
    });
    const text = await body.text();
    if (statusCode !== 200) throw new Error(`${path}: ${statusCode} ${text}`);
    return JSON.parse(text) as T;
  }

  status(): Promise<EnvironmentStatus> {
    return this.#get("/v1/environments/shop");
  }

  async runs(): Promise<readonly RunView[]> {
    const { runs } = await this.#get<{ runs: readonly { id: string }[] }>("/v1/runs?environment=shop");
    return Promise.all(runs.map(({ id }) => this.#get<RunView>(`/v1/runs/${id}`)));
  }

  /** Prints what the control plane has said since the last time. */
  async listen(): Promise<void> {
    const { events } = await this.#get<{ events: readonly TimelineEvent[] }>(
      `/v1/environments/shop/events?after=${this.#shown}`,
    );
    for (const event of events) {
      this.#shown = Math.max(this.#shown, event.ordinal);
      say(`  ${event.message}`);
    }
  }

  async follow<T>(
    what: string,
    look: () => Promise<T>,
    done: (seen: T) => boolean,
    limitMs: number,
  ): Promise<T> {
    return until(
      what,
      async () => {
        await this.listen();
        return look();
      },
      done,
      limitMs,
    );
  }
}
