// One row of the queue.

import { callWord, shortName } from "./engine";
import { duration, number, oneLine, ticking } from "./format";
import { useConnection, useSeconds } from "./hooks";
import { closedReason, takesCalls } from "./controls";
import { Ask, State } from "./parts";
import type { CallRecord, Progress as CallProgress } from "./wire";

interface Props {
  call: CallRecord;
  index: number;
  open: boolean;
  onToggle: () => void;
}

export function Row({ call, index, open, onToggle }: Props) {
  const text = `${oneLine(call.function)}(${oneLine(call.args)})`;
  const backend = useConnection().page.model.backend.get("backend");
  return (
    <tr class="amltk-row" data-call={call.id} data-open={open} aria-rowindex={index + 2}>
      <td class="amltk-col-id">
        <button
          type="button"
          class="amltk-toggle"
          aria-expanded={open}
          aria-label={`Call ${call.id}, details`}
          onClick={onToggle}
          onKeyDown={move}
        >
          <span aria-hidden="true" class="amltk-caret">{open ? "▾" : "▸"}</span>
          {call.id}
        </button>
      </td>
      <td class="amltk-col-task" title={oneLine(call.task ?? call.function)}>{oneLine(call.function)}</td>
      <td class="amltk-col-args" title={text}>
        <div class="amltk-args">
          <code>{oneLine(call.args)}</code>
          {call.progress && <Progress progress={call.progress} running={call.state === "running"} />}
          {call.error && <span class="amltk-is-failed amltk-error">{oneLine(call.error)}</span>}
        </div>
      </td>
      <td class="amltk-col-state" title={callWord(call, backend)}><State word={call.state} label={callWord(call, backend)} /></td>
      <td class="amltk-col-time"><Time call={call} /></td>
      <td class="amltk-col-worker" title={oneLine(call.worker ?? "")}>{shortName(call.worker ?? "")}</td>
      <td class="amltk-col-attempt">{number(call.attempt ?? 1)}</td>
      <td class="amltk-col-action"><Action call={call} /></td>
    </tr>
  );
}

/** How far a call is by its own report; the text says the same as the bar behind it. */
function Progress({ progress, running }: { progress: CallProgress; running: boolean }) {
  const { share, text } = progress;
  return (
    <span class="amltk-far" title={oneLine(text)}>
      {running && share !== undefined && (
        <span class="amltk-gauge" aria-hidden="true"><span style={{ width: `${100 * share}%` }} /></span>
      )}
      <span class="amltk-far-text">{oneLine(text)}</span>
    </span>
  );
}

function Time({ call }: { call: CallRecord }) {
  const running = call.state === "running" && call.started_at !== undefined;
  useSeconds(running || call.not_before !== undefined);
  const line = useConnection();
  if (call.not_before !== undefined) return <>{startsIn(call.not_before - line.now())}</>;
  if (running) return <>{ticking(line.now() - (call.started_at ?? 0))}</>;
  const seconds = call.seconds ?? (call.ended_at ?? NaN) - (call.started_at ?? NaN);
  return <>{Number.isNaN(seconds) ? "–" : duration(seconds)}</>;
}

/** When a call starts that is held back, as exactly as there is room for. */
export function startsIn(seconds: number): string {
  if (seconds <= 0) return "now";
  if (seconds <= 99) return `in ${Math.ceil(seconds)} s`;
  return seconds <= 5940 ? `in ${Math.ceil(seconds / 60)} min` : `in ${Math.ceil(seconds / 3600)} h`;
}

/** What can be done with a call now: one thing, the same place in every row. */
export function Action({ call }: { call: CallRecord }) {
  const line = useConnection();
  const { model, phase } = line.page;
  const closed = closedReason(phase);
  const args = { call: call.id };
  if (call.state === "queued") {
    return <Ask name="cancel" args={args} label="Cancel" spoken={`Cancel call ${call.id}`} reason={closed} kind="amltk-quiet" />;
  }
  if (call.state === "running") {
    const cannotEnd = model.backend.get("backend")?.cannot_end;
    return <Ask name="cancel" args={args} label="End" spoken={`End call ${call.id}`} reason={closed ?? cannotEnd} kind="amltk-quiet" />;
  }
  const reason = closed ?? takesCalls(model.run.get("run")?.state ?? "idle");
  return <Ask name="resubmit" args={args} label="Resubmit" spoken={`Resubmit call ${call.id}`} reason={reason} kind="amltk-quiet" />;
}

const STEPS: Record<string, (rows: HTMLElement[], at: number) => HTMLElement | undefined> = {
  ArrowDown: (rows, at) => rows[at + 1],
  ArrowUp: (rows, at) => rows[at - 1],
  Home: (rows) => rows[0],
  End: (rows) => rows.at(-1),
};

/** Go through the rows with the arrow keys, as well as with Tab. */
function move(event: KeyboardEvent): void {
  const step = STEPS[event.key];
  const here = event.currentTarget as HTMLElement;
  const body = here.closest("tbody");
  if (!step || !body) return;
  const rows = [...body.querySelectorAll<HTMLElement>(".amltk-toggle")];
  step(rows, rows.indexOf(here))?.focus();
  event.preventDefault();
}
