/** Key pairs: known by name. Only public keys come here; a private one never leaves its owner. */
import type { KeyPairInfo } from "@aws-sdk/client-ec2";
import { DeleteKeyPairCommand, DescribeKeyPairsCommand, ImportKeyPairCommand } from "@aws-sdk/client-ec2";
import { OperationalError } from "#kernel/errors.ts";
import type { Filter } from "@aws-sdk/client-ec2";
import type { ResourceId } from "#kernel/ids.ts";
import { keyPairFromEc2 } from "#wire/ec2/ec2-resources.ts";
import { tokenTag } from "#cloud/contract.ts";
import type { Ec2Connection } from "./ec2-connection.ts";
import { filters } from "./ec2-connection.ts";
import type { Ec2Kind } from "./ec2-kind.ts";
import { isRemote, markedTags, observed, unlessGone } from "./ec2-kind.ts";

export function ec2KeyPairs(ec2: Ec2Connection): Ec2Kind<"keyPair"> {
  async function describe(select: Filter[], signal: AbortSignal): Promise<KeyPairInfo[]> {
    const input = { Filters: select, IncludePublicKey: true };
    const answer = await ec2.read("DescribeKeyPairs", signal, (client, options) =>
      client.send(new DescribeKeyPairsCommand(input), options),
    );
    return answer.KeyPairs ?? [];
  }

  const byName = async (name: string, signal: AbortSignal): Promise<KeyPairInfo | undefined> =>
    (await describe(filters({ "key-name": name }), signal))[0];

  return {
    // EC2 does not page this listing: an account has few thousand of them at most.
    pages: async function* (select, ids, signal) {
      const found = await describe([...select, ...filters({ "key-name": ids })], signal);
      yield found.map((pair) => observed(keyPairFromEc2(pair)));
    },
    tagTarget: async (id, signal) => (await byName(id, signal))?.KeyPairId,
    create: async (request, signal) => {
      const { kind, spec, tags } = request;
      if (spec.publicKey === undefined) {
        const message = `the public key of key pair ${spec.name} is not known: import it into the active site, or add it by hand`;
        throw new OperationalError("cloud.unsupported", message);
      }
      const input = {
        KeyName: spec.name,
        PublicKeyMaterial: Buffer.from(spec.publicKey),
        TagSpecifications: markedTags(request, "key-pair"),
      };
      // A name is taken once, so that the refusal itself asks whether it exists.
      await ec2
        .change("ImportKeyPair", signal, (client, options) =>
          client.send(new ImportKeyPairCommand(input), options),
        )
        .catch(async (error: unknown) => {
          if (!isRemote(error, "InvalidKeyPair.Duplicate")) throw error;
          const held = await byName(spec.name, signal);
          const ours = held?.Tags?.some(({ Key, Value }) => Key === tokenTag && Value === request.token);
          if (ours !== true) throw error;
        });
      return observed<"keyPair">({ kind, id: spec.name as ResourceId, spec, tags });
    },
    update: async (id) => {
      throw new OperationalError("cloud.unsupported", `nothing of key pair ${id} can be changed`);
    },
    delete: (id, signal) =>
      unlessGone(
        ec2.change("DeleteKeyPair", signal, (client, options) =>
          client.send(new DeleteKeyPairCommand({ KeyName: id }), options),
        ),
      ),
  };
}
