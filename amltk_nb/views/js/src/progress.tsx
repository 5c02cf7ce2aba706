// How far it is: the bar, and how long what was submitted still takes.

import { remaining } from "./eta";
import { number, plural, range } from "./format";
import { useConnection, useSeconds } from "./hooks";
import { count, totals, type Model } from "./page";

export function Progress() {
  const line = useConnection();
  useSeconds(line.live());
  const { page } = line;
  const { ended, submitted } = totals(page.model);
  const waits = page.model.backend.get("backend")?.waiting_for !== undefined;
  const goesOn = page.model.run.get("run")?.state === "running" && !waits;
  const left = goesOn ? remaining(page, line.now(), line.live() ? line.rate() : undefined) : undefined;
  return (
    <div class="amltk-progress">
      <div
        class="amltk-bar"
        role="progressbar"
        aria-label="Calls ended"
        aria-valuemin={0}
        aria-valuemax={Math.max(1, submitted)}
        aria-valuenow={ended}
        aria-valuetext={progressText(page.model)}
      >
        {["done", "failed", "cancelled", "running"].map((name) => (
          <Segment key={name} name={name} n={count(page.model, name)} of={submitted} />
        ))}
      </div>
      <div class="amltk-progress-text">
        <span>{number(ended)} of {plural(submitted, "call")} ended</span>
        <span class="amltk-muted">{left ? range(left.lowS, left.highS) : "\u00a0"}</span>
      </div>
    </div>
  );
}

function Segment({ name, n, of }: { name: string; n: number; of: number }) {
  const width = of > 0 ? (100 * n) / of : 0;
  return <div class={`amltk-segment amltk-is-${name}`} style={{ width: `${width}%` }} />;
}

export function progressText(model: Model): string {
  const { ended, submitted } = totals(model);
  const parts = ["done", "failed", "cancelled"]
    .filter((state) => count(model, state) > 0)
    .map((state) => `${number(count(model, state))} ${state}`);
  const detail = parts.length > 0 ? `: ${parts.join(", ")}` : "";
  return `${number(ended)} of ${plural(submitted, "call")} ended${detail}`;
}
