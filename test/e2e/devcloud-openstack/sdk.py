"""What openstacksdk makes of devcloud. Prints one JSON object."""
import json

import openstack

cloud = openstack.connect(cloud="devcloud")
seen = {}
image = cloud.image.find_image("understudy/guest")
seen["image"] = [image.status, image.visibility]
outside = cloud.network.find_network("public")
network = cloud.network.create_network(name="sdk-net")
subnet = cloud.network.create_subnet(network_id=network.id, cidr="10.5.0.0/24", ip_version=4)
router = cloud.network.create_router(name="sdk", external_gateway_info={"network_id": outside.id})
cloud.network.add_interface_to_router(router, subnet_id=subnet.id)
group = cloud.network.create_security_group(name="sdk", description="sdk")
seen["rules of a new group"] = sorted(rule["ethertype"] + rule["direction"] for rule in group.security_group_rules)
cloud.network.create_security_group_rule(
    security_group_id=group.id, direction="ingress", protocol="tcp", port_range_min=80, port_range_max=80
)
key = cloud.compute.create_keypair(name="sdk")
seen["key"] = [key.private_key.splitlines()[0], key.public_key.split()[0]]
servers = [
    cloud.compute.create_server(
        name="sdk-%d" % number,
        image_id=image.id,
        flavor_id=cloud.compute.find_flavor("m1.tiny").id,
        networks=[{"uuid": network.id}],
        security_groups=[{"name": "sdk"}],
        key_name="sdk",
        metadata={"role": "web"},
    )
    for number in range(5)
]
server = [cloud.compute.wait_for_server(each) for each in servers][0]
seen["server"] = [server.status, server.flavor.original_name, server.addresses["sdk-net"][0]["addr"].startswith("10.5.0.")]
seen["pages"] = [each.name for each in cloud.compute.servers(limit=2)]
cloud.network.set_tags(network, ["tier=web", "a"])
seen["tagged"] = [each.name for each in cloud.network.networks(tags="a")]
address = cloud.network.create_ip(floating_network_id=outside.id)
port = next(cloud.network.ports(device_id=server.id))
seen["address"] = cloud.network.update_ip(address, port_id=port.id).status
volume = cloud.block_storage.create_volume(name="sdk", size=1)
cloud.block_storage.wait_for_status(volume, "available")
attachment = cloud.compute.create_volume_attachment(server, volume_id=volume.id)
seen["volume"] = [attachment.device, cloud.block_storage.get_volume(volume.id).status]
cloud.compute.delete_volume_attachment(volume.id, server.id)
cloud.compute.resize_server(server, cloud.compute.find_flavor("m1.small").id)
server = cloud.compute.wait_for_server(server, status="VERIFY_RESIZE", interval=0.1)
cloud.compute.confirm_server_resize(server)
server = cloud.compute.wait_for_server(cloud.compute.get_server(server.id), interval=0.1)
seen["resized"] = server.flavor.original_name
cloud.compute.stop_server(server)
seen["stopped"] = cloud.compute.wait_for_server(server, status="SHUTOFF", interval=0.1).status
cloud.block_storage.extend_volume(volume, 2)
seen["size"] = cloud.block_storage.get_volume(volume.id).size
try:
    cloud.network.delete_network(network)
except openstack.exceptions.ConflictException as error:
    seen["network in use"] = error.status_code
cloud.block_storage.delete_volume(volume)
for each in servers:
    cloud.compute.delete_server(each)
for each in servers:
    cloud.compute.wait_for_delete(each, interval=0.1)
cloud.network.delete_ip(address)
cloud.network.remove_interface_from_router(router, subnet_id=subnet.id)
cloud.network.delete_router(router)
cloud.network.delete_network(network)
cloud.network.delete_security_group(group)
cloud.compute.delete_keypair("sdk")
seen["left"] = [each.name for each in cloud.network.networks()] + [each.name for each in cloud.compute.servers()]
other = openstack.connect(cloud="devcloud-application-credential")
seen["application credential"] = len(list(other.compute.flavors())) > 0
print(json.dumps(seen))
