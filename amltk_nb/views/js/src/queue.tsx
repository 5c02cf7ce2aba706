// The calls: counts as filters, a table that draws only what is in sight, one row open at a time.

import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { takesCalls } from "./controls";
import { Detail } from "./detail";
import { queueText, stateWord } from "./engine";
import { number, plural } from "./format";
import { useConnection } from "./hooks";
import { addRows, count, findCall, totals, type Page } from "./page";
import { Empty, Icon, Section } from "./parts";
import { chosen, held, known, pieces, type Filter } from "./rows";
import { Row } from "./row";
import { CALL_STATES, type CallRecord } from "./wire";
import type { Connection } from "./connection";

export const ROW_PX = 30; // every closed row is this high, which is what makes windowing exact
const OVERSCAN = 8;
const N_PER_PAGE = 200;

export function Queue() {
  const line = useConnection();
  const { page } = line;
  const [filter, setFilter] = useState<Filter>("all");
  const [text, setText] = useState("");
  const [open, setOpen] = useState<number | null>(null);
  const calls = useMemo(() => known(page), [page.model.calls, page.archive, page.glimpsed]);
  const rows = useMemo(() => chosen(calls, filter, text), [calls, filter, text]);
  const older = useOlder(line, filter);
  const goTo = async (id: number) => {
    if (!findCall(line.page, id)) await fetchRows(line, { before: id + 1, limit: 1 });
    setFilter("all");
    setText("");
    setOpen(id);
  };
  const { sought } = line;
  useEffect(() => {
    if (sought) void goTo(sought.call);
  }, [sought]);
  const { submitted } = totals(page.model);
  const waits = queueText(page.model.backend.get("backend"), count(page.model, "queued"));
  return (
    <Section id="queue" title="Calls" note={waits} aside={<Search text={text} onText={setText} />}>
      <Chips page={page} filter={filter} onFilter={setFilter} />
      {rows.length > 0 && (
        <Table rows={rows} open={open} sought={sought} onOpen={setOpen} onGoTo={(id) => void goTo(id)} onEnd={older.more} />
      )}
      {submitted === 0 && (
        <Empty>
          {takesCalls(page.model.run.get("run")?.state ?? "idle") ? "No calls yet: start it, then " : "No calls yet: "}
          <code>task.submit(…)</code> in any cell, and it is shown here.
        </Empty>
      )}
      {submitted > 0 && rows.length === 0 && (
        <Empty>{text ? "No call has this text." : `No call is ${filter === "all" ? "here" : filter}.`}</Empty>
      )}
      <More shown={calls.length} of={submitted} filter={filter} older={older} />
    </Section>
  );
}

function Search(props: { text: string; onText: (text: string) => void }) {
  return (
    <div class="amltk-tools">
      <input
        type="search"
        placeholder="Filter"
        aria-label="Filter the calls by text"
        value={props.text}
        onInput={(event) => props.onText(event.currentTarget.value)}
      />
    </div>
  );
}

function Chips(props: { page: Page; filter: Filter; onFilter: (filter: Filter) => void }) {
  const { model } = props.page;
  // Each has room for as many figures as there are in all, so that the next ones stay in place.
  const room = { minWidth: `${number(totals(model).submitted).length}ch` };
  return (
    <div class="amltk-chips" role="group" aria-label="Show calls by state">
      {(["all", ...CALL_STATES] as const).map((state) => (
        <button
          key={state}
          type="button"
          class="amltk-chip"
          aria-pressed={props.filter === state}
          onClick={() => props.onFilter(props.filter === state ? "all" : state)}
        >
          {state !== "all" && <Icon tone={state} />}
          {state === "all" ? state : stateWord(state, model.backend.get("backend"))} <b style={room}>{number(state === "all" ? totals(model).submitted : count(model, state))}</b>
        </button>
      ))}
    </div>
  );
}

interface Older {
  more: () => void;
  exhausted: boolean;
  busy: boolean;
}

