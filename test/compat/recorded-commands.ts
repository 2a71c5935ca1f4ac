// The commands in every recorded journal: one of each result, an open one, and each type of change.
import { commandId, environmentId, resourceId } from "#kernel/ids.ts";
import type { CommandOutcome, Intent } from "#model/command.ts";

export const shop = environmentId("shop");

export const environmentRow = {
  id: shop,
  active_site: "east",
  standby_site: "west",
  phase: "protected",
  epoch: 4,
  updated_at: 1_700_000_000_000,
};

const at = 1_700_000_000_000;

const intent = (id: string, operation: string, input: Intent["input"], token: string | null): Intent => ({
  id: commandId(id),
  environment: shop,
  service: "ec2",
  operation,
  input,
  token,
  principal: "ops",
  epoch: 4,
  at,
});

const outcome = (over: Partial<CommandOutcome>): CommandOutcome => ({
  result: "applied",
  status: 200,
  errorCode: null,
  changes: [],
  gaps: [],
  resolvedLater: false,
  at: at + 1,
  ...over,
});

export const recordedCommands: readonly {
  readonly intent: Intent;
  readonly outcome: CommandOutcome | null;
}[] = [
  {
    intent: intent("c-create", "CreateVolume", { Size: 8, AvailabilityZone: "east-1a" }, "token-1"),
    outcome: outcome({
      changes: [
        {
          type: "create",
          kind: "volume",
          id: resourceId("vol-1"),
          aliases: [resourceId("data")],
          spec: { sizeGiB: 8, type: "gp3" },
          tags: { Name: "it's “quoted”" },
        },
      ],
    }),
  },
  {
    intent: intent("c-modify", "ModifyVolume", { VolumeId: "vol-1", Size: 16 }, null),
    outcome: outcome({
      changes: [
        { type: "update", kind: "volume", id: resourceId("vol-1"), set: { sizeGiB: 16 } },
        { type: "tag", kind: "volume", id: resourceId("vol-1"), set: { tier: "db" }, remove: ["Name"] },
      ],
      gaps: [{ code: "field.untranslated", severity: "note", message: "iops has no counterpart" }],
    }),
  },
  {
    intent: intent("c-refused", "RunInstances", { ImageId: "ami-none" }, "token-3"),
    outcome: outcome({ result: "refused", status: 400, errorCode: "InvalidAMIID.NotFound" }),
  },
  {
    intent: intent("c-unknown", "RunInstances", { ImageId: "ami-1" }, "token-4"),
    outcome: outcome({ result: "unknown", status: null }),
  },
  {
    intent: intent("c-later", "DeleteVolume", { VolumeId: "vol-1" }, null),
    outcome: outcome({
      changes: [{ type: "delete", kind: "volume", id: resourceId("vol-1") }],
      resolvedLater: true,
    }),
  },
  { intent: intent("c-open", "StopInstances", { InstanceIds: ["i-1"] }, null), outcome: null },
];
