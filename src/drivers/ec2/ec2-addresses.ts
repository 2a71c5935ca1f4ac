/** Elastic IPs, and their associations with servers. */
import type { Address, Filter } from "@aws-sdk/client-ec2";
import {
  AllocateAddressCommand,
  AssociateAddressCommand,
  DescribeAddressesCommand,
  DisassociateAddressCommand,
  ReleaseAddressCommand,
} from "@aws-sdk/client-ec2";
import { OperationalError, isOperational } from "#kernel/errors.ts";
import type { ResourceId } from "#kernel/ids.ts";
import { addressAssociationId, addressOfAssociation } from "#wire/ec2/ec2-ids.ts";
import { addressFromEc2, associationFromAddress } from "#wire/ec2/ec2-resources.ts";
import type { Ec2Connection } from "./ec2-connection.ts";
import { filters } from "./ec2-connection.ts";
import type { Ec2Kind } from "./ec2-kind.ts";
import { markedTags, observed, tokenFilter, unlessGone } from "./ec2-kind.ts";
import { createOnce } from "./ec2-tokenless.ts";

/** EC2 does not page this listing: an account has a few at most. */
async function describe(ec2: Ec2Connection, select: Filter[], signal: AbortSignal): Promise<Address[]> {
  const answer = await ec2.read("DescribeAddresses", signal, (client, options) =>
    client.send(new DescribeAddressesCommand({ Filters: select }), options),
  );
  return answer.Addresses ?? [];
}

async function addressById(
  ec2: Ec2Connection,
  id: string,
  signal: AbortSignal,
): Promise<Address | undefined> {
  return (await describe(ec2, filters({ "allocation-id": id }), signal))[0];
}

async function disassociate(ec2: Ec2Connection, addressId: string, signal: AbortSignal): Promise<void> {
  const AssociationId = (await addressById(ec2, addressId, signal))?.AssociationId;
  if (AssociationId === undefined) return;
  await unlessGone(
    ec2.change("DisassociateAddress", signal, (client, options) =>
      client.send(new DisassociateAddressCommand({ AssociationId }), options),
    ),
  );
}

export function ec2Addresses(ec2: Ec2Connection): Ec2Kind<"address"> {
  return {
    pages: async function* (select, ids, signal) {
      const found = await describe(ec2, [...select, ...filters({ "allocation-id": ids })], signal);
      yield found.map((address) =>
        observed(addressFromEc2(address), "ready", {
          publicIps: address.PublicIp === undefined ? [] : [address.PublicIp],
        }),
      );
    },
    tagTarget: async (id) => id,
    create: async (request, signal) => {
      let made: Address | undefined;
      const id = await createOnce(ec2, request, signal, {
        find: async () => {
          made = (await describe(ec2, [tokenFilter(request.token)], signal))[0];
          return made?.AllocationId as ResourceId | undefined;
        },
        make: async () => {
          const input = {
            Domain: "vpc" as const,
            TagSpecifications: markedTags(request, "elastic-ip"),
          };
          made = await ec2.change("AllocateAddress", signal, (client, options) =>
            client.send(new AllocateAddressCommand(input), options),
          );
          return made.AllocationId as ResourceId | undefined;
        },
      });
      const publicIps = made?.PublicIp === undefined ? [] : [made.PublicIp];
      const { spec } = addressFromEc2({ AllocationId: id, PublicIp: made?.PublicIp });
      return observed<"address">({ kind: "address", id, spec, tags: request.tags }, "ready", { publicIps });
    },
    update: async (id) => {
      throw new OperationalError("cloud.unsupported", `nothing of address ${id} can be changed`);
    },
    delete: async (id, signal) => {
      await disassociate(ec2, id, signal);
      await unlessGone(
        ec2.change("ReleaseAddress", signal, (client, options) =>
          client.send(new ReleaseAddressCommand({ AllocationId: id }), options),
        ),
      );
    },
  };
}

export function ec2AddressAssociations(ec2: Ec2Connection): Ec2Kind<"addressAssociation"> {
  return {
    pages: async function* (select, ids, signal) {
      const addressIds = ids?.flatMap((id) => addressOfAssociation(id) ?? []);
      if (addressIds?.length === 0) return;
      const found = await describe(ec2, [...select, ...filters({ "allocation-id": addressIds })], signal);
      yield found.flatMap((address) => {
        const resource = associationFromAddress(address);
        return resource === undefined ? [] : [observed(resource)];
      });
    },
    tagTarget: async () => undefined,
    create: async ({ kind, spec }, signal) => {
      const { addressId, serverId, privateIp } = spec;
      const input = {
        AllocationId: addressId,
        InstanceId: serverId,
        PrivateIpAddress: privateIp,
        AllowReassociation: false,
      };
      await ec2
        .change("AssociateAddress", signal, (client, options) =>
          client.send(new AssociateAddressCommand(input), options),
        )
        .catch(async (error: unknown) => {
          if (!isOperational(error, "cloud.conflict")) throw error;
          const held = await addressById(ec2, addressId, signal);
          if (held?.InstanceId !== serverId) throw error;
        });
      return observed<"addressAssociation">({ kind, id: addressAssociationId(addressId), spec, tags: {} });
    },
    update: async (id) => {
      const message = `association ${id} cannot be changed: delete it and make another`;
      throw new OperationalError("cloud.unsupported", message);
    },
    delete: async (id, signal) => {
      const addressId = addressOfAssociation(id);
      if (addressId !== undefined) await disassociate(ec2, addressId, signal);
    },
  };
}
