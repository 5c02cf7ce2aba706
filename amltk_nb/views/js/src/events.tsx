// Who emitted what how often, and who listens: the scheduler first, then each task.

import { number, oneLine, plural } from "./format";
import { memo } from "./hooks";
import type { Model } from "./page";
import { Empty, Section } from "./parts";
import type { CallbackRecord, EventRecord } from "./wire";

interface Props {
  events: Model["events"];
  callbacks: Model["callbacks"];
  tasks: Model["tasks"];
}

interface Listed extends EventRecord {
  id: string;
  callbacks: [string, CallbackRecord][];
}

export const Events = memo(({ events, callbacks, tasks }: Props) => {
  const emitters = grouped(events, callbacks);
  const names = ["scheduler", ...inOrder(tasks).map(([ref]) => ref)].filter((name) => emitters.has(name));
  return (
    <Section id="events" title="Events">
      {names.length === 0 && <Empty>No events yet.</Empty>}
      {names.map((name) => (
        <Emitter
          key={name}
          name={name}
          signature={tasks.get(name)?.signature}
          events={emitters.get(name) ?? []}
          open={name === "scheduler" || tasks.size <= 3}
        />
      ))}
    </Section>
  );
});

function Emitter(props: { name: string; signature: string | undefined; events: Listed[]; open: boolean }) {
  return (
    <details class="amltk-emitter" open={props.open}>
      <summary>
        <code>{oneLine(props.signature ?? "Scheduler")}</code>
        {props.signature && <span class="amltk-muted amltk-ref">{oneLine(props.name)}</span>}
      </summary>
      <ul class="amltk-tree">
        {props.events.map((event) => (
          <li key={event.id} data-quiet={event.count === 0 && event.callbacks.length === 0}>
            <span class="amltk-pair">
              <code>@{oneLine(event.name)}</code>
              <span class="amltk-n">{number(event.count)}</span>
            </span>
            {event.callbacks.length > 0 && (
              <ul>
                {event.callbacks.map(([id, callback]) => <Callback key={id} callback={callback} />)}
              </ul>
            )}
          </li>
        ))}
      </ul>
    </details>
  );
}

function Callback({ callback }: { callback: CallbackRecord }) {
  return (
    <li>
      <span class="amltk-pair">
        <code title={oneLine(callback.text)}>{oneLine(callback.text)}</code>
        {callback.cell && <span class="amltk-cell">cell {oneLine(callback.cell)}</span>}
        {callback.n_errors !== undefined && (
          <span class="amltk-is-failed amltk-errors">✕ {plural(callback.n_errors, "error")}</span>
        )}
        <span class="amltk-n">{number(callback.n_calls)}</span>
      </span>
    </li>
  );
}

function inOrder<T extends { order: number }>(records: ReadonlyMap<string, T>): [string, T][] {
  return [...records].sort(([, a], [, b]) => a.order - b.order);
}

function grouped(events: Model["events"], callbacks: Model["callbacks"]): Map<string, Listed[]> {
  const heard = new Map<string, [string, CallbackRecord][]>();
  for (const [id, callback] of inOrder(callbacks)) {
    if (!callback.hidden) push(heard, callback.event, [id, callback]);
  }
  const emitters = new Map<string, Listed[]>();
  for (const [id, event] of inOrder(events)) {
    push(emitters, event.emitter, { ...event, id, callbacks: heard.get(id) ?? [] });
  }
  return emitters;
}

function push<T>(lists: Map<string, T[]>, key: string, item: T): void {
  const list = lists.get(key);
  if (list) list.push(item);
  else lists.set(key, [item]);
}