/** Fetch page after page of the calls that are not in the bounded model. */
function useOlder(line: Connection, filter: Filter): Older {
  const cursors = useRef(new Map<Filter, number | "end">());
  const [busy, setBusy] = useState(false);
  const { submitted } = totals(line.page.model);
  const all = submitted <= line.page.model.calls.size + line.page.archive.size + line.page.glimpsed.size;
  // What was glimpsed of the queue is dropped when the queue moves on, so it is fetched anew.
  useEffect(() => {
    if (line.page.glimpsed.size === 0) cursors.current.delete("queued");
  }, [line.page.glimpsed]);
  const cursor = cursors.current.get(filter);
  const more = async () => {
    if (busy || all || cursor === "end") return;
    setBusy(true);
    const rows = await fetchRows(line, {
      limit: N_PER_PAGE,
      ...(filter === "all" ? {} : { state: filter }),
      ...(cursor === undefined ? {} : { before: cursor }),
    });
    const last = rows?.at(-1);
    if (rows) cursors.current.set(filter, last && rows.length === N_PER_PAGE ? last.id : "end");
    setBusy(false);
  };
  return { more: () => void more(), exhausted: all || cursor === "end", busy };
}

async function fetchRows(line: Connection, args: Record<string, unknown>): Promise<CallRecord[] | undefined> {
  const reply = await line.ask("rows", args);
  if (!reply.ok) {
    line.say(reply.error);
    return undefined;
  }
  const { rows } = reply.value as { rows: CallRecord[] };
  line.update(addRows(line.page, rows));
  return rows;
}

function More(props: { shown: number; of: number; filter: Filter; older: Older }) {
  const { shown, of, older } = props;
  if (shown >= of) return null;
  return (
    <div class="amltk-more">
      <span>{number(shown)} of {plural(of, "call")} loaded.</span>
      {older.exhausted ? (
        <span class="amltk-muted">Older ones have left the history.</span>
      ) : (
        <button type="button" class="amltk-button" aria-busy={older.busy} onClick={older.more}>
          Load older
        </button>
      )}
    </div>
  );
}

interface TableProps {
  rows: CallRecord[];
  open: number | null;
  sought: Connection["sought"];
  onOpen: (id: number | null) => void;
  onGoTo: (id: number) => void;
  onEnd: () => void;
}

function Table({ rows: wanted, open, sought, onOpen, onGoTo, onEnd }: TableProps) {
  const isElsewhere = useConnection().page.model.backend.get("backend")?.reports_start === false;
  const box = useRef<HTMLDivElement>(null);
  const order = useRef<readonly number[]>([]);
  const [pointed, setPointed] = useState(false);
  const [focus, onFocus] = useKeptFocus();
  const [top, setTop] = useState(0);
  const [height, setHeight] = useState(12 * ROW_PX);
  const rows = pointed || focus.visible ? held(wanted, order.current) : wanted;
  order.current = rows.map((call) => call.id);
  const openIndex = open === null ? -1 : order.current.indexOf(open);
  const focusIndex = focus.call === null ? -1 : order.current.indexOf(focus.call);
  const first = Math.floor(top / ROW_PX) - OVERSCAN;
  const last = Math.ceil((top + height) / ROW_PX) + OVERSCAN;

  const measure = () => {
    const el = box.current;
    if (!el) return;
    setHeight(el.clientHeight);
    setTop(rowsAbove(el, openIndex));
    if (el.scrollHeight - el.scrollTop - el.clientHeight < 2 * ROW_PX && el.scrollTop > 0) onEnd();
  };
  useLayoutEffect(measure, [rows.length, open]);
  useLayoutEffect(() => {
    if (box.current && openIndex >= 0) reveal(box.current, openIndex);
  }, [open]);
  useLayoutEffect(() => {
    // Whoever asked for it from another view goes on from here.
    if (sought && sought.call === open) {
      box.current?.querySelector<HTMLElement>(`tr[data-call="${open}"] .amltk-toggle`)?.focus();
    }
  }, [sought, open, openIndex >= 0]);
  const detailGrew = () => {
    if (box.current && openIndex >= 0) reveal(box.current, openIndex);
  };

  return (
    <div
      ref={box}
      class="amltk-scroll"
      role="group"
      aria-label="Table of calls"
      tabIndex={0}
      onScroll={measure}
      onPointerEnter={() => setPointed(true)}
      onPointerLeave={() => setPointed(false)}
      onFocusIn={(event) => onFocus(event.target)}
      onFocusOut={(event) => onFocus(event.relatedTarget)}
    >
      <table class="amltk-table" data-elsewhere={isElsewhere} aria-rowcount={rows.length + 1}>
        <Head />
        <tbody>
          {/* One flat list: a row within a list of its own would be made anew when it moves. */}
          {pieces(rows.length, first, last, [openIndex, focusIndex]).flatMap((piece, i) => {
            if ("gap" in piece) {
              return (
                <tr key={`gap ${i}`} aria-hidden="true" class="amltk-gap">
                  <td colSpan={8} style={{ height: `${piece.gap * ROW_PX}px` }} />
                </tr>
              );
            }
            const call = rows[piece.index] as CallRecord;
            const opened = call.id === open;
            const toggle = () => onOpen(opened ? null : call.id);
            return [
              <Row key={call.id} call={call} index={piece.index} open={opened} onToggle={toggle} />,
              opened && <Detail key={`${call.id} detail`} call={call} onGoTo={onGoTo} onClose={toggle} onGrown={detailGrew} />,
            ];
          })}
        </tbody>
      </table>
    </div>
  );
}

