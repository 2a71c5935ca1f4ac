// Clients of the shop. They know one address and nothing of clouds; every request is counted, none is repeated.
import { request } from "undici";

export interface Answer {
  /** Milliseconds since the demo began (monotonic). */
  readonly at: number;
  readonly ok: boolean;
  /** The id of the web server that answered: its form tells the cloud. */
  readonly server: string | null;
}

export interface Shoppers {
  readonly answers: readonly Answer[];
  stop(): Promise<void>;
}

/** So many clients in a loop, each with a pause between two requests. */
export function sendShoppers(url: string, clients: number, pauseMs: number): Shoppers {
  const answers: Answer[] = [];
  const closing = new AbortController();
  const shop = async (): Promise<void> => {
    while (!closing.signal.aborted) {
      answers.push(await visit(url));
      await new Promise((resolve) => setTimeout(resolve, pauseMs));
    }
  };
  const all = Array.from({ length: clients }, shop);
  return {
    answers,
    stop: async () => {
      closing.abort();
      await Promise.all(all);
    },
  };
}

async function visit(url: string): Promise<Answer> {
  try {
    const { statusCode, body } = await request(url, { signal: AbortSignal.timeout(2000), reset: true });
    const text = await body.text();
    const { tiers } =
      statusCode === 200 ? (JSON.parse(text) as { tiers: readonly { id: string }[] }) : { tiers: [] };
    // The page is whole only if all three tiers had a part in it.
    const server = tiers.length === 3 ? (tiers[0]?.id ?? null) : null;
    return { at: performance.now(), ok: server !== null, server };
  } catch {
    // A refused or cut connection is what this demo is about: it is counted as a failed request.
    return { at: performance.now(), ok: false, server: null };
  }
}
