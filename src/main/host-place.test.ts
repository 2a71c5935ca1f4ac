import assert from "node:assert/strict";
import { test } from "node:test";
import type { DiskHost } from "#cloud/disk-host.ts";
import { acrossMachines, placeOf, probedAddressOf } from "./host-place.ts";

const signal = new AbortController().signal;
const socket = "/var/lib/understudy-vault/nbd.sock";
const here = `nbd+unix:///capture/shop/vol-1/3?socket=${socket}`;
const there = "nbds://vault.example.net:10810/capture/shop/vol-1/3";
const crossing = {
  hostname: "metal.example.net",
  certificates: "/etc/understudy/control",
  vaultSocket: socket,
  vaultAddress: { host: "vault.example.net", port: 10_810 },
};

/** Answers with the address that it was told, and remembers it. */
function echo(exported = "nbds://0.0.0.0:10811/vol-1"): { readonly host: DiskHost; readonly told: string[] } {
  const told: string[] = [];
  const host = {
    startCapture: async ({ uri }: { uri: string }) => {
      told.push(uri);
      return { uri };
    },
    captures: async () => told.map((uri) => ({ uri })),
    seed: async ({ uri }: { uri: string }) => {
      told.push(uri);
      return { uri };
    },
    seeds: async () => told.map((uri) => ({ uri })),
    exportVolume: async () => ({ uri: exported }),
  };
  return { host: host as unknown as DiskHost, told };
}

test("a disk of the vault has the address that holds where it is used", async () => {
  const { host, told } = echo();
  const across = acrossMachines(host, crossing);
  const capture = { volumeId: "vol-1", uri: here, stallLimitMs: 1000 };
  assert.equal((await across.startCapture(capture, signal)).uri, here);
  assert.equal((await across.seed({ volumeId: "vol-1", uri: here }, signal)).uri, here);
  assert.deepEqual(told, [there, there]);
  assert.deepEqual(
    [...(await across.captures(signal)), ...(await across.seeds(signal))].map(({ uri }) => uri),
    [here, here, here, here],
  );
});

test("other addresses cross as they are, and another port of the vault's machine is not the vault", async () => {
  for (const uri of [
    "nbd+unix:///x?socket=/elsewhere.sock",
    "nbd://192.0.2.7/x",
    "nbds://vault.example.net/x",
  ]) {
    const { host, told } = echo();
    const across = acrossMachines(host, crossing);
    assert.equal((await across.seed({ volumeId: "vol-1", uri }, signal)).uri, uri);
    assert.deepEqual(told, [uri]);
  }
});

test("an address that is written in another form is the same", async () => {
  for (const [written, known] of [
    ["2001:DB8:0:0::1", "[2001:db8::1]"],
    ["Vault.Example.NET", "vault.example.net"],
  ] as const) {
    const { host, told } = echo();
    const vaultAddress = { host: written, port: 10_809 };
    const across = acrossMachines(host, { ...crossing, vaultAddress });
    assert.equal((await across.seed({ volumeId: "vol-1", uri: here }, signal)).uri, here);
    assert.equal(told[0]?.toLowerCase().includes("capture/shop/vol-1/3"), true);
    const status = `nbds://${known}/capture/shop/vol-1/3`;
    told.splice(0, 1, status);
    assert.deepEqual(
      (await across.seeds(signal)).map(({ uri }) => uri),
      [here],
    );
  }
});

test("a volume that a host serves is asked for where the host is reached, with our certificates", async () => {
  const across = acrossMachines(echo().host, crossing);
  assert.deepEqual(await across.exportVolume("vol-1", signal), {
    uri: "nbds://metal.example.net:10811/vol-1?tls-certificates=/etc/understudy/control",
  });
});

test("a host names no socket, no file and no machine but its own", async () => {
  const asked = (exported: string) =>
    acrossMachines(echo(exported).host, crossing).exportVolume("vol-1", signal);
  await assert.rejects(asked(`nbd+unix:///capture/shop/vol-1/3?socket=${socket}`), {
    code: "machine.failing",
  });
  await assert.rejects(asked("nbd://0.0.0.0:10811/vol-1"), { code: "machine.failing" });
  assert.deepEqual(await asked("nbds://a@192.0.2.7:10811/vol-1?tls-psk-file=/etc/keys&tls-hostname=else"), {
    uri: "nbds://metal.example.net:10811/vol-1?tls-certificates=/etc/understudy/control",
  });
});

test("an agent's place: a socket, or a port of another machine whose certificates must be there", () => {
  assert.deepEqual(placeOf({ socket: "/a.sock" }), { socketPath: "/a.sock" });
  assert.equal(probedAddressOf({ socket: "/a.sock" }), "unix:/a.sock");
  const remote = { url: "https://metal.example.net:7484", certificates: "/nowhere" };
  assert.equal(probedAddressOf(remote), "tcp://metal.example.net:7484");
  assert.throws(() => placeOf(remote), {
    code: "config.missing",
    message:
      /\/nowhere\/client-cert\.pem: `certificates` is a folder with ca-cert\.pem, client-cert\.pem and/u,
  });
});
