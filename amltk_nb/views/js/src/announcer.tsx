// The one line that screen readers are told: milestones at once, progress every ten seconds.

import { useEffect, useRef, useState } from "preact/hooks";
import { progressText } from "./header";
import { useConnection } from "./hooks";
import { count, type Page } from "./page";

const EVERY_S = 10;

export function Announcer() {
  const line = useConnection();
  const [text, setText] = useState("");
  const last = useRef({ milestone: "", at: -Infinity });
  const milestone = milestoneOf(line.page, line.notice?.text);
  const now = line.now();
  useEffect(() => {
    const news = milestone !== last.current.milestone;
    const due = line.live() && now - last.current.at >= EVERY_S;
    if (!news && !due) return;
    last.current = { milestone, at: now };
    setText(announcement(line.page, line.notice?.text));
  });
  return <div role="status" aria-live="polite" class="amltk-hidden">{text}</div>;
}

/** What is worth saying at once when it changes. */
export function milestoneOf(page: Page, notice: string | undefined): string {
  const run = page.model.run.get("run");
  const failed = count(page.model, "failed") > 0 ? "with failures" : "";
  return [run?.state, run?.code, failed, notice].join(" ");
}

function announcement(page: Page, notice: string | undefined): string {
  const run = page.model.run.get("run");
  if (!run) return "";
  const why = run.code ? ` (${run.code})` : "";
  return `${run.name} ${run.state}${why}. ${progressText(page.model)}.${notice ? ` ${notice}` : ""}`;
}
