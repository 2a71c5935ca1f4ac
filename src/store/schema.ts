/**
 * The tables, as Kysely sees them. One schema for SQLite and PostgreSQL: text, 64-bit integers, and JSON as
 * text. Times are milliseconds since the Unix epoch. Booleans are 0 and 1.
 */
export interface EnvironmentTable {
  id: string;
  active_site: string;
  standby_site: string;
  phase: string;
  /** Rises with every run that moves the environment; older holders are refused. */
  epoch: number;
  updated_at: number;
}

/** The command journal. Rows are inserted as intents and completed once; never changed after that. */
export interface CommandTable {
  environment: string;
  seq: number;
  id: string;
  service: string;
  operation: string;
  input: string;
  token: string | null;
  principal: string;
  epoch: number;
  intent_at: number;
  /** Null until the outcome is recorded; unique per environment. */
  position: number | null;
  result: string | null;
  status: number | null;
  error_code: string | null;
  changes: string | null;
  gaps: string | null;
  resolved_later: number | null;
  outcome_at: number | null;
}

/** How far a reader has got in an environment's journal. */
export interface ReaderTable {
  environment: string;
  name: string;
  position: number;
}

/** The environment as the journal tells it, up to the position of reader `state`. */
export interface ResourceTable {
  environment: string;
  kind: string;
  id: string;
  spec: string;
  tags: string;
  aliases: string;
  /** Position of the command that last changed it. */
  position: number;
}

/** One active-side resource and its counterpart in the standby site. */
export interface PairingTable {
  environment: string;
  /** `main`, or `drill-RUN`: isolated copies have pairings of their own. */
  scope: string;
  kind: string;
  active_id: string;
  standby_id: string | null;
  /** `creating` (token sent, id not yet known), `paired`, `deleting`. */
  state: string;
  token: string;
  /** The active-side spec and tags (JSON) that the counterpart now reflects. */
  applied: string;
  /**
   * The standby-side spec and tags (JSON, ids of the standby site) as they were asked for: when the roles are exchanged,
   * this becomes the state, and `applied` becomes the counterpart. Null while `creating`.
   */
  counterpart: string | null;
  updated_at: number;
}

export interface GapTable {
  environment: string;
  key: string;
  code: string;
  severity: string;
  kind: string | null;
  resource: string | null;
  operation: string | null;
  message: string;
  first_at: number;
  last_at: number;
}

export interface NoticeTable {
  environment: string;
  witness: string;
  probe: string;
  code: string;
  raised: number;
  detail: string;
  /** When this state began, as the witness says. */
  since: number;
  at: number;
}

export interface RunTable {
  id: string;
  environment: string;
  kind: string;
  state: string;
  trigger: string;
  reason: string;
  epoch: number;
  /** JSON: what the run needs to know to resume, fixed at its start. */
  input: string;
  started_at: number;
  finished_at: number | null;
  error: string | null;
}

export interface RunStepTable {
  run: string;
  ordinal: number;
  name: string;
  state: string;
  attempts: number;
  started_at: number;
  finished_at: number | null;
  /** JSON result, read by later steps when the run resumes. */
  result: string | null;
  summary: string | null;
}

/** The timeline that people read; append only. */
export interface EventTable {
  environment: string;
  ordinal: number;
  run: string | null;
  at: number;
  severity: string;
  message: string;
  /** JSON. */
  fields: string;
}

/** What a site offers, remembered for when it is gone. */
export interface CatalogueTable {
  site: string;
  data: string;
  at: number;
}

/** The last target of a traffic route, so that a restart re-applies it. */
export interface RouteTable {
  environment: string;
  route: string;
  epoch: number;
  target: string;
  updated_at: number;
}

/** Exclusive roles with a fencing epoch, e.g. the one engine that may write. */
export interface LeaseTable {
  name: string;
  holder: string;
  epoch: number;
  expires_at: number;
}

/** A volume whose content is kept, by its id in a site, and the name that the vault knows it by wherever it is. */
export interface KeptVolumeTable {
  environment: string;
  site: string;
  volume_id: string;
  lineage: string;
  since: number;
  /** What a run gave it: `moment:SEQUENCE`, or `half` while a moment is being written into it; null: whatever its servers wrote. */
  content: string | null;
}

/** One position in the journal together with one write position of all kept disks. */
export interface RecoveryPointTable {
  environment: string;
  id: string;
  at: number;
  sequence: number;
  journal_position: number;
  /** `crash` or `application`. */
  consistency: string;
  /** The site that served then: whose ids the resources bear. */
  site: string;
  /** JSON. */
  resources: string;
  /** JSON: id of the volume -> lineage. */
  volumes: string;
  /** Null: it was not booted and probed yet. */
  verified_at: number | null;
  /** JSON. */
  verdict: string | null;
  /** Why it is only crash-consistent; null: more was not asked for. */
  consistency_note: string | null;
  /** JSON: what was seen when it was booted and probed. */
  evidence: string | null;
}

/** One row: whose redo log it is (`redo-log.ts`), and the last of its batches that the database has. */
export interface RedoTable {
  owner: string;
  applied: number;
}

export interface Schema {
  redo: RedoTable;
  kept_volume: KeptVolumeTable;
  recovery_point: RecoveryPointTable;
  environment: EnvironmentTable;
  command: CommandTable;
  reader: ReaderTable;
  resource: ResourceTable;
  pairing: PairingTable;
  gap: GapTable;
  notice: NoticeTable;
  run: RunTable;
  run_step: RunStepTable;
  event: EventTable;
  catalogue: CatalogueTable;
  route: RouteTable;
  lease: LeaseTable;
}
