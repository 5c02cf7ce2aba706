// The one line that screen readers are told: milestones at once, progress every ten seconds.

import { useEffect, useRef, useState } from "preact/hooks";
import { advice } from "./engine";
import { plural } from "./format";
import { progressText } from "./header";
import { useConnection } from "./hooks";
import { count, type Page } from "./page";

const EVERY_S = 10;

export function Announcer() {
  const line = useConnection();
  const [text, setText] = useState("");
  const last = useRef({ milestone: "", at: -Infinity, page: line.page });
  const now = line.now();
  const milestone = milestoneOf(line.page, line.notice?.text, now);
  useEffect(() => {
    const news = milestone !== last.current.milestone;
    const due = line.live() && now - last.current.at >= EVERY_S;
    if (!news && !due) return;
    const said = [announcement(line.page, now), comeAndGone(last.current.page, line.page), line.notice?.text];
    last.current = { milestone, at: now, page: line.page };
    setText(said.filter(Boolean).join(" "));
  });
  return <div role="status" aria-live="polite" class="amltk-hidden">{text}</div>;
}

/** What is worth saying at once when it changes. */
export function milestoneOf(page: Page, notice: string | undefined, now: number): string {
  const run = page.model.run.get("run");
  const failed = count(page.model, "failed") > 0 ? "with failures" : "";
  return [run?.state, run?.code, failed, notice, waiting(page, now)].join(" ");
}

function announcement(page: Page, now: number): string {
  const run = page.model.run.get("run");
  if (!run) return "";
  const why = run.code ? ` (${run.code})` : "";
  return `${run.name} ${run.state}${why}. ${progressText(page.model)}.${waiting(page, now)}`;
}

/** What it waits for, without the seconds, and what to do when that is long. */
function waiting(page: Page, now: number): string {
  const backend = page.model.backend.get("backend");
  if (backend?.waiting_for === undefined) return "";
  const hint = advice(backend, now);
  return ` Waiting for ${backend.waiting_for}.${hint ? ` ${hint}` : ""}`;
}

/** Say which workers came and went from one page to a later one; of a crowd only how many more. */
export function comeAndGone(before: Page, now: Page): string {
  if (before.phase === "waiting") return ""; // the page has only just come itself
  const [old, young] = [before.model.workers, now.model.workers];
  const crowd = before.model.machines.size + now.model.machines.size > 0;
  const more = nThere(now) - nThere(before);
  const nCame = crowd ? Math.max(0, more) : [...young.keys()].filter((name) => !old.has(name)).length;
  const nGone = crowd ? Math.max(0, -more) : [...old.keys()].filter((name) => !young.has(name)).length;
  const parts = [nCame > 0 && `${plural(nCame, "worker")} came.`, nGone > 0 && `${plural(nGone, "worker")} went.`];
  return parts.filter(Boolean).join(" ");
}

function nThere(page: Page): number {
  return page.model.backend.get("backend")?.n_there ?? page.model.workers.size;
}
