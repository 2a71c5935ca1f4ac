/** What `understudy init` writes. It passes `understudy config check` as it is. */
export const starterConfig = `# Understudy: one file says what is protected, where its reserve stands, and when to take over.
# Check it with "understudy config check". Secrets never stand here: name a file or an environment variable.
version: 1
data: ./understudy-data
listen:
  gateway: 127.0.0.1:7480   # your tools' AWS_ENDPOINT_URL
  api: 127.0.0.1:7481

sites:
  primary:
    driver: ec2
    region: us-east-1
    # endpoint: http://127.0.0.1:4566   # only for clouds other than AWS
    credentials:
      accessKeyId: {env: PRIMARY_ACCESS_KEY_ID}
      secretAccessKey: {env: PRIMARY_SECRET_ACCESS_KEY}
  reserve:
    driver: openstack
    authUrl: https://keystone.example.net:5000/v3
    region: RegionOne
    project: understudy
    credentials:
      username: understudy
      password: {file: ./reserve-password}
  # Or a host of your own, with QEMU: "understudy host up --site metal" runs its agent.
  # metal:
  #   driver: hypervisor
  #   host: {socket: ./metal.sock}
  #   addresses: [192.0.2.16/28]
  #   types: {small: {cpus: 1, memory: 1GiB}}
  #   images: {debian-12: {disk: ./debian-12.qcow2}}

environments:
  shop:
    active: primary
    standby: reserve
    reserve:
      # One server in five stands by, at least one of each tier. Networks, groups and keys always do.
      servers: {ratio: 0.2, minimumPerGroup: 1, groupBy: tier}
    translate:
      # Where names differ. Types without a line go to the nearest flavor that is large enough.
      images: {}
      types: {}
    traffic:
      - name: web
        select: {tier: web}
        port: 8080
        through:
          forwarder: {listen: 127.0.0.1:8080, mode: http}
    probes:
      - name: shop
        check: {http: http://127.0.0.1:8080/}
      - name: cloud
        check: {cloudApi: active}
    # What a booted copy must pass in a drill, and before a recovery point is called verified:
    # verify:
    #   - {name: shop answers, select: {tier: web}, check: {http: {port: 8080, path: /}}}
    #   - {name: our own test, select: {tier: db}, check: {script: ./check-database}}
    # At least two witnesses in different places should agree before anything moves:
    #   - {name: office, token: {file: ./witness-office-token}}
    witnesses: [engine]
    failover:
      # Empty: only a person starts a failover.
      triggers: []
      # - {codes: [cloud.api_unreachable, application.unresponsive], witnesses: 2, for: 10s}
    return:
      policy: manual
`;
