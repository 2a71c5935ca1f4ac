/** Public addresses with a life of their own: Elastic IPs, floating IPs. */
import { find, newRecord, type Cloud, type Naming } from "./cloud.ts";
import { checkQuota } from "./quotas.ts";
import type { AddressRecord } from "./records.ts";
import { refuse } from "./refusal.ts";

/** A loopback address that no server and no public address has. */
export function freeHostAddress(cloud: Cloud): string {
  const { server, address } = cloud.data.tables;
  return cloud.pool.take((ip) => server.countBy("hostAddress", ip) > 0 || address.countBy("ip", ip) > 0);
}

export function allocateAddress(cloud: Cloud, input: Naming = {}): AddressRecord {
  const { address } = cloud.data.tables;
  checkQuota(cloud.quotas, "addresses", address.size);
  return address.put({
    ...newRecord(cloud, "address", input),
    ip: freeHostAddress(cloud),
    association: null,
  });
}

export interface AssociateInput {
  readonly addressId: string;
  readonly portId: string;
  /** Absent or true: an association that stands in the way ends. */
  readonly reassociate?: boolean;
}

export function associateAddress(cloud: Cloud, input: AssociateInput): AddressRecord {
  const { address } = cloud.data.tables;
  const record = find(cloud, "address", input.addressId);
  const port = find(cloud, "port", input.portId);
  if (record.association?.portId === port.id) return record;
  if (record.association !== null && input.reassociate === false) {
    refuse({ code: "already_associated", kind: "address", id: record.id, to: record.association.portId });
  }
  for (const other of address.by("port", port.id)) {
    if (input.reassociate === false) {
      refuse({ code: "already_associated", kind: "port", id: port.id, to: other.id });
    }
    address.put({ ...other, association: null });
  }
  return address.put({
    ...record,
    association: {
      id: cloud.ids.make("addressAssociation", cloud.random),
      portId: port.id,
      serverId: port.serverId,
      privateIp: port.privateIp,
    },
  });
}

export function disassociateAddress(cloud: Cloud, addressId: string): AddressRecord {
  const record = find(cloud, "address", addressId);
  return cloud.data.tables.address.put({ ...record, association: null });
}

export function releaseAddress(cloud: Cloud, id: string): void {
  const record = find(cloud, "address", id);
  if (record.association !== null) {
    refuse({ code: "in_use", kind: "address", id, by: { kind: "port", id: record.association.portId } });
  }
  cloud.data.tables.address.delete(id);
}
