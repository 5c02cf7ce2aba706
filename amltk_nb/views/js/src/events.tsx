// Who emitted what how often, and who listens: the scheduler first, then each task.

import { useContext, useRef } from "preact/hooks";
import { clockTime, number, oneLine, plural, rate } from "./format";
import { Line, memo, useSeconds } from "./hooks";
import type { Model } from "./page";
import { Empty, Section } from "./parts";
import { N_SLOTS, Pulse } from "./pulse";
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
  const at = useContext(Line).now(); // not followed: of all that comes only the events matter here
  const { current: pulse } = useRef(new Pulse());
  pulse.take(events, at);
  useSeconds(pulse.isAlive(at));
  const names = ["scheduler", ...inOrder(tasks).map(([ref]) => ref)].filter((name) => emitters.has(name));
  return (
    <Section id="events" title="Events">
      {tasks.size === 0 && (
        <Empty>No tasks yet: put <code>@scheduler.task</code> above a function; its events are shown here, too.</Empty>
      )}
      {tasks.size > 0 && callbacks.size === 0 && (
        <Empty>Nobody listens yet: put <code>@task.on_result</code> above a function, and it is told of each result.</Empty>
      )}
      {names.map((name) => (
        <Emitter
          key={name}
          name={name}
          signature={tasks.get(name)?.signature}
          events={emitters.get(name) ?? []}
          pulse={pulse}
          at={at}
          open={name === "scheduler" || tasks.size <= 3}
        />
      ))}
    </Section>
  );
});

interface EmitterProps {
  name: string;
  signature: string | undefined;
  events: Listed[];
  pulse: Pulse;
  at: number;
  open: boolean;
}

function Emitter(props: EmitterProps) {
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
              <Minute slots={props.pulse.minute(event.id, props.at)} />
              <When perSecond={props.pulse.rate(event.id, props.at)} lastAt={props.pulse.lastAt(event.id)} />
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

/** How often it happens, or when it last did: one place for both, so that nothing moves. */
function When({ perSecond, lastAt }: { perSecond: number; lastAt: number | undefined }) {
  const last = lastAt === undefined ? "" : clockTime(lastAt);
  return (
    <span class="amltk-when" title={last && `last at ${last}`}>
      {perSecond > 0 ? rate(perSecond) : last}
    </span>
  );
}

const SPARK_PX = 14;

/** The last minute, a bar for each second; the rate beside it says the same in words. */
function Minute({ slots }: { slots: number[] | undefined }) {
  const most = Math.max(...(slots ?? []), 1);
  const bars = (slots ?? []).map((n, x) => (n > 0 ? `M${x} ${SPARK_PX}v${-Math.max(1, (SPARK_PX * n) / most).toFixed(1)}` : ""));
  return (
    <svg class="amltk-minute" viewBox={`-0.5 0 ${N_SLOTS} ${SPARK_PX}`} aria-hidden="true">
      <path d={bars.join("")} />
    </svg>
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
