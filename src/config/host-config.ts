/** How host agents, the control plane and the vault reach one another, on one machine or on several. */
import { resolve } from "node:path";
import { z } from "zod";
import { listenAddress } from "#config/listen-address.ts";

/**
 * A folder with `ca-cert.pem`, and with `server-cert.pem` and `server-key.pem` for who is called, `client-cert.pem` and `client-key.pem` for
 * who calls.
 */
const certificates = z.string().min(1);

/** Names in certificates of the same CA. */
const callers = z.array(z.string().min(1).max(253)).min(1);

/** An agent on this machine. */
const onThisMachine = { socket: z.string().min(1) };

/** An agent on another machine. */
const elsewhere = z.strictObject({
  url: z
    .string()
    .regex(
      /^https:\/\/(\[[0-9a-fA-F:]+\]|[^\s:/?#@]+):\d{1,5}$/u,
      "an agent's url looks like https://host.example.net:7484",
    )
    .refine((text) => URL.canParse(text), "it is no URL"),
  certificates,
});

/** Of a cloud that has a host agent beside it. */
export const cloudHost = z.union([z.strictObject(onThisMachine), elsewhere]);

/** Of a bare host. Its own file has the socket, and `remote` where control plane and vault are on another machine. */
export const bareHost = z.union([
  z.strictObject({
    ...onThisMachine,
    remote: z
      .strictObject({
        /** The agent's API, HTTPS. */
        listen: listenAddress,
        /** Disks that are written from outside, NBD over TLS. */
        disks: listenAddress,
        /** Of the agent; and what its machines show to the vault. */
        certificates,
        callers,
      })
      .optional(),
  }),
  elsewhere,
]);

export type HostPlace = z.output<typeof cloudHost> | z.output<typeof bareHost>;
export type RemoteAgent = NonNullable<Extract<z.output<typeof bareHost>, { socket: string }>["remote"]>;

/** Of the vault: hosts on other machines reach disks by NBD over TLS. */
export const vaultHosts = z.strictObject({
  listen: listenAddress,
  /** As the hosts reach it, where that is not `listen`. */
  address: listenAddress.optional(),
  certificates,
  callers,
});

export function withAbsoluteHost<H extends HostPlace>(host: H, folder: string): H {
  if ("url" in host) return { ...host, certificates: resolve(folder, host.certificates) };
  const remote = "remote" in host ? host.remote : undefined;
  return {
    ...host,
    socket: resolve(folder, host.socket),
    ...(remote === undefined
      ? {}
      : { remote: { ...remote, certificates: resolve(folder, remote.certificates) } }),
  };
}
