/**
 * All records of the cloud: transactions in memory, made durable in groups. A transaction is synchronous, so no two
 * overlap; whoever wants to answer a caller awaits `durable()` first, reads too, since they may have seen a change that is
 * not yet on disk.
 */
import { invariant } from "#kernel/invariant.ts";
import type { RecordFile } from "./record-file.ts";
import type { RecordTypes, TableName } from "./records.ts";
import { Table } from "./table.ts";

export interface RecordChange {
  readonly table: TableName;
  readonly id: string;
}

type Tables = { readonly [K in TableName]: Table<RecordTypes[K]> };

function makeTables(onChange: (table: TableName, id: string, before: unknown) => void): Tables {
  const table = <K extends TableName>(
    name: K,
    indexes: Readonly<Record<string, (record: RecordTypes[K]) => readonly string[]>> = {},
  ): Table<RecordTypes[K]> => new Table(name, indexes, (id, before) => onChange(name, id, before));
  const optional = (key: string | null | undefined): readonly string[] =>
    key === null || key === undefined ? [] : [key];
  return {
    network: table("network"),
    subnet: table("subnet", { network: (subnet) => [subnet.networkId] }),
    port: table("port", {
      network: (port) => [port.networkId],
      subnet: (port) => [port.subnetId],
      ip: (port) => [`${port.subnetId}/${port.privateIp}`],
      group: (port) => port.groupIds,
      server: (port) => optional(port.serverId),
    }),
    gateway: table("gateway", {
      network: (gateway) => optional(gateway.networkId),
      subnet: (gateway) => gateway.subnetIds,
    }),
    routeTable: table("routeTable", {
      network: (routes) => [routes.networkId],
      subnet: (routes) => routes.associations.map((association) => association.subnetId),
      association: (routes) => [
        ...routes.associations.map((association) => association.id),
        ...optional(routes.mainAssociationId),
      ],
      target: (routes) => routes.routes.map((route) => route.target.id),
    }),
    group: table("group", {
      network: (group) => optional(group.networkId),
      name: (group) => [`${group.networkId ?? ""}/${group.name}`],
    }),
    rule: table("rule", {
      group: (rule) => [rule.groupId],
      peerGroup: (rule) => (rule.peer.kind === "group" ? [rule.peer.groupId] : []),
    }),
    keyPair: table("keyPair", { name: (key) => [key.name] }),
    volume: table("volume", { server: (volume) => optional(volume.attachment?.serverId) }),
    snapshot: table("snapshot"),
    address: table("address", {
      ip: (address) => [address.ip],
      association: (address) => optional(address.association?.id),
      port: (address) => optional(address.association?.portId),
      server: (address) => optional(address.association?.serverId),
    }),
    server: table("server", {
      hostAddress: (server) => (server.state === "terminated" ? [] : [server.hostAddress]),
      alive: (server) => (server.state === "terminated" || server.state === "shutting-down" ? [] : ["yes"]),
      state: (server) => [server.state],
    }),
    token: table("token"),
  };
}

interface Waiter {
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

export class CloudTables {
  readonly tables: Tables;
  readonly #file: RecordFile | null;
  /** Of the transaction under way: what each touched record was before. */
  #undo: Map<string, { table: TableName; id: string; before: unknown }> | null = null;
  /** Changed in memory, not yet on disk. */
  #dirty = new Map<string, RecordChange>();
  #waiters: Waiter[] = [];
  #flushQueued = false;
  readonly #listeners: ((changes: readonly RecordChange[]) => void)[] = [];

  /** `null`: keep nothing on disk. */
  constructor(file: RecordFile | null) {
    this.#file = file;
    this.tables = makeTables((table, id, before) => {
      invariant(this.#undo, `${table} ${id} was changed outside a transaction`);
      const key = `${table}/${id}`;
      if (!this.#undo.has(key)) this.#undo.set(key, { table, id, before });
    });
    for (const { table, id, record } of file?.load() ?? []) {
      this.#tableNamed(table).restore(id, record as never);
    }
  }

  /** Runs `work` whole or not at all; inside another transaction it is a part of that one. */
  transact<T>(work: () => T): T {
    if (this.#undo !== null) return work();
    const undo = (this.#undo = new Map());
    try {
      const result = work();
      this.#undo = null;
      for (const [key, { table, id }] of undo) this.#dirty.set(key, { table, id });
      if (undo.size > 0) this.#queueFlush();
      return result;
    } catch (error) {
      this.#undo = null;
      for (const { table, id, before } of [...undo.values()].reverse()) {
        this.#tableNamed(table).restore(id, before as never);
      }
      throw error;
    }
  }

  /** Resolves when every change made before this call is on stable storage. Errors: `store.full`, `store.failing`. */
  durable(): Promise<void> {
    if (this.#dirty.size === 0) return Promise.resolve();
    return new Promise((resolve, reject) => {
      this.#waiters.push({ resolve, reject });
      this.#queueFlush();
    });
  }

  /** Called with each group of changes once it is on stable storage. */
  onDurable(listener: (changes: readonly RecordChange[]) => void): void {
    this.#listeners.push(listener);
  }

  /** Every record, by table, in order of creation. */
  dump(): Record<TableName, unknown[]> {
    return Object.fromEntries(
      Object.entries(this.tables).map(([name, table]) => [name, [...table.values()]]),
    ) as unknown as Record<TableName, unknown[]>;
  }

  /** Part of a transaction: replaces everything by what `dump` gave; an empty object clears. */
  replaceAll(dump: Partial<Record<TableName, readonly unknown[]>>): void {
    for (const [name, table] of Object.entries(this.tables)) {
      for (const record of table.values()) table.delete(record.id);
      for (const record of dump[name as TableName] ?? []) table.put(record as never);
    }
  }

  flush(): void {
    this.#flushQueued = false;
    const waiters = this.#waiters;
    this.#waiters = [];
    const changes = [...this.#dirty.values()];
    try {
      if (changes.length > 0) {
        this.#file?.write(
          changes.map(({ table, id }) => ({ table, id, record: this.tables[table].get(id) ?? null })),
        );
      }
    } catch (error) {
      // Memory is now ahead of the disk. The changes stay due: no answer leaves before they are written.
      for (const waiter of waiters) waiter.reject(error);
      return;
    }
    this.#dirty.clear();
    for (const waiter of waiters) waiter.resolve();
    if (changes.length > 0) for (const listener of this.#listeners) listener(changes);
  }

  close(): void {
    this.flush();
    this.#file?.close();
  }

  #queueFlush(): void {
    if (this.#flushQueued) return;
    this.#flushQueued = true;
    // After the current poll phase: requests that arrived together share one fsync.
    setImmediate(() => {
      if (this.#flushQueued) this.flush();
    });
  }

  #tableNamed(name: string): Table<{ readonly id: string }> {
    const table = (this.tables as Record<string, unknown>)[name];
    invariant(table, `no table ${name}`);
    return table as Table<{ readonly id: string }>;
  }
}
