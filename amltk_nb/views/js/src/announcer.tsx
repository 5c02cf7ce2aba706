// The one line that screen readers are told: milestones at once, progress every ten seconds.

import { useEffect, useRef, useState } from "preact/hooks";
import { advice } from "./engine";
import { number, plural } from "./format";
import { graceText } from "./header";
import { useConnection } from "./hooks";
import { count, type Page } from "./page";
import { progressText } from "./progress";

const EVERY_S = 10;
const HEARD_S = 2; // what is replaced sooner may not have been spoken, so it is said again

interface Traffic {
  came: number;
  went: number;
}

const NOBODY: Traffic = { came: 0, went: 0 };

export function Announcer() {
  const line = useConnection();
  const [text, setText] = useState("");
  const place = useRef<HTMLDivElement>(null);
  const last = useRef({ milestone: "", at: -Infinity, traffic: NOBODY });
  const seen = useRef(line.page);
  const unsaid = useRef(NOBODY);
  const now = line.now();
  const milestone = milestoneOf(line.page, line.notice?.text, now);
  useEffect(() => {
    // Counted page by page: whoever comes and goes between two announcements did both.
    unsaid.current = plus(unsaid.current, comeAndGone(seen.current, line.page));
    seen.current = line.page;
    const since = now - last.current.at;
    const news = milestone !== last.current.milestone;
    // A crowd comes one by one: what is being spoken is not cut off for each of them.
    const due = since >= EVERY_S || (since >= HEARD_S && isAny(unsaid.current));
    if (!news && !(line.live() && due)) return;
    const traffic = plus(unsaid.current, since < HEARD_S ? last.current.traffic : NOBODY);
    const heard = [announcement(line.page, now), trafficText(traffic, line.page)];
    const said = [...(isSpeaker(place.current) ? heard : []), line.notice?.text];
    last.current = { milestone, at: now, traffic };
    unsaid.current = NOBODY;
    setText(said.filter(Boolean).join(" "));
  });
  return <div ref={place} role="status" aria-live="polite" class="amltk-hidden">{text}</div>;
}

/** Whether this view speaks for its run: of several on a page the first does, and is heard once. */
function isSpeaker(place: Element | null): boolean {
  const own = place?.closest<HTMLElement>(".amltk-all");
  const all = [...document.querySelectorAll<HTMLElement>(".amltk-all")];
  const first = all.find((view) => view.dataset.run === own?.dataset.run);
  return first === undefined || first === own;
}

/** What is worth saying at once when it changes. */
export function milestoneOf(page: Page, notice: string | undefined, now: number): string {
  const run = page.model.run.get("run");
  const failed = count(page.model, "failed") > 0 ? "with failures" : "";
  return [run?.state, run?.grace_ends_at, run?.code, failed, notice, waiting(page, now)].join(" ");
}

function announcement(page: Page, now: number): string {
  const run = page.model.run.get("run");
  if (!run) return "";
  const why = run.code ? ` (${run.code})` : "";
  const grace = graceText(page, now);
  const told = `${run.name} ${run.state}${why}. ${progressText(page.model)}.`;
  return `${told}${grace ? ` It ${grace}.` : ""}${waiting(page, now)}`;
}

/** What it waits for, without the seconds, and what to do when that is long. */
function waiting(page: Page, now: number): string {
  const backend = page.model.backend.get("backend");
  if (backend?.waiting_for === undefined) return "";
  const hint = advice(backend, now);
  return ` Waiting for ${backend.waiting_for}.${hint ? ` ${hint}` : ""}`;
}

/** Count the workers that came and went from one page to the next; of a crowd only how many more. */
export function comeAndGone(before: Page, now: Page): Traffic {
  if (before.phase === "waiting") return NOBODY; // the page has only just come itself
  const [old, young] = [before.model.workers, now.model.workers];
  const crowd = before.model.machines.size + now.model.machines.size > 0;
  const more = nThere(now) - nThere(before);
  if (crowd) return { came: Math.max(0, more), went: Math.max(0, -more) };
  const nMissing = (names: Iterable<string>, from: ReadonlyMap<string, unknown>) =>
    [...names].filter((name) => !from.has(name)).length;
  return { came: nMissing(young.keys(), old), went: nMissing(old.keys(), young) };
}

/** With how many there are now, because a line that is the same as before is not spoken. */
export function trafficText(traffic: Traffic, now: Page): string {
  if (!isAny(traffic)) return "";
  const { came, went } = traffic;
  const parts = [came > 0 && `${plural(came, "worker")} came`, went > 0 && `${plural(went, "worker")} went`];
  return `${parts.filter(Boolean).join(", ")}, ${number(nThere(now))} now.`;
}

function plus(a: Traffic, b: Traffic): Traffic {
  return { came: a.came + b.came, went: a.went + b.went };
}

function isAny(traffic: Traffic): boolean {
  return traffic.came + traffic.went > 0;
}

function nThere(page: Page): number {
  return page.model.backend.get("backend")?.n_there ?? page.model.workers.size;
}