function Head() {
  return (
    <thead>
      <tr aria-rowindex={1}>
        <th scope="col" class="amltk-col-id">Id</th>
        <th scope="col" class="amltk-col-task">Task</th>
        <th scope="col" class="amltk-col-args">Arguments</th>
        <th scope="col" class="amltk-col-state">State</th>
        <th scope="col" class="amltk-col-time">Time</th>
        <th scope="col" class="amltk-col-worker">Worker</th>
        <th scope="col" class="amltk-col-attempt">Try</th>
        <th scope="col" class="amltk-col-action"><span class="amltk-hidden">Action</span></th>
      </tr>
    </thead>
  );
}

/** Pixels of closed rows above the upper edge: the open row's detail is not one of them. */
function rowsAbove(el: HTMLElement, openIndex: number): number {
  const detail = el.querySelector<HTMLElement>(".amltk-detail");
  if (!detail || openIndex < 0) return el.scrollTop;
  const detailTop = (openIndex + 1) * ROW_PX;
  if (el.scrollTop <= detailTop) return el.scrollTop;
  return Math.max(detailTop, el.scrollTop - detail.offsetHeight);
}

/** Scroll as little as it takes to see an open row and, as far as it fits, its detail. */
function reveal(el: HTMLElement, index: number): void {
  const top = index * ROW_PX;
  const detail = el.querySelector<HTMLElement>(".amltk-detail");
  const wanted = 2 * ROW_PX + (detail?.offsetHeight ?? 0); // the head of the table stays in sight
  const bottom = top + wanted - el.clientHeight;
  if (el.scrollTop > top || el.scrollTop < bottom) el.scrollTop = Math.min(top, Math.max(bottom, 0));
}

interface Focus {
  call: number | null; // the row that has it
  visible: boolean; // it came by keyboard, so the rows must not move away under it
}

/** Know which row has the focus, and give it back when the browser drops it with a moved row. */
function useKeptFocus(): [Focus, (target: EventTarget | null) => void] {
  const [focus, setFocus] = useState<Focus>({ call: null, visible: false });
  const element = useRef<HTMLElement | null>(null);
  const drawing = useRef(false);
  drawing.current = true;
  useLayoutEffect(() => {
    drawing.current = false;
    const dropped = element.current?.isConnected && element.current !== document.activeElement;
    if (dropped) element.current?.focus({ preventScroll: true });
  });
  const onFocus = (target: EventTarget | null) => {
    if (drawing.current) return; // nobody left it: its row is being moved
    const row = target instanceof HTMLElement ? target.closest("tr[data-call]") : null;
    element.current = row ? (target as HTMLElement) : null;
    const call = row ? Number(row.getAttribute("data-call")) : null;
    setFocus({ call, visible: element.current?.matches(":focus-visible") ?? false });
  };
  return [focus, onFocus];
}
