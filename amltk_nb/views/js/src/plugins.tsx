// A card per plugin, drawn from the plain values of its state().

import { oneLine, value } from "./format";
import { memo } from "./hooks";
import type { Model } from "./page";
import { Empty, Section } from "./parts";
import type { PluginRecord, Value } from "./wire";

export const Plugins = memo(({ plugins, tasks }: { plugins: Model["plugins"]; tasks: Model["tasks"] }) => {
  const cards = [...plugins].sort(([, a], [, b]) => a.order - b.order);
  return (
    <Section id="plugins" title="Plugins">
      {cards.length === 0 && (
        <Empty>No plugins. Limit a task with <code>scheduler.task(f, plugins=Limiter(max_concurrent=2))</code>.</Empty>
      )}
      <div class="amltk-cards">
        {cards.map(([id, plugin]) => (
          <Card key={id} plugin={plugin} task={tasks.get(plugin.task)?.function ?? plugin.task} />
        ))}
      </div>
    </Section>
  );
});

function Card({ plugin, task }: { plugin: PluginRecord; task: string }) {
  return (
    <div class="amltk-card">
      <div class="amltk-card-head">
        <strong>{oneLine(plugin.name)}</strong> <span class="amltk-muted">on {oneLine(task)}</span>
      </div>
      <dl>
        {Object.entries(plugin.state).map(([key, v]) => (
          <div key={key} class="amltk-pair">
            <dt>{oneLine(key).replace(/_/g, " ")}</dt>
            <dd>{oneLine(value(v))}<Gauge v={v} /></dd>
          </div>
        ))}
      </dl>
    </div>
  );
}

/** A bar for "3/10"; the number beside it says the same, so it is hidden from screen readers. */
function Gauge({ v }: { v: Value }) {
  const share = shareOf(v);
  if (share === undefined) return null;
  return (
    <span class="amltk-gauge" aria-hidden="true">
      <span style={{ width: `${100 * share}%` }} data-full={share === 1} />
    </span>
  );
}

export function shareOf(v: Value): number | undefined {
  const match = typeof v === "string" ? /^(\d+)\s*\/\s*(\d+)$/.exec(v) : null;
  if (!match || Number(match[2]) === 0) return undefined;
  return Math.min(1, Number(match[1]) / Number(match[2]));
}
