/** Serves a bare host to other processes of its machine: its site and the content of its disks, on one socket. */
import type { CreateRequest, Observed } from "#cloud/contract.ts";
import { diskHandlers } from "#hypervisor/host-api/host-api-server.ts";
import { hostMethods } from "#hypervisor/host-api/host-methods.ts";
import type { Log } from "#kernel/log.ts";
import { decodePartialSpec, decodeSpec } from "#wire/host/resource-schema.ts";
import { type ObservedOnWire, siteMethods } from "#wire/host/site-methods.ts";
import type { LocalHandlers } from "#wire/local-api/local-api.ts";
import { serveLocalApi } from "#wire/local-api/local-api-server.ts";
import type { HostSite } from "./host-site.ts";

/** Open calls are aborted when it is disposed of; the site itself is not. Errors: those of `serveLocalApi`. */
export function startSiteApi(site: HostSite, socketPath: string, log: Log): Promise<AsyncDisposable> {
  return serveLocalApi({
    socketPath,
    methods: siteMethodsWithDisks,
    log,
    handlers: siteHandlers(site),
  });
}

export const siteMethodsWithDisks = { ...hostMethods, ...siteMethods } as const;

export function siteHandlers(site: HostSite): LocalHandlers<typeof siteMethodsWithDisks> {
  return {
    ...diskHandlers(site.disks),
    identify: () => Promise.resolve({ account: site.name }),
    catalogue: () => {
      const { types, images, zones } = site.catalogue();
      return Promise.resolve({ types: [...types], images: [...images], zones: [...zones] });
    },
    create: async ({ kind, spec, ...rest }) =>
      onWire(
        await site.create({ ...rest, kind, spec: decodeSpec(kind, spec) } satisfies CreateRequest<
          typeof kind
        >),
      ),
    get: ({ kind, id }) => {
      const found = site.get(kind, id);
      return Promise.resolve(found === undefined ? null : onWire(found));
    },
    list: ({ kind, filter: { scope, tags, ids }, after }) => {
      const filter = {
        ...(scope === undefined ? {} : { scope }),
        ...(tags === undefined ? {} : { tags }),
        ...(ids === undefined ? {} : { ids }),
      };
      const { page, more } = site.list(kind, filter, after);
      return Promise.resolve({ page: page.map(onWire), more });
    },
    update: async ({ kind, id, set }) => {
      await site.update(kind, id, decodePartialSpec(kind, set));
      return null;
    },
    setTags: async ({ kind, id, set, remove }) => {
      await site.setTags(kind, id, set, remove);
      return null;
    },
    delete: async ({ kind, id }) => {
      await site.delete(kind, id);
      return null;
    },
  };
}

function onWire({ resource, status, fault, addresses }: Observed): ObservedOnWire {
  const { kind, id, spec, tags } = resource;
  return {
    resource: { kind, id, spec: { ...spec }, tags },
    status,
    ...(fault === undefined ? {} : { fault }),
    addresses: { private: [...addresses.private], public: [...addresses.public] },
  };
}
