// The state of one page and how each message changes it: pure, so that it is tested without a DOM.

import {
  CALL_STATES,
  SCHEMA,
  type CallRecord,
  type CollectionName,
  type Collections,
  type Full,
  type Message,
  type PatchMessage,
  type WireModel,
} from "./wire";

export type Model = { readonly [K in CollectionName]: ReadonlyMap<string, Collections[K]> };

export interface Page {
  // "waiting": nothing came yet. "other": the kernel's side is of another version than this bundle.
  readonly phase: "waiting" | "live" | "final" | "other";
  readonly why?: string; // of "other": which side is old, and what to do
  readonly version: number;
  readonly model: Model;
  // Calls that ended and are not in the model any more, and older ones that were asked for. They
  // cannot change, so they need no news.
  readonly archive: ReadonlyMap<number, CallRecord>;
  // Fetched calls that had not ended then: shown until the queue has moved past them.
  readonly glimpsed: ReadonlyMap<number, CallRecord>;
}

export const N_ARCHIVED = 10_000;

const NAMES: readonly CollectionName[] = [
  "run",
  "backend",
  "counts",
  "events",
  "callbacks",
  "tasks",
  "plugins",
  "calls",
  "workers",
  "machines",
  "log",
];

const NONE: ReadonlyMap<number, CallRecord> = new Map();

export const EMPTY: Page = {
  phase: "waiting",
  version: 0,
  model: toModel({} as WireModel),
  archive: new Map(),
  glimpsed: NONE,
};

export interface Step {
  page: Page;
  needsFull: boolean;
}

export function reduce(page: Page, message: Message): Step {
  switch (message.kind) {
    case "full":
    case "final":
      return { page: takeFull(page, message), needsFull: false };
    case "patch":
      return takePatch(page, message);
    case "beat":
      return { page, needsFull: page.phase === "live" && (message.version ?? 0) > page.version };
    default:
      return { page, needsFull: false };
  }
}

export function isEnded(call: CallRecord): boolean {
  return call.state !== "queued" && call.state !== "running";
}

/** Add older calls that the kernel sent on request. */
export function addRows(page: Page, rows: readonly CallRecord[]): Page {
  const archive = new Map(page.archive);
  const glimpsed = new Map(page.glimpsed);
  for (const row of rows) {
    if (page.model.calls.has(String(row.id))) continue;
    (isEnded(row) ? archive : glimpsed).set(row.id, row);
  }
  const none = glimpsed.size === page.glimpsed.size;
  return { ...page, archive: bounded(archive), glimpsed: none ? page.glimpsed : glimpsed };
}

export function findCall(page: Page, id: number): CallRecord | undefined {
  return page.model.calls.get(String(id)) ?? page.archive.get(id) ?? page.glimpsed.get(id);
}

export function count(model: Model, state: string): number {
  return model.counts.get(state)?.n ?? 0;
}

export function totals(model: Model): { ended: number; submitted: number } {
  const submitted = CALL_STATES.reduce((sum, state) => sum + count(model, state), 0);
  return { ended: submitted - count(model, "queued") - count(model, "running"), submitted };
}

/** How many calls failed and were not resubmitted, as far as this page has seen. */
export function nNotTriedAgain(page: Page): number {
  const again = new Set<number>();
  for (const calls of [page.model.calls.values(), page.archive.values(), page.glimpsed.values()]) {
    for (const { resubmitted_from: id } of calls) {
      if (id !== undefined && findCall(page, id)?.state === "failed") again.add(id);
    }
  }
  return Math.max(0, count(page.model, "failed") - again.size);
}

function takeFull(page: Page, message: Full): Page {
  if (message.schema !== SCHEMA) return { ...page, phase: "other", why: whichIsOld(message.schema) };
  const isKnown = page.phase === "live" || page.phase === "final";
  // One that comes late, or twice: what the page has is newer, or the same.
  if (isKnown && message.version <= page.version) return page;
  const model = toModel(message.model);
  const archive = new Map(page.archive);
  for (const call of page.model.calls.values()) if (isEnded(call)) archive.set(call.id, call);
  for (const call of model.calls.values()) archive.delete(call.id);
  const phase = message.kind === "final" ? "final" : "live";
  return { phase, version: message.version, model, archive: bounded(archive), glimpsed: NONE };
}

/** Say what to do when the kernel's messages are of another version than this page understands. */
export function whichIsOld(schema: unknown): string {
  if (typeof schema === "number" && schema > SCHEMA) {
    return `This page's part of amltk_nb is older (${SCHEMA}) than the kernel's (${schema}): reload the page.`;
  }
  return `The kernel's amltk_nb is older (${schema}) than this page's part (${SCHEMA}): restart the kernel.`;
}

function takePatch(page: Page, message: PatchMessage): Step {
  if (page.phase !== "live" || message.base !== page.version) {
    // A full model that is newer than this patch is here already, or one was never here.
    return { page, needsFull: page.phase !== "other" && message.version > page.version };
  }
  const model: Record<string, ReadonlyMap<string, unknown>> = { ...page.model };
  for (const name of NAMES) {
    const change = message.patch[name];
    if (!change) continue;
    const records = new Map<string, unknown>(page.model[name]);
    for (const key of change.remove ?? []) records.delete(key);
    for (const [key, record] of Object.entries(change.upsert ?? {})) records.set(key, record);
    model[name] = records;
  }
  const patched: Page = { ...page, version: message.version, model: model as unknown as Model };
  return { page: message.patch.calls ? keepEnded(page, patched) : patched, needsFull: false };
}

function keepEnded(old: Page, page: Page): Page {
  const archive = new Map(page.archive);
  for (const [key, call] of old.model.calls) {
    if (isEnded(call) && !page.model.calls.has(key)) archive.set(call.id, call);
  }
  for (const call of page.model.calls.values()) archive.delete(call.id);
  return { ...page, archive: bounded(archive), glimpsed: stillQueued(page) };
}

/**
 * Of the calls that were queued when fetched, those that still are: the model has the front of the
 * queue, which moves in order, so whatever is not behind that front has begun.
 */
function stillQueued(page: Page): ReadonlyMap<number, CallRecord> {
  if (page.glimpsed.size === 0) return NONE;
  const front = [...page.model.calls.values()].filter((call) => call.state === "queued");
  if (front.length >= count(page.model, "queued")) return NONE;
  const last = front.reduce((id, call) => Math.max(id, call.id), 0);
  const behind = [...page.glimpsed.values()].filter((call) => call.state === "queued" && call.id > last);
  return new Map(behind.map((call) => [call.id, call]));
}

function bounded(archive: Map<number, CallRecord>): ReadonlyMap<number, CallRecord> {
  let nTooMany = archive.size - N_ARCHIVED;
  if (nTooMany <= 0) return archive;
  for (const id of [...archive.keys()].sort((a, b) => a - b)) {
    if (nTooMany-- <= 0) break;
    archive.delete(id);
  }
  return archive;
}

function toModel(wire: WireModel): Model {
  const pairs = NAMES.map((name) => [name, new Map(Object.entries(wire[name] ?? {}))]);
  return Object.fromEntries(pairs) as Model;
}
