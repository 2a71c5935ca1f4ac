/** The OpenStack driver: the kinds behind the contract of a cloud. */
import type { Cloud, CloudFacts, CreateRequest, Observed } from "#cloud/contract.ts";
import type { ResourceKind } from "#model/resource.ts";
import { addressAssociationKind, addressKind } from "./address-kind.ts";
import { Calls } from "./calls.ts";
import { createCatalogueLookup, readCatalogue } from "./catalogue.ts";
import { keyPairKind } from "./key-pair-kind.ts";
import type { KindDriver } from "./kind-driver.ts";
import { sift } from "./kind-driver.ts";
import { networkKind } from "./network-kind.ts";
import type { OpenstackCloudOptions } from "./openstack-options.ts";
import { OpenstackSession } from "./openstack-session.ts";
import { securityGroupKind } from "./security-group-kind.ts";
import { securityGroupRuleKind } from "./security-group-rule-kind.ts";
import { serverKind } from "./server-kind.ts";
import { subnetKind } from "./subnet-kind.ts";
import { TokenGate } from "./token-gate.ts";
import { volumeAttachmentKind, volumeKind } from "./volume-kind.ts";

const facts: CloudFacts = {
  driver: "openstack",
  kinds: {
    network: true,
    subnet: true,
    securityGroup: true,
    securityGroupRule: true,
    keyPair: true,
    volume: true,
    address: true,
    server: true,
    volumeAttachment: true,
    addressAssociation: true,
  },
  unsupportedFields: {
    network: ["cidr"],
    subnet: ["zone", "publicAddresses"],
    // Groups belong to the project.
    securityGroup: ["networkId"],
    securityGroupRule: ["tags"],
    keyPair: ["tags"],
    // A matter of the volume's type.
    volume: ["iops", "encrypted"],
    // The hypervisor names devices as it likes.
    volumeAttachment: ["device", "tags"],
    addressAssociation: ["tags"],
  },
  publicAddressOnCreate: false,
  networkNeedsCidr: false,
  userDataMutable: false,
  concurrency: 16,
  callsPerSecond: null,
  // Nova's default quota of 128 metadata items, less token and scope.
  maxTagsPerResource: 126,
  // 65,535 characters of base64 (nova's schema of user_data).
  maxUserDataBytes: 49_149,
};

type Kinds = { readonly [K in ResourceKind]: KindDriver<K> };

function kindsOf(options: OpenstackCloudOptions): Kinds {
  return {
    network: networkKind(options.publicNetwork),
    subnet: subnetKind(),
    securityGroup: securityGroupKind(),
    securityGroupRule: securityGroupRuleKind(),
    keyPair: keyPairKind(),
    volume: volumeKind(),
    address: addressKind(options.publicNetwork),
    server: serverKind(createCatalogueLookup(options.clock)),
    volumeAttachment: volumeAttachmentKind(),
    addressAssociation: addressAssociationKind(),
  };
}

/**
 * Opens one project of one OpenStack; nothing is asked of it before the first call. Throws `config.invalid` for addresses
 * that are none.
 */
export function openOpenstackCloud(options: OpenstackCloudOptions): Cloud {
  const session = new OpenstackSession(options);
  const gate = new TokenGate();
  const kinds = kindsOf(options);
  const context = { session, clock: options.clock, pageSize: options.pageSize ?? 500 };
  const callsFor = (signal: AbortSignal): Calls => new Calls(context, signal);
  const log = options.log.child({ driver: facts.driver });
  const driverOf = <K extends ResourceKind>(kind: K): KindDriver<K> => kinds[kind];

  return {
    facts,

    async identify(signal) {
      session.renew();
      const { account } = await session.identity(signal);
      return { account, endpoint: session.authUrl };
    },

    catalogue: (signal) => readCatalogue(callsFor(signal)),

    async create<K extends ResourceKind>(request: CreateRequest<K>, signal: AbortSignal) {
      const key = `${request.kind} ${request.token}`;
      const mapped = await gate.run(key, signal, (repeated) => {
        const calls = callsFor(signal);
        const mayExist = request.mayExist || repeated;
        const result = driverOf(request.kind).create({ ...request, mayExist }, calls);
        return { result, settled: () => calls.settled() };
      });
      log.debug({ kind: request.kind, id: mapped.resource.id, token: request.token }, "created");
      return mapped as unknown as Observed<K>;
    },

    get: async (kind, id, signal) =>
      (await driverOf(kind).get(id, callsFor(signal))) as Observed<typeof kind> | undefined,

    async *list(kind, filter, signal) {
      for await (const found of driverOf(kind).list(filter, callsFor(signal))) {
        const page = sift(found, filter);
        if (page.length > 0) yield page;
      }
    },

    update: (kind, id, set, signal) => driverOf(kind).update(id, set, callsFor(signal)),
    setTags: (kind, id, set, remove, signal) => driverOf(kind).setTags(id, set, remove, callsFor(signal)),

    async delete(kind, id, signal) {
      await driverOf(kind).delete(id, callsFor(signal));
      log.debug({ kind, id }, "deleted");
    },

    close: () => session.close(),
  };
}
