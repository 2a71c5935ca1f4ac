/**
 * The workbench of the conformance suite: makes resources of one scope, repeats as a careful caller does, waits on
 * states, and removes everything of its scope.
 */
import assert from "node:assert/strict";
import type { Cloud, CreateRequest, Observed } from "#cloud/contract.ts";
import { collect } from "#cloud/contract.ts";
import type { Clock } from "#kernel/clock.ts";
import type { ErrorCode } from "#kernel/errors.ts";
import { OperationalError, isOperational } from "#kernel/errors.ts";
import type { ResourceId } from "#kernel/ids.ts";
import type { Random } from "#kernel/random.ts";
import { backoffMs } from "#kernel/retry.ts";
import type { ResourceKind, ResourceOf, ResourceSpecs, Tags } from "#model/resource.ts";
import { resourceKinds } from "#model/resource.ts";

export interface ConformancePorts {
  readonly clock: Clock;
  readonly random: Random;
}

export interface BenchLimits {
  /** How long a state is waited for. */
  readonly waitMs: number;
  /** Between two looks at a state. */
  readonly pollMs: number;
}

/** What a careful caller of a cloud does between attempts. */
const policy = { attempts: 12, baseMs: 200, capMs: 10_000 };

/** Links go with what they link. */
const ownKinds = resourceKinds.filter(
  (kind) => !["securityGroupRule", "volumeAttachment", "addressAssociation"].includes(kind),
);

export class ConformanceBench {
  readonly scope: string;
  readonly cloud: Cloud;
  readonly #ports: ConformancePorts;
  readonly #limits: BenchLimits;
  readonly #signal: AbortSignal;

  constructor(
    cloud: Cloud,
    scope: string,
    ports: ConformancePorts,
    limits: BenchLimits,
    signal: AbortSignal,
  ) {
    this.cloud = cloud;
    this.scope = scope;
    this.#ports = ports;
    this.#limits = limits;
    this.#signal = signal;
  }

  token(): string {
    return `conformance-${this.#ports.random.hex(12)}`;
  }

  name(): string {
    return `understudy-verify-${this.#ports.random.hex(4)}`;
  }

  request<K extends ResourceKind>(
    kind: K,
    spec: ResourceSpecs[K],
    tags: Tags = { Name: this.name() },
  ): CreateRequest<K> {
    return { kind, spec, tags, token: this.token(), scope: this.scope, mayExist: false };
  }

  async make<K extends ResourceKind>(kind: K, spec: ResourceSpecs[K], tags?: Tags): Promise<Observed<K>> {
    return this.create(this.request(kind, spec, tags));
  }

  /** Sends the request until it succeeds or is refused; from the second time on, it may exist. */
  create<K extends ResourceKind>(request: CreateRequest<K>): Promise<Observed<K>> {
    return this.call((attempt) =>
      this.cloud.create({ ...request, mayExist: request.mayExist || attempt > 1 }, this.#signal),
    );
  }

  get<K extends ResourceKind>(kind: K, id: ResourceId): Promise<Observed<K> | undefined> {
    return this.call(() => this.cloud.get(kind, id, this.#signal));
  }

  list<K extends ResourceKind>(
    kind: K,
    filter: { readonly scope?: string; readonly tags?: Tags; readonly ids?: readonly ResourceId[] },
  ): Promise<Observed<K>[]> {
    return this.call(() => collect(this.cloud.list(kind, filter, this.#signal)));
  }

  update<K extends ResourceKind>(kind: K, id: ResourceId, set: Partial<ResourceSpecs[K]>): Promise<void> {
    return this.call(() => this.cloud.update(kind, id, set, this.#signal));
  }

  setTags(kind: ResourceKind, id: ResourceId, set: Tags, remove: readonly string[]): Promise<void> {
    return this.call(() => this.cloud.setTags(kind, id, set, remove, this.#signal));
  }

  delete(kind: ResourceKind, id: ResourceId): Promise<void> {
    return this.call(() => this.cloud.delete(kind, id, this.#signal));
  }

  /** Every call of the contract that is used here is idempotent, so that it may be repeated after any outcome. */
  async call<T>(work: (attempt: number) => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await work(attempt);
      } catch (error) {
        if (!isOperational(error) || error.retry === "never" || attempt >= policy.attempts) throw error;
        await this.#pause(error, attempt);
      }
    }
  }

  /** The call must be refused so; what is transient on the way there is repeated. */
  async expectRefusal(codes: readonly ErrorCode[], work: () => Promise<unknown>): Promise<OperationalError> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        await work();
      } catch (error) {
        assert.ok(isOperational(error), `expected an OperationalError, got ${String(error)}`);
        if (codes.includes(error.code)) return error;
        if (error.retry === "never" || attempt >= policy.attempts) {
          assert.fail(`expected ${codes.join(" or ")}, got ${error.code}: ${error.message}`);
        }
        await this.#pause(error, attempt);
        continue;
      }
      assert.fail(`expected ${codes.join(" or ")}, but the call succeeded`);
    }
  }

  /** Looks until `look` answers something. */
  async until<T>(what: string, look: () => Promise<T | undefined>): Promise<T> {
    const { clock } = this.#ports;
    const deadline = clock.monotonicMs() + this.#limits.waitMs;
    for (;;) {
      const seen = await look();
      if (seen !== undefined) return seen;
      if (clock.monotonicMs() > deadline) {
        throw new OperationalError("cloud.timeout", `waited ${this.#limits.waitMs} ms in vain for ${what}`);
      }
      await clock.sleep(this.#limits.pollMs, this.#signal);
    }
  }

  serverBecomes(id: ResourceId, status: "ready" | "stopped"): Promise<Observed<"server">> {
    return this.until(`server ${id} to be ${status}`, async () => {
      const seen = await this.get("server", id);
      if (seen?.status === "failed") assert.fail(`server ${id} failed: ${seen.fault ?? "no fault told"}`);
      return seen?.status === status ? seen : undefined;
    });
  }

  /** A network with a subnet that reaches the internet, as servers with public addresses need it. */
  async network(): Promise<{
    readonly network: ResourceOf<"network">;
    readonly subnet: ResourceOf<"subnet">;
  }> {
    const network = await this.make("network", { cidr: "10.97.0.0/16", internet: true });
    const subnet = await this.make("subnet", {
      networkId: network.resource.id,
      cidr: "10.97.1.0/24",
      publicAddresses: false,
    });
    return { network: network.resource, subnet: subnet.resource };
  }

  /** Removes all of this scope, dependants first; answers what it removed. */
  async sweep(): Promise<{ readonly kind: ResourceKind; readonly id: ResourceId }[]> {
    const removed: { kind: ResourceKind; id: ResourceId }[] = [];
    for (const kind of ownKinds.toReversed()) {
      if (!this.cloud.facts.kinds[kind]) continue;
      const found = await this.list(kind, { scope: this.scope });
      for (const { resource } of found as Observed[]) {
        await this.delete(kind, resource.id);
        removed.push({ kind, id: resource.id });
      }
    }
    return removed;
  }

  async #pause(error: OperationalError, attempt: number): Promise<void> {
    const { clock, random } = this.#ports;
    const base = { ...policy, baseMs: Math.min(policy.baseMs, this.#limits.pollMs) };
    await clock.sleep(backoffMs(base, attempt, random, error.retryAfterMs), this.#signal);
  }
}
