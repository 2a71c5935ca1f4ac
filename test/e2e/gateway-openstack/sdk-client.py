"""openstacksdk, knowing nothing of a gateway, builds and takes down a small shop; prints what it was told.

Ids, addresses of services and times are replaced by their order of appearance, so that two clouds alike give the same text.
"""
import json
import re
import sys
import warnings

warnings.simplefilter("ignore")
import openstack  # noqa: E402

login = json.loads(sys.argv[1])
connection = openstack.connect(
    auth_type=login["type"], auth=login["auth"], region_name=login["region"], identity_api_version="3"
)
compute, network, volumes, images = (
    connection.compute,
    connection.network,
    connection.block_storage,
    connection.image,
)
seen = {}
told = []
unstable = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|\b[0-9a-f]{32}\b"
    r"|\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?Z?|\b(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\b|\b(?:[0-9a-f]{2}:){15}[0-9a-f]{2}\b"
)
left_out = {"location", "adminPass", "admin_password", "private_key", "public_key", "fingerprint", "user_id", "hostId", "host_id"}


def name_of(match):
    text = match.group(0)
    # Two things may happen in one second, or in two.
    return "<time>" if text[4:5] == "-" and ":" in text else seen.setdefault(text, f"<{len(seen)}>")


def plain(value):
    if hasattr(value, "to_dict"):
        value = value.to_dict()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in sorted(value.items()) if key not in left_out}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, str):
        for base, mark in login["bases"]:
            value = value.replace(base, mark)
        return unstable.sub(name_of, value)
    return value


def step(name, action, show=True):
    try:
        result = action()
        told.append([name, plain(result) if show else "done"])
        return result
    except Exception as error:
        status = getattr(error, "status_code", None) or getattr(error, "http_status", None)
        told.append([name, "error", type(error).__name__, status, plain(str(getattr(error, "details", "")))])
        return None


def ids(resources):
    return sorted(str(resource.name) for resource in resources)


flavor = next(iter(sorted(compute.flavors(), key=lambda one: one.name)))
image = next(iter(sorted(images.images(), key=lambda one: one.name)))
step("flavors", lambda: ids(compute.flavors()))
step("images", lambda: ids(images.images(limit=1)))
net = step("network", lambda: network.create_network(name="shop"))
sub = step("subnet", lambda: network.create_subnet(network_id=net.id, name="shop", cidr="10.7.0.0/24", ip_version=4))
step("same range again", lambda: network.create_subnet(network_id=net.id, name="again", cidr="10.7.0.0/24", ip_version=4))
group = step("group", lambda: network.create_security_group(name="web", description="of the shop"))
rule = dict(security_group_id=group.id, direction="ingress", protocol="tcp", port_range_min=80, port_range_max=80)
step("rule", lambda: network.create_security_group_rule(**rule))
step("rule again", lambda: network.create_security_group_rule(**rule))
step("key pair", lambda: compute.create_keypair(name="deploy"))
step("key pair again", lambda: compute.create_keypair(name="deploy"))
servers = []
for number in range(3):
    server = step(
        f"server {number}",
        lambda: compute.create_server(
            name=f"web-{number}",
            image_id=image.id,
            flavor_id=flavor.id,
            networks=[{"uuid": net.id}],
            security_groups=[{"name": "web"}],
            key_name="deploy",
            metadata={"tier": "web"},
        ),
        show=False,
    )
    servers.append(server)
for server in servers:
    step("active", lambda: compute.wait_for_server(server, interval=0.1, wait=60).status)
first = servers[0]
step("server as it is", lambda: compute.get_server(first.id))
step("servers in pages of one", lambda: ids(compute.servers(limit=1)))
step("networks in pages of one", lambda: ids(network.networks(limit=1)))
step("servers by name", lambda: ids(compute.servers(name="web-1")))
step("metadata", lambda: compute.set_server_metadata(first, role="front").metadata)
step("metadata taken away", lambda: compute.delete_server_metadata(compute.get_server(first.id), ["tier"]), show=False)
step("metadata as it is", lambda: compute.get_server(first.id).metadata)
step("renamed", lambda: compute.update_server(first, name="front").name)
step("network tags", lambda: network.set_tags(net, ["env=prod"]).tags)
volume = step("volume", lambda: volumes.create_volume(size=1, name="data"))
step("available", lambda: volumes.wait_for_status(volume, "available", interval=0.1, wait=60).status)
second = step("volume 2", lambda: volumes.create_volume(size=1, name="more"), show=False)
step("volumes in pages of one", lambda: ids(volumes.volumes(limit=1)))
step("attached", lambda: compute.create_volume_attachment(first, volume_id=volume.id))
step("in use", lambda: volumes.wait_for_status(volume, "in-use", interval=0.1, wait=60).status)
step("deleted while in use", lambda: volumes.delete_volume(volume))
step("detached", lambda: compute.delete_volume_attachment(volume, first), show=False)
step("available again", lambda: volumes.wait_for_status(volume, "available", interval=0.1, wait=60).status)
step("volume deleted", lambda: (volumes.delete_volume(volume), volumes.delete_volume(second)), show=False)
step("stopped", lambda: compute.stop_server(first), show=False)
step("shut off", lambda: compute.wait_for_server(first, status="SHUTOFF", interval=0.1, wait=60).status)
step("network in use", lambda: network.delete_network(net, ignore_missing=False))
for server in servers:
    step("server deleted", lambda: compute.delete_server(server), show=False)
    step("server gone", lambda: compute.wait_for_delete(server, interval=0.1, wait=60), show=False)
step("key pair deleted", lambda: compute.delete_keypair("deploy"), show=False)
step("group deleted", lambda: network.delete_security_group(group), show=False)
step("network deleted", lambda: network.delete_network(net), show=False)
missing = "00000000-0000-0000-0000-000000000000"
step("no server", lambda: compute.get_server(missing))
step("no network", lambda: network.delete_network(missing, ignore_missing=False))
step("no volume", lambda: volumes.get_volume(missing))
step("no image", lambda: compute.create_server(name="x", image_id=missing, flavor_id=flavor.id, networks="none"))
step("no size", lambda: volumes.create_volume(size=-1))
step("microversion", lambda: openstack.utils.maximum_supported_microversion(compute, "2.200"))
print(json.dumps(told))
