// The open row: everything about one call, fetched when it is opened and when its state moves.

import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { closedReason } from "./controls";
import { callWord } from "./engine";
import { EditForm } from "./form";
import { clockTime, number, oneLine, visible } from "./format";
import { useConnection, useSeconds } from "./hooks";
import { Action, startsIn } from "./row";
import type { CallRecord, Detail as Fetched } from "./wire";

const RESULT_CHARS = 600;

interface Props {
  call: CallRecord;
  onGoTo: (id: number) => void;
  onClose: () => void;
  onGrown: () => void;
}

export function Detail({ call, onGoTo, onClose, onGrown }: Props) {
  const { detail, error } = useDetail(call);
  const [editing, setEditing] = useState(false);
  const row = useRef<HTMLTableRowElement>(null);
  useLayoutEffect(onGrown, [detail === undefined && error === undefined]);
  const stopEditing = () => {
    setEditing(false);
    row.current?.querySelector<HTMLElement>(".amltk-change")?.focus();
  };
  const close = (event: KeyboardEvent) => {
    if (event.key !== "Escape") return;
    const table = (event.currentTarget as HTMLElement).closest("table");
    onClose();
    table?.querySelector<HTMLElement>(`tr[data-call="${call.id}"] .amltk-toggle`)?.focus();
  };
  return (
    <tr ref={row} class="amltk-detail" data-call={call.id} onKeyDown={close}>
      <td colSpan={8}>
        <div class="amltk-detail-body">
          <Facts call={call} onGoTo={onGoTo} />
          <div class="amltk-detail-actions">
            <span class="amltk-detail-action"><Action call={call} /></span>
            <ChangeButton call={call.id} open={editing} onToggle={() => setEditing(!editing)} />
          </div>
          {editing && <EditForm call={call.id} onClose={stopEditing} onGrown={onGrown} />}
          {error !== undefined && <p class="amltk-is-failed">{visible(error)}</p>}
          {detail && <Texts call={call} detail={detail} />}
          {!detail && error === undefined && <p class="amltk-muted">Asking the kernel…</p>}
        </div>
      </td>
    </tr>
  );
}

function ChangeButton(props: { call: number; open: boolean; onToggle: () => void }) {
  const closed = closedReason(useConnection().page.phase);
  return (
    <button
      type="button"
      class="amltk-button amltk-change"
      aria-expanded={props.open}
      aria-disabled={closed !== undefined}
      aria-label={`Resubmit with changes, call ${props.call}`}
      title={closed}
      onClick={() => closed === undefined && props.onToggle()}
    >
      Resubmit with changes…
    </button>
  );
}

function useDetail(call: CallRecord): { detail: Fetched | undefined; error: string | undefined } {
  const line = useConnection();
  const [got, setGot] = useState<{ detail?: Fetched; error?: string }>({});
  useEffect(() => {
    let wanted = true;
    void line.ask("detail", { call: call.id }, `detail ${call.id}`).then((reply) => {
      if (!wanted) return;
      setGot(reply.ok ? { detail: reply.value as Fetched } : { error: reply.error ?? "Refused." });
    });
    return () => {
      wanted = false;
    };
  }, [line, call.id, call.state, call.attempt]);
  return { detail: got.detail, error: got.error };
}

function Facts({ call, onGoTo }: { call: CallRecord; onGoTo: (id: number) => void }) {
  const line = useConnection();
  const { model } = line.page;
  useSeconds(call.not_before !== undefined);
  const from = call.resubmitted_from;
  const queued = call.state === "queued";
  const held = call.not_before;
  const begun = callWord(call, model.backend.get("backend")) === call.state;
  const facts: [string, string | undefined][] = [
    ["Task", call.task],
    ["Submitted", clockTime(call.submitted_at)],
    ["Starts", held === undefined ? undefined : `${clockTime(held)} (${startsIn(held - line.now())})`],
    ["Waits for", queued ? model.backend.get("backend")?.waiting_for : undefined],
    [begun ? "Started" : "Handed over", call.started_at === undefined ? undefined : clockTime(call.started_at)],
    ["Ended", call.ended_at === undefined ? undefined : clockTime(call.ended_at)],
    ["Progress", call.progress?.text],
    ["Worker", call.worker],
    ["Machine", model.workers.get(call.worker ?? "")?.where],
    ["Attempt", String(call.attempt ?? 1)],
  ];
  return (
    <dl class="amltk-facts">
      {facts.map(([name, text]) => text !== undefined && (
        <div key={name}><dt>{name}</dt><dd>{oneLine(text)}</dd></div>
      ))}
      {from !== undefined && (
        <div>
          <dt>Resubmitted from</dt>
          <dd>
            <button type="button" class="amltk-link" onClick={() => onGoTo(from)}>call {from}</button>
          </dd>
        </div>
      )}
    </dl>
  );
}

function Texts({ call, detail }: { call: CallRecord; detail: Fetched }) {
  return (
    <>
      {detail.arguments.length > 0 && (
        <div class="amltk-block">
          <h4>Arguments</h4>
          <dl class="amltk-arguments">
            {detail.arguments.map(({ name, text }, i) => (
              <div key={i}><dt><code>{oneLine(name)}</code></dt><dd><Pre text={text} label={`Argument ${oneLine(name)}`} /></dd></div>
            ))}
          </dl>
        </div>
      )}
      {detail.result !== null && <Result text={detail.result} isPart={detail.result_is_part === true} />}
      <Block title="Error" text={detail.error} kind="amltk-traceback" lead={call.error} />
      <Block title="Output" text={detail.output} />
    </>
  );
}

function Block(props: { title: string; text: string | null; kind?: string; lead?: string | undefined }) {
  if (props.text === null) return null;
  return (
    <div class={`amltk-block ${props.kind ?? ""}`}>
      <h4>{props.title}</h4>
      {props.lead && <p class="amltk-lead">{visible(props.lead)}</p>}
      <Pre text={props.text} label={props.title} fromEnd={props.lead !== undefined} />
    </div>
  );
}

/** A result is read from its beginning, and often that is enough. */
function Result({ text, isPart }: { text: string; isPart: boolean }) {
  const [all, setAll] = useState(false);
  const isLong = text.length > RESULT_CHARS;
  const shown = isLong && !all ? `${text.slice(0, RESULT_CHARS)}…` : text;
  return (
    <div class="amltk-block">
      <h4>Result</h4>
      <Pre text={shown} label="Result" />
      {isLong && (
        <button type="button" class="amltk-link" aria-expanded={all} onClick={() => setAll(!all)}>
          {all ? "Show less" : `Show all ${number(text.length)} characters`}
        </button>
      )}
      {isPart && <p class="amltk-muted">Only this much is left: a result lives as long as somebody keeps its future.</p>}
    </div>
  );
}

/**
 * A text that may be long: it scrolls by itself, with the keyboard as well. A traceback is read from
 * its end: there are the error and, in a chain of errors, the program's own lines.
 */
function Pre({ text, label, fromEnd = false }: { text: string; label: string; fromEnd?: boolean }) {
  const pre = useRef<HTMLPreElement>(null);
  useLayoutEffect(() => {
    if (fromEnd && pre.current) pre.current.scrollTop = pre.current.scrollHeight;
  }, [text]);
  const long = text.length > 200 || text.includes("\n");
  const scrolls = long ? { tabIndex: 0, role: "group" as const, "aria-label": label } : {};
  return <pre ref={pre} {...scrolls}>{visible(text)}</pre>;
}
