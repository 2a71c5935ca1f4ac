/** What the gateway keeps per environment: where its cloud is, who holds what, how much is under way. */
import type { EnvironmentId } from "#kernel/ids.ts";
import { OperationalError } from "#kernel/errors.ts";
import type {
  CloudAnswer,
  Dialect,
  OutgoingRequest,
  UpstreamName,
  UpstreamService,
  Upstreams,
} from "./dialect.ts";
import { CommandIds } from "./command-ids.ts";
import type { GatewayLimits } from "./gateway-options.ts";
import { ResourceLocks } from "./resource-locks.ts";
import { MadeResources } from "./made-resources.ts";
import { exchangeSigned } from "./send-signed.ts";
import { Turns } from "./turns.ts";
import { UnderWay } from "./under-way.ts";
import { UnansweredTokens } from "./unanswered-tokens.ts";
import { UpstreamConnections } from "./upstream.ts";

export interface Upstream {
  readonly service: UpstreamService;
  readonly connections: UpstreamConnections;
}

export class EnvironmentLane {
  readonly id: EnvironmentId;
  readonly locks = new ResourceLocks();
  readonly ids = new CommandIds();
  readonly unanswered = new UnansweredTokens();
  readonly made: MadeResources;
  readonly underWay = new UnderWay();
  readonly turns = new Turns();
  /** Changes that wait or run. */
  changes = 0;
  /** Commands without a known outcome. */
  open = 0;
  readonly #limits: GatewayLimits;
  #upstreams: Upstreams = new Map();
  #connections = new Map<UpstreamName, Upstream>();

  constructor(id: EnvironmentId, upstreams: Upstreams, limits: GatewayLimits) {
    this.id = id;
    this.made = new MadeResources(id);
    this.#limits = limits;
    this.#connect(upstreams);
  }

  get upstreams(): Upstreams {
    return this.#upstreams;
  }

  upstream(name: UpstreamName): Upstream | undefined {
    return this.#connections.get(name);
  }

  /** What is under way ends where it began; what comes next goes to the new services. */
  async setUpstreams(upstreams: Upstreams): Promise<void> {
    const old = [...this.#connections.values()];
    this.#connect(upstreams);
    await closeAll(old, this.#limits.answerTimeoutMs);
  }

  /** One reading request, for finding out what became of a command. */
  async ask(
    dialect: Dialect,
    name: UpstreamName,
    request: OutgoingRequest,
    signal?: AbortSignal,
  ): Promise<CloudAnswer> {
    const upstream = this.upstream(name);
    if (upstream === undefined) {
      throw new OperationalError(
        "cloud.unreachable",
        `environment ${this.id} has no endpoint for ${name} to ask now`,
      );
    }
    const sending = { ...upstream, dialect, name, request };
    const exchange = await exchangeSigned(sending, this.#limits.changeAnswerBytes, signal);
    if (exchange.ok) return exchange.answer;
    throw new OperationalError("cloud.unreachable", `the cloud of environment ${this.id} does not answer`, {
      detail: exchange.error.message,
      cause: exchange.error,
    });
  }

  async close(graceMs: number): Promise<void> {
    await closeAll([...this.#connections.values()], graceMs);
  }

  #connect(upstreams: Upstreams): void {
    this.#upstreams = upstreams;
    this.#connections = new Map();
    for (const [name, service] of upstreams) {
      const connections = new UpstreamConnections(service, {
        connections: this.#limits.upstreamConnections,
        connectTimeoutMs: this.#limits.connectTimeoutMs,
        answerTimeoutMs: this.#limits.answerTimeoutMs,
      });
      this.#connections.set(name, { service, connections });
    }
  }
}

async function closeAll(upstreams: readonly Upstream[], graceMs: number): Promise<void> {
  await Promise.all(upstreams.map(({ connections }) => connections.close(graceMs)));
}
