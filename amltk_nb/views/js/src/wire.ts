// What travels between the kernel and this page. The Python side is views/model.py (records and
// patches), views/widget.py (messages) and views/commands.py (commands and replies).

export const SCHEMA = 1;

export type RunState = "idle" | "running" | "paused" | "stopping" | "finished";
export type CallState = "queued" | "running" | "done" | "failed" | "cancelled";
export type Value = string | number | boolean | null;

export const CALL_STATES: readonly CallState[] = ["queued", "running", "done", "failed", "cancelled"];

// Times are seconds since the epoch by the kernel's clock, durations are seconds. Fields that do
// not apply are left out.
export interface RunRecord {
  name: string;
  state: RunState;
  n: number;
  started_at?: number;
  ended_at?: number;
  elapsed_s?: number;
  code?: string;
  reason?: string;
  stopping_since?: number;
  grace_s?: number; // what a plain stop gives running calls; without it all they take
  grace_ends_at?: number; // while stopping: when running calls are ended; never without it
  cannot_start?: string;
  journal?: string; // "journal run.db"
  journal_warning?: string; // what it lacks
}

export interface BackendRecord {
  name: string;
  options: Record<string, Value>;
  n_workers: number; // calls that can run at the same time
  n_there?: number; // workers that can be named
  n_to_come?: number; // those that start once there are calls for them
  cannot_end?: string;
  cannot_restart?: string;
  reports_start?: false; // a running call may have been handed over and not have begun
  waiting_for?: string;
  waiting_since?: number;
  no_workers_after_s?: number; // a wait is long after so many seconds
  hint?: string; // what to do when it is
  n_jobs_waiting?: number;
}

export interface EventRecord {
  emitter: string;
  name: string;
  count: number;
  order: number;
}

export interface CallbackRecord {
  event: string;
  text: string;
  n_calls: number;
  n_errors?: number;
  cell?: string;
  hidden?: boolean;
  order: number;
}

export interface TaskRecord {
  function: string;
  signature: string;
  order: number;
  n_queued: number;
  n_running: number;
  n_done: number;
  n_failed: number;
  n_cancelled: number;
}

export interface PluginRecord {
  task: string;
  name: string;
  state: Record<string, Value>;
  order: number;
}

export interface CallRecord {
  id: number;
  task?: string;
  function: string;
  args: string;
  state: CallState;
  submitted_at: number;
  started_at?: number;
  ended_at?: number;
  seconds?: number;
  worker?: string;
  attempt?: number;
  error?: string;
  resubmitted_from?: number;
  not_before?: number; // of a queued call that is held back
  progress?: Progress;
}

export interface Progress {
  text: string; // "37/100, loss=0.1234"
  share?: number; // from 0 to 1
}

export interface WorkerRecord {
  state: string;
  pid?: number;
  call?: number;
  n_calls?: number; // how many it has, if more than that one
  where?: string;
  order: number;
}

export interface MachineRecord {
  n_workers: number;
  n_busy: number;
  order: number;
}

export interface LogRecord {
  at: number;
  source: string;
  level: string;
  text: string;
}

export interface Collections {
  run: RunRecord;
  backend: BackendRecord;
  counts: { n: number };
  events: EventRecord;
  callbacks: CallbackRecord;
  tasks: TaskRecord;
  plugins: PluginRecord;
  calls: CallRecord;
  workers: WorkerRecord; // the first of them
  machines: MachineRecord; // if there are more
  log: LogRecord;
}

export type CollectionName = keyof Collections;
export type WireModel = { [K in CollectionName]: Record<string, Collections[K]> };
export type Patch = {
  [K in CollectionName]?: { upsert?: Record<string, Collections[K]>; remove?: string[] };
};

export interface Full {
  kind: "full" | "final";
  schema: number;
  version: number;
  at: number;
  model: WireModel;
  frozen?: Frozen; // of a final one
}

// What saved notebooks are to keep in place of a widget.
export interface Frozen {
  model_id: string;
  bundle: Record<string, string>; // by mime type
}

export interface PatchMessage {
  kind: "patch";
  base: number;
  version: number;
  at: number;
  patch: Patch;
}

export interface Beat {
  kind: "beat";
  version?: number; // of what a page has if it has missed nothing
  at: number;
}

export interface Reply {
  kind: "reply";
  id: number | null;
  ok: boolean;
  error: string | null;
  value: unknown;
  isUnsent?: true; // made by the page itself: the kernel never saw the command
}

export type Message = Full | PatchMessage | Beat | Reply;

export type CommandName =
  | "snapshot"
  | "start"
  | "pause"
  | "resume"
  | "stop"
  | "stop_now"
  | "resubmit_failed"
  | "restart_workers"
  | "cancel"
  | "resubmit"
  | "detail"
  | "edit"
  | "resubmit_with"
  | "form"
  | "submit"
  | "rows";

// What was entered in a field: a checkbox, the number of an option, or a text as it was typed.
export type Entry = boolean | number | string;

export interface FieldRecord {
  name: string;
  label: string; // "*args"
  kind: string; // see views/fields.py
  hint: string; // its type
  entry: Entry | null; // what it shows at first
  required?: true;
  text?: string; // of a value that cannot be edited
  options?: string[];
  limits?: [string, string, string]; // lowest, highest, step
}

export interface FormRecord {
  title: string;
  about: string;
  note: string;
  fields: FieldRecord[];
  stamp: string;
}

export interface Detail {
  call: number;
  state: CallState;
  function: string;
  arguments: { name: string; text: string }[];
  result: string | null;
  result_is_part?: boolean; // nothing more was kept
  error: string | null;
  output: string | null;
  resubmitted_from: number | null;
}

// The part of anywidget's model that we use.
export interface AnyModel {
  widget_manager?: unknown; // the host's own, whatever that is
  get(key: string): unknown;
  send(content: unknown): void;
  on(event: string, callback: (...args: never[]) => void): void;
  off(event?: string | null, callback?: ((...args: never[]) => void) | null): void;
}
