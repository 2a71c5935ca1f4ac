/** The AWS services that are spoken here, by their signing names. */
export type AwsServiceName = "ec2" | "elasticloadbalancing" | "autoscaling" | "sts";
