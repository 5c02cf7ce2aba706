// What a view alone in a cell is of: one line instead of the header.

import { oneLine } from "./format";
import { Health, RunState, stoppingText } from "./header";
import { useConnection, useSeconds } from "./hooks";

export function Strip({ task }: { task: string | undefined }) {
  const line = useConnection();
  useSeconds(line.page.phase === "live" || line.page.phase === "waiting");
  const { model, phase } = line.page;
  const run = model.run.get("run");
  const signature = task === undefined ? undefined : (model.tasks.get(task)?.signature ?? task);
  return (
    <p class="amltk-title amltk-strip">
      {signature !== undefined && <code class="amltk-of">{oneLine(signature)}</code>}
      <strong class={signature === undefined ? "amltk-of" : "amltk-of amltk-muted"}>
        {run ? oneLine(run.name) || "Scheduler" : "Scheduler"}
      </strong>
      {run && <RunState run={run} final={phase === "final"} />}
      {run?.state === "stopping" && <span class="amltk-muted">{stoppingText(run, line.page, line.now())}</span>}
      <span class="amltk-end"><Health /></span>
    </p>
  );
}

/** Why there is less to see, or to press, than one might expect. */
export function Missing({ task, unknown }: { task: string | undefined; unknown: readonly string[] }) {
  const { model, phase } = useConnection().page;
  const gone = phase === "final" ? model.run.get("run")?.cannot_start : undefined;
  const left = task !== undefined && !gone && (phase === "live" || phase === "final") && !model.tasks.has(task);
  return (
    <>
      {gone && <p class="amltk-advice">{oneLine(gone)}</p>}
      {left && (
        <p class="amltk-advice">
          The scheduler has no {oneLine(task)} any more. Run the cell that makes the task, then its panel() again.
        </p>
      )}
      {unknown.map((name) => (
        <p key={name} class="amltk-advice">
          This page knows no view "{oneLine(name)}": it is older than the kernel's amltk_nb. Reload it.
        </p>
      ))}
    </>
  );
}
