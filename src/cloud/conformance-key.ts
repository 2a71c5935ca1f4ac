/** A public key whose private half was thrown away: nobody can log in with it. */
export const conformancePublicKey =
  "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKaqo9NnaPpRDIajHjFCPI2MWZTooloIniZCegh7yuqO understudy-verify";
