/** Route tables (EC2). A subnet without one of its own follows the network's main table. */
import { find, newRecord, type Cloud, type Naming } from "./cloud.ts";
import { formatPrefix, parsePrefix } from "./ipv4.ts";
import type { Route, RouteTableRecord } from "./records.ts";
import { refuse } from "./refusal.ts";

export function createRouteTable(
  cloud: Cloud,
  input: Naming & { readonly networkId: string; readonly main?: boolean },
): RouteTableRecord {
  const network = find(cloud, "network", input.networkId);
  return cloud.data.tables.routeTable.put({
    ...newRecord(cloud, "routeTable", input),
    networkId: network.id,
    main: input.main ?? false,
    mainAssociationId: input.main === true ? cloud.ids.make("routeTableAssociation", cloud.random) : null,
    associations: [],
    routes:
      network.cidr === null ? [] : [{ destination: network.cidr, target: { kind: "local", id: "local" } }],
  });
}

export function deleteRouteTable(cloud: Cloud, id: string): void {
  const table = find(cloud, "routeTable", id);
  if (table.main)
    refuse({ code: "in_use", kind: "routeTable", id, by: { kind: "network", id: table.networkId } });
  const held = table.associations[0];
  if (held !== undefined) {
    refuse({ code: "in_use", kind: "routeTable", id, by: { kind: "subnet", id: held.subnetId } });
  }
  cloud.data.tables.routeTable.delete(id);
}

/** The association's id. */
export function associateRouteTable(cloud: Cloud, id: string, subnetId: string): string {
  const { routeTable } = cloud.data.tables;
  const table = find(cloud, "routeTable", id);
  const subnet = find(cloud, "subnet", subnetId);
  if (subnet.networkId !== table.networkId) {
    refuse({ code: "crosses", boundary: "network", ids: [id, subnetId] });
  }
  const own = routeTable.by("subnet", subnetId)[0];
  if (own !== undefined) {
    const existing = own.associations.find((association) => association.subnetId === subnetId);
    if (own.id === id && existing !== undefined) return existing.id;
    refuse({ code: "already_associated", kind: "subnet", id: subnetId, to: existing?.id ?? own.id });
  }
  const associationId = cloud.ids.make("routeTableAssociation", cloud.random);
  routeTable.put({ ...table, associations: [...table.associations, { id: associationId, subnetId }] });
  return associationId;
}

function tableOfAssociation(cloud: Cloud, associationId: string): RouteTableRecord {
  const table = cloud.data.tables.routeTable.by("association", associationId)[0];
  if (table !== undefined) return table;
  if (!cloud.ids.wellFormed("routeTableAssociation", associationId)) {
    refuse({ code: "malformed_id", kind: "routeTableAssociation", id: associationId });
  }
  return refuse({ code: "not_found", kind: "routeTableAssociation", ids: [associationId] });
}

export function disassociateRouteTable(cloud: Cloud, associationId: string): void {
  const table = tableOfAssociation(cloud, associationId);
  if (table.mainAssociationId === associationId) {
    refuse({
      code: "invalid",
      field: "associationId",
      value: associationId,
      message: `cannot disassociate the main route table association ${associationId}`,
    });
  }
  cloud.data.tables.routeTable.put({
    ...table,
    associations: table.associations.filter((association) => association.id !== associationId),
  });
}

/** Moves an association to another table; for the main association, makes that table the main one. */
export function replaceRouteTableAssociation(cloud: Cloud, associationId: string, tableId: string): string {
  const { routeTable } = cloud.data.tables;
  const from = tableOfAssociation(cloud, associationId);
  const to = find(cloud, "routeTable", tableId);
  if (from.networkId !== to.networkId) {
    refuse({ code: "crosses", boundary: "network", ids: [from.id, tableId] });
  }
  const id = cloud.ids.make("routeTableAssociation", cloud.random);
  if (from.mainAssociationId === associationId) {
    routeTable.put({ ...from, main: false, mainAssociationId: null });
    routeTable.put({ ...find(cloud, "routeTable", tableId), main: true, mainAssociationId: id });
    return id;
  }
  const held = from.associations.find((association) => association.id === associationId);
  routeTable.put({
    ...from,
    associations: from.associations.filter((association) => association.id !== associationId),
  });
  const target = find(cloud, "routeTable", tableId);
  routeTable.put({
    ...target,
    associations: [...target.associations, { id, subnetId: held?.subnetId ?? "" }],
  });
  return id;
}

function checkedDestination(destination: string): string {
  const prefix = parsePrefix(destination);
  if (prefix === undefined)
    refuse({ code: "cidr_invalid", kind: "route", cidr: destination, reason: "syntax" });
  return formatPrefix(prefix);
}

function checkTarget(cloud: Cloud, table: RouteTableRecord, target: Route["target"]): void {
  if (target.kind === "local") return;
  const networkId =
    target.kind === "gateway"
      ? find(cloud, "gateway", target.id).networkId
      : target.kind === "port"
        ? find(cloud, "port", target.id).networkId
        : cloud.data.tables.port.by("server", find(cloud, "server", target.id).id)[0]?.networkId;
  if (networkId !== table.networkId) {
    refuse({ code: "crosses", boundary: "network", ids: [table.id, target.id] });
  }
}

export function createRoute(cloud: Cloud, tableId: string, route: Route): void {
  const table = find(cloud, "routeTable", tableId);
  const destination = checkedDestination(route.destination);
  const existing = table.routes.find((each) => each.destination === destination);
  if (existing !== undefined) {
    if (existing.target.id === route.target.id) return;
    refuse({ code: "duplicate", kind: "route", name: destination, within: tableId });
  }
  checkTarget(cloud, table, route.target);
  cloud.data.tables.routeTable.put({
    ...table,
    routes: [...table.routes, { destination, target: route.target }],
  });
}

export function replaceRoute(cloud: Cloud, tableId: string, route: Route): void {
  const table = find(cloud, "routeTable", tableId);
  const destination = checkedDestination(route.destination);
  if (!table.routes.some((each) => each.destination === destination)) {
    refuse({ code: "not_found", kind: "route", ids: [destination] });
  }
  checkTarget(cloud, table, route.target);
  cloud.data.tables.routeTable.put({
    ...table,
    routes: table.routes.map((each) =>
      each.destination === destination ? { destination, target: route.target } : each,
    ),
  });
}

export function deleteRoute(cloud: Cloud, tableId: string, destinationText: string): void {
  const table = find(cloud, "routeTable", tableId);
  const destination = checkedDestination(destinationText);
  const existing = table.routes.find((each) => each.destination === destination);
  if (existing === undefined) refuse({ code: "not_found", kind: "route", ids: [destination] });
  if (existing.target.kind === "local") {
    refuse({
      code: "invalid",
      field: "destination",
      value: destination,
      message: `cannot remove local route ${destination} in route table ${tableId}`,
    });
  }
  cloud.data.tables.routeTable.put({
    ...table,
    routes: table.routes.filter((each) => each.destination !== destination),
  });
}
