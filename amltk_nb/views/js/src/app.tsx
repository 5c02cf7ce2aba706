// The views in their places; a subset of them makes a smaller widget of the same kind.

import type { VNode } from "preact";
import { Announcer } from "./announcer";
import { Controls } from "./controls";
import { Events } from "./events";
import { TaskForm } from "./form";
import { visible } from "./format";
import { Header } from "./header";
import { useConnection } from "./hooks";
import { Log } from "./log";
import type { Model } from "./page";
import { Plugins } from "./plugins";
import { Progress } from "./progress";
import { Queue } from "./queue";
import { Missing, Strip } from "./strip";
import { Timeline } from "./timeline";
import { Workers } from "./workers";

export function App({ views, task }: { views: readonly string[]; task: string | undefined }) {
  const line = useConnection();
  const { model, phase } = line.page;
  const views_: Record<string, () => VNode> = {
    header: () => <Header key="header" />,
    progress: () => <Progress key="progress" />,
    controls: () => <Controls key="controls" />,
    form: () => <TaskForm key="form" />,
    queue: () => <Queue key="queue" />,
    workers: () => <Workers key="workers" alone={!views.includes("queue")} />,
    timeline: () => <Timeline key="timeline" alone={!views.includes("queue")} />,
    events: () => <Events key="events" events={model.events} callbacks={model.callbacks} tasks={model.tasks} />,
    plugins: () => <Plugins key="plugins" plugins={model.plugins} tasks={model.tasks} />,
    log: () => <Log key="log" log={model.log} />,
  };
  const part = (...names: string[]) => names.filter((n) => views.includes(n)).map((n) => views_[n]?.());
  const main = part("form", "queue", "timeline", "workers");
  const side = part("events", "plugins");
  return (
    <div class="amltk-all" data-lost={line.lost()} data-phase={phase} data-run={runOf(model)}>
      {!views.includes("header") && <Strip task={task} />}
      {part("header", "progress", "controls")}
      <Missing task={task} unknown={views.filter((name) => !Object.hasOwn(views_, name))} />
      <Notice />
      {phase === "waiting" && <p class="amltk-muted">Waiting for the kernel…</p>}
      {phase !== "waiting" && (
        <>
          {main.length + side.length > 0 && (
            <div class="amltk-columns" data-both={main.length > 0 && side.length > 0}>
              {main.length > 0 && <div class="amltk-main">{main}</div>}
              {side.length > 0 && <div class="amltk-side">{side}</div>}
            </div>
          )}
          {part("log")}
        </>
      )}
      <Announcer />
    </div>
  );
}

/** What views of the same run have in common. */
function runOf(model: Model): string {
  const run = model.run.get("run");
  return `${run?.name} ${run?.started_at}`;
}

/** What the kernel refused, until it is dismissed or the next button is pressed. */
function Notice() {
  const line = useConnection();
  if (!line.notice) return null;
  return (
    <p class="amltk-notice">
      <span>{visible(line.notice.text)}</span>
      <button type="button" class="amltk-button" onClick={() => line.say(null)}>Dismiss</button>
    </p>
  );
}
