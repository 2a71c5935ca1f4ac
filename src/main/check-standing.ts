/** The configuration against the environments that the data folder knows: the file may not move what a run has to move. */
import type { EnvironmentConfig } from "#config/config-schema.ts";
import { OperationalError } from "#kernel/errors.ts";
import type { EnvironmentRecord } from "#takeover/environment-record.ts";

export type Standing =
  | { readonly agrees: true }
  /** A takeover exchanged the roles since the file was written: the record decides. */
  | { readonly agrees: false; readonly note: string };

/**
 * The journal's commands, the pairings and the reserve belong to the two sites under which they were recorded.
 * Errors: `config.invalid` when the file names other sites, or exchanges roles that no run has exchanged.
 */
export function checkStanding(
  id: string,
  { active, standby }: Pick<EnvironmentConfig, "active" | "standby">,
  record: Pick<EnvironmentRecord, "activeSite" | "standbySite" | "epoch">,
): Standing {
  const { activeSite, standbySite, epoch } = record;
  if (activeSite === active && standbySite === standby) return { agrees: true };
  const recorded = `environment "${id}" is recorded with active site "${activeSite}" and standby "${standbySite}"`;
  const named = `the configuration names active "${active}" and standby "${standby}"`;
  if (activeSite !== standby || standbySite !== active) {
    throw new OperationalError(
      "config.invalid",
      `${recorded}, but ${named}: its journal and reserve belong to those sites; name them again, or give the environment on other sites a name of its own`,
    );
  }
  if (epoch === 1) {
    throw new OperationalError(
      "config.invalid",
      `${recorded}, but ${named}: roles are exchanged with "understudy swap ${id}", not in the file; name them as they are recorded`,
    );
  }
  return {
    agrees: false,
    note: `${recorded}, as the last takeover left it, while ${named}: the record decides`,
  };
}
