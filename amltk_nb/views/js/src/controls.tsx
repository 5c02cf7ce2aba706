// The buttons that steer the whole run. What is shown changes only when the engine says so.

import { duration, number, plural, ticking } from "./format";
import { useConnection, useSeconds } from "./hooks";
import { count, nNotTriedAgain, type Model, type Page } from "./page";
import { Ask } from "./parts";
import type { RunRecord, RunState } from "./wire";

export function Controls() {
  const line = useConnection();
  const { model, phase } = line.page;
  const run = model.run.get("run");
  const state = run?.state ?? "idle";
  const closed = closedReason(phase);
  const over = state === "idle" || state === "finished" ? "Nothing is running." : undefined;
  const cannotEnd = model.backend.get("backend")?.cannot_end;
  const nFailed = nNotTriedAgain(line.page);
  return (
    <div class="amltk-controls" role="group" aria-label="Controls">
      <First state={state} closed={closed} cannotStart={run?.cannot_start} />
      <StopButton run={run} nRunning={count(model, "running")} reason={closed ?? over} cannotEnd={cannotEnd} />
      <Ask
        name="stop_now"
        label="Stop now"
        hint="End the running calls, too"
        reason={closed ?? over ?? cannotEnd}
        kind="amltk-strong"
      />
      <Ask
        name="resubmit_failed"
        label={`Resubmit failed (${number(nFailed)})`}
        hint="Submit every failed call once more, with the same arguments"
        reason={closed ?? (nFailed === 0 ? noneFailed(model) : takesCalls(state))}
      />
    </div>
  );
}

function First(props: { state: RunState; closed?: string | undefined; cannotStart?: string | undefined }) {
  const { state, closed, cannotStart } = props;
  if (state === "idle" || state === "finished") {
    return <Ask name="start" label="Start" room="Resume" reason={closed ?? cannotStart} />;
  }
  if (state === "paused") {
    return <Ask name="resume" label="Resume" hint="Start queued calls again" reason={closed} />;
  }
  const reason = state === "stopping" ? "It is stopping." : undefined;
  return <Ask name="pause" label="Pause" room="Resume" hint="Start no more calls; running ones go on" reason={closed ?? reason} />;
}

interface StopProps {
  run: RunRecord | undefined;
  nRunning: number;
  reason: string | undefined;
  cannotEnd: string | undefined;
}

/** The second click on Stop means: do not wait for what runs. */
function StopButton({ run, nRunning, reason, cannotEnd }: StopProps) {
  const line = useConnection();
  const endsAt = run?.state === "stopping" ? run.grace_ends_at : undefined;
  useSeconds(endsAt !== undefined);
  if (run?.state !== "stopping") {
    return <Ask name="stop" label="Stop" room="Stop again" hint={stopHint(run?.grace_s, cannotEnd)} reason={reason} />;
  }
  const leftS = endsAt === undefined ? 0 : Math.ceil(endsAt - line.now());
  const instead = leftS > 0 ? ` and not in ${ticking(leftS)}` : "";
  return (
    <Ask
      name="stop_now"
      label="Stop again"
      spoken="Stop again: end the running calls now"
      hint={`Stopping; click again to end ${plural(nRunning, "running call")} now${instead}`}
      reason={reason ?? cannotEnd}
    />
  );
}

/** What the first click does to the calls that run. */
function stopHint(graceS: number | undefined, cannotEnd: string | undefined): string {
  const why = cannotEnd ? `, for they cannot be ended: ${cannotEnd}` : "";
  if (graceS === undefined) return `Take no more calls; running ones finish${why}`;
  const then = cannotEnd ? `are left to finish unseen${why}` : "are ended";
  return `Take no more calls; running ones ${graceS > 0 ? `get ${duration(graceS)} to finish, then they ` : ""}${then}`;
}

/** Why nothing at all can be asked of the kernel in this phase of the page, if so. */
export function closedReason(phase: Page["phase"]): string | undefined {
  if (phase === "live") return undefined;
  if (phase === "final") return "This view is closed: scheduler.start() shows a new one.";
  return "This view is not connected to a kernel that it understands.";
}

export function takesCalls(state: RunState): string | undefined {
  if (state === "running" || state === "paused") return undefined;
  return state === "stopping" ? "It is stopping and takes no more calls." : "Start it first: nothing is running.";
}

function noneFailed(model: Model): string {
  return count(model, "failed") === 0 ? "No call has failed." : "All failed calls were resubmitted.";
}
