import type { Subnet } from "@aws-sdk/client-ec2";
import {
  CreateSubnetCommand,
  DeleteSubnetCommand,
  DescribeSubnetsCommand,
  ModifySubnetAttributeCommand,
} from "@aws-sdk/client-ec2";
import type { Observed } from "#cloud/contract.ts";
import { onceThere } from "#cloud/once-there.ts";
import { OperationalError } from "#kernel/errors.ts";
import type { ResourceId } from "#kernel/ids.ts";
import { subnetFromEc2 } from "#wire/ec2/ec2-resources.ts";
import type { Ec2Connection } from "./ec2-connection.ts";
import { filters } from "./ec2-connection.ts";
import type { Ec2Kind } from "./ec2-kind.ts";
import { firstOf, markedTags, observed, tokenFilter, unlessGone } from "./ec2-kind.ts";
import { createOnce } from "./ec2-tokenless.ts";

function observeSubnet(subnet: Subnet): Observed<"subnet"> {
  return observed(subnetFromEc2(subnet), subnet.State === "pending" ? "pending" : "ready");
}

export function ec2Subnets(ec2: Ec2Connection): Ec2Kind<"subnet"> {
  const pages: Ec2Kind<"subnet">["pages"] = async function* (select, ids, signal) {
    const Filters = [...select, ...filters({ "subnet-id": ids })];
    const answers = ec2.pages("DescribeSubnets", signal, (client, paging, options) =>
      client.send(new DescribeSubnetsCommand({ Filters, ...paging }), options),
    );
    for await (const { Subnets = [] } of answers) yield Subnets.map(observeSubnet);
  };

  async function mapPublicAddresses(id: ResourceId, value: boolean, signal: AbortSignal): Promise<void> {
    const input = { SubnetId: id, MapPublicIpOnLaunch: { Value: value } };
    await ec2.change("ModifySubnetAttribute", signal, (client, options) =>
      client.send(new ModifySubnetAttributeCommand(input), options),
    );
  }

  return {
    pages,
    tagTarget: async (id) => id,
    create: async (request, signal) => {
      const { kind, spec, tags } = request;
      let made: Subnet | undefined;
      const id = await createOnce(ec2, request, signal, {
        find: async () =>
          (await firstOf(pages([tokenFilter(request.token)], undefined, signal)))?.resource.id,
        make: async () => {
          const input = {
            VpcId: spec.networkId,
            CidrBlock: spec.cidr,
            AvailabilityZone: spec.zone,
            TagSpecifications: markedTags(request, "subnet"),
          };
          const answer = await ec2.change("CreateSubnet", signal, (client, options) =>
            client.send(new CreateSubnetCommand(input), options),
          );
          made = answer.Subnet;
          return made?.SubnetId as ResourceId | undefined;
        },
      });
      // Setting it again does no harm, so that an interrupted create is finished without looking.
      if (spec.publicAddresses) await onceThere(() => mapPublicAddresses(id, true, signal));
      const zone = made?.AvailabilityZone ?? spec.zone;
      return observed<"subnet">({
        kind,
        id,
        spec: { ...spec, ...(zone === undefined ? {} : { zone }) },
        tags,
      });
    },
    update: async (id, set, signal) => {
      const { publicAddresses, ...others } = set;
      if (Object.keys(others).length > 0) {
        const message = `of subnet ${id} only publicAddresses can be changed, not ${Object.keys(others).join(", ")}`;
        throw new OperationalError("cloud.unsupported", message);
      }
      if (publicAddresses !== undefined) await mapPublicAddresses(id, publicAddresses, signal);
    },
    delete: (id, signal) =>
      unlessGone(
        ec2.change("DeleteSubnet", signal, (client, options) =>
          client.send(new DeleteSubnetCommand({ SubnetId: id }), options),
        ),
      ),
  };
}
