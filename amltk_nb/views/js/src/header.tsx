// Name, state, clock, rate: what one looks at first and most.

import { duration, number, oneLine, plural, rate, ticking } from "./format";
import { advice, engineText, jobsText, waitingText } from "./engine";
import { useConnection, useSeconds } from "./hooks";
import { Notify } from "./notify";
import { count, type Page } from "./page";
import { State } from "./parts";
import type { BackendRecord, RunRecord } from "./wire";

const BUSY_AFTER_S = 3;
const DOUBT_AFTER_S = 30;

export function Header() {
  const line = useConnection();
  useSeconds(line.page.phase === "live" || line.page.phase === "waiting");
  const { model, phase } = line.page;
  const run = model.run.get("run");
  const backend = model.backend.get("backend");
  const perSecond = line.live() ? line.rate() : undefined;
  return (
    <div class="amltk-head">
      <div class="amltk-title">
        <h2 class="amltk-name">{run ? oneLine(run.name) || "Scheduler" : "Scheduler"}</h2>
        {run && <RunState run={run} final={phase === "final"} />}
        <span class="amltk-end">
          <Health />
          <Notify />
        </span>
      </div>
      <div class="amltk-meta">
        {run && <Elapsed run={run} now={line.now()} />}
        {line.live() && <span class="amltk-rate">{perSecond === undefined ? "" : rate(perSecond, "calls")}</span>}
        {backend && <Engine backend={backend} now={line.now()} />}
        {run && run.n > 1 && <span>run {number(run.n)}</span>}
        {run?.journal && <span class="amltk-journal">{oneLine(run.journal)}</span>}
        {run?.state === "stopping" && <span class="amltk-waits">{stoppingText(run, line.page, line.now())}</span>}
      </div>
      {run?.journal_warning && <p class="amltk-advice">{oneLine(run.journal_warning)}</p>}
      {backend && line.live() && <Advice run={run} backend={backend} page={line.page} now={line.now()} />}
    </div>
  );
}

/** What runs the calls, and who is there for it or what it waits for. */
function Engine({ backend, now }: { backend: BackendRecord; now: number }) {
  const waiting = waitingText(backend, now);
  const jobs = jobsText(backend);
  // One place for both, so that nothing moves when the waiting is over.
  return (
    <>
      <span class="amltk-engine" title={engineText(backend)}>{engineText(backend)}</span>
      <span class={waiting && "amltk-waits"}>{waiting ?? plural(backend.n_workers, "worker")}</span>
      {jobs && <span class="amltk-waits">{jobs}</span>}
    </>
  );
}

/** What to do when something takes long that no button here can hasten. */
function Advice(props: { run: RunRecord | undefined; backend: BackendRecord; page: Page; now: number }) {
  const { run, backend, page, now } = props;
  const waits = run?.state === "stopping" && run.grace_ends_at === undefined;
  const held = waits && backend.cannot_end !== undefined && count(page.model, "running") > 0;
  const text = held ? `It ends when the running calls do: ${oneLine(backend.cannot_end ?? "")}.` : advice(backend, now);
  return text ? <p class="amltk-advice">{text}</p> : null;
}

export function RunState({ run, final }: { run: RunRecord; final: boolean }) {
  const why = [run.code, run.reason].filter(Boolean).map((text) => oneLine(String(text)));
  return (
    <>
      <State word={run.state} tone={toneOf(run)} />
      {why.length > 0 && <span class="amltk-why">{why.join(": ")}</span>}
      {final && <span class="amltk-muted">(closed: shown as it was)</span>}
    </>
  );
}

export function toneOf(run: RunRecord): string {
  if (run.state !== "finished") return run.state;
  if (run.code === "exception") return "failed";
  return run.code === "cancelled" ? "cancelled" : "done";
}

function Elapsed({ run, now }: { run: RunRecord; now: number }) {
  if (run.started_at === undefined) return <span>not started</span>;
  if (run.state === "finished") {
    return <span class="amltk-elapsed">took {duration(run.elapsed_s ?? (run.ended_at ?? now) - run.started_at)}</span>;
  }
  return <span class="amltk-elapsed">{ticking(now - run.started_at)}</span>;
}

/** What a run that is stopping does, and when. */
export function stoppingText(run: RunRecord, page: Page, now: number): string {
  const grace = graceText(page, now);
  if (grace) return `stopping: ${grace}`;
  return run.stopping_since === undefined ? "stopping" : `stopping for ${ticking(now - run.stopping_since)}`;
}

/** What becomes of the running calls when their time is over, if it is limited. */
export function graceText({ model }: Page, now: number): string | undefined {
  const endsAt = model.run.get("run")?.grace_ends_at;
  const nRunning = count(model, "running");
  if (endsAt === undefined || nRunning === 0) return undefined;
  const leftS = Math.ceil(endsAt - now);
  const verb = model.backend.get("backend")?.cannot_end === undefined ? "ends" : "leaves";
  return `${verb} ${plural(nRunning, "running call")} ${leftS > 0 ? `in ${ticking(leftS)}` : "now"}`;
}

/** Whether the kernel can be heard; a busy kernel must not look like an idle scheduler. */
export function Health() {
  const line = useConnection();
  const text = healthText(line);
  return text ? <span class="amltk-health">{text}</span> : null;
}

export function healthText(line: {
  page: Page;
  lost(): boolean;
  live(): boolean;
  silence(): number;
  longestWait(): number;
}): string | undefined {
  if (line.page.phase === "other") return line.page.why;
  if (line.lost()) return `Disconnected: no word from the kernel for ${ticking(line.silence())}.`;
  if (line.live() && line.silence() > BUSY_AFTER_S) {
    // A page cannot tell a dead kernel from one in a long cell, so it does not claim to.
    const gone = line.silence() > DOUBT_AFTER_S ? ", or gone" : "";
    return `Kernel busy for ${ticking(line.silence())}${gone}`;
  }
  const waited = line.longestWait();
  return waited > BUSY_AFTER_S ? `No answer yet for ${ticking(waited)}: kernel busy` : undefined;
}
