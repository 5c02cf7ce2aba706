// Calls as forms: a call's arguments to be changed and submitted again, and a task's own form.

import { useEffect, useId, useLayoutEffect, useRef, useState } from "preact/hooks";
import { closedReason, takesCalls } from "./controls";
import { Field, initial } from "./field";
import { oneLine, visible } from "./format";
import { FormCalls } from "./formcalls";
import { useConnection } from "./hooks";
import { Ask } from "./parts";
import type { CommandName, Entry, FormRecord, Reply } from "./wire";

type Entries = Readonly<Record<string, Entry>>;

interface Wrong {
  text: string; // what is not about one field
  fields: Readonly<Record<string, string>>;
}

const FINE: Wrong = { text: "", fields: {} };

/** The arguments of a call, to be changed and submitted as a new one. */
export function EditForm({ call, onClose, onGrown }: { call: number; onClose: () => void; onGrown: () => void }) {
  const line = useConnection();
  const cancel = (event: KeyboardEvent) => {
    if (event.key !== "Escape") return;
    event.stopPropagation(); // the row stays open
    onClose();
  };
  return (
    <div class="amltk-block amltk-edit" onKeyDown={cancel}>
      <h4>Resubmit with changes</h4>
      <Form
        make="edit"
        send="resubmit_with"
        args={{ call }}
        label={`New arguments of call ${call}`}
        focusFirst
        onShown={onGrown}
        onCancel={onClose}
        onDone={(id) => {
          onClose();
          line.seek(id);
        }}
      />
    </div>
  );
}

/** The form of a task, and under it the calls that it made. */
export function TaskForm() {
  return (
    <>
      <Form make="form" send="submit" label="Arguments" titled />
      <FormCalls />
    </>
  );
}

interface Props {
  make: CommandName; // asks for the fields
  send: CommandName; // submits what was entered
  args?: Record<string, unknown>;
  label: string;
  titled?: boolean;
  focusFirst?: boolean;
  onShown?: () => void;
  onCancel?: () => void;
  onDone?: (call: number) => void;
}

function Form({ make, send, args = {}, label, titled, focusFirst, onShown, onCancel, onDone }: Props) {
  const line = useConnection();
  const body = useRef<HTMLDivElement>(null);
  const { form, error, renew } = useRecord(make, args);
  const [entries, setEntries] = useState<Entries>({});
  const [wrong, setWrong] = useState(FINE);
  const [said, setSaid] = useState("");
  const reason = useReason();
  const key = `${send} ${JSON.stringify(args)}`;
  const asked = line.askedSince(key) !== undefined;
  useLayoutEffect(() => {
    if (form) onShown?.();
  }, [form === undefined]);
  useLater(() => {
    if (form && focusFirst) body.current?.querySelector<HTMLElement>(CONTROL)?.focus();
  }, form === undefined);
  useLater(() => goToWrong(body.current), wrong);
  if (error !== undefined) return <p class="amltk-is-failed">{visible(error)}</p>;
  if (!form) return <p class="amltk-muted">Asking the kernel…</p>;

  const submit = async () => {
    if (asked || reason !== undefined) return;
    setSaid("");
    const reply = await line.ask(send, { ...args, entries: current(entries, form), stamp: form.stamp }, key);
    setWrong(reply.ok ? FINE : wrongOf(reply));
    if (isStale(reply)) renew();
    if (!reply.ok) return;
    const { call } = reply.value as { call: number | null };
    setSaid(call === null ? "A plugin of the task refused this call." : `Submitted as call ${call}.`);
    if (call !== null) onDone?.(call);
  };
  const change = (name: string, entry: Entry | undefined) => {
    const { [name]: _, ...others } = entries;
    setEntries(entry === undefined ? others : { ...others, [name]: entry });
  };
  return (
    <div
      ref={body}
      class="amltk-form"
      role="group"
      aria-label={label}
      onKeyDown={(event) => {
        if (event.key === "Enter" && (event.target as Element).matches("input:not([type=checkbox])")) void submit();
      }}
    >
      {titled && <Title form={form} />}
      {form.note && <p class="amltk-waits">{visible(form.note)}</p>}
      {form.fields.length === 0 && <p class="amltk-muted">It takes no arguments.</p>}
      {form.fields.map((field) => (
        <Field
          key={`${field.name} ${field.kind}`}
          field={field}
          entry={entries[field.name]}
          wrong={wrong.fields[field.name]}
          onChange={(entry) => change(field.name, entry)}
        />
      ))}
      {wrong.text && <p class="amltk-is-failed amltk-wrong" role="alert">{visible(wrong.text)}</p>}
      <Idle />
      <div class="amltk-form-end">
        <Submit asked={asked} reason={reason} onPress={() => void submit()} />
        {onCancel && <button type="button" class="amltk-button" onClick={onCancel}>Cancel</button>}
        <span role="status" class="amltk-muted">{said}</span>
      </div>
    </div>
  );
}

function Title({ form }: { form: FormRecord }) {
  return (
    <p class="amltk-form-title">
      <strong>{oneLine(form.title)}</strong> {form.about && <span class="amltk-muted">{oneLine(form.about)}</span>}
    </p>
  );
}

/** What to do while nothing runs, where it can be done. */
function Idle() {
  const run = useConnection().page.model.run.get("run");
  if (run?.state !== "idle" && run?.state !== "finished") return null;
  return (
    <p class="amltk-form-idle">
      <span>Nothing is running, so nothing can be submitted yet: start it here or by <code>scheduler.start()</code>.</span>
      <Ask name="start" label="Start" spoken="Start the scheduler" reason={run.cannot_start} />
    </p>
  );
}

function Submit(props: { asked: boolean; reason: string | undefined; onPress: () => void }) {
  const { asked, reason, onPress } = props;
  const id = useId();
  return (
    <button
      type="button"
      class="amltk-button amltk-submit"
      aria-label="Submit"
      aria-busy={asked}
      aria-disabled={asked || reason !== undefined}
      aria-describedby={reason ? id : undefined}
      title={reason}
      onClick={onPress}
    >
      <span class="amltk-stack" data-asked={asked}>
        <span>Submit</span>
        <span>asked…</span>
      </span>
      {reason && <span id={id} class="amltk-hidden">{reason}</span>}
    </button>
  );
}

/** Why nothing can be submitted now, if so. */
function useReason(): string | undefined {
  const line = useConnection();
  if (line.lost()) return "Disconnected: the kernel does not answer.";
  return closedReason(line.page.phase) ?? takesCalls(line.page.model.run.get("run")?.state ?? "idle");
}

function useRecord(make: CommandName, args: Record<string, unknown>) {
  const line = useConnection();
  const [got, setGot] = useState<{ form?: FormRecord; error?: string }>({});
  const [n, setN] = useState(0);
  useEffect(() => {
    let wanted = true;
    void line.ask(make, args, `${make} ${n}`).then((reply) => {
      if (!wanted) return;
      setGot(reply.ok ? { form: reply.value as FormRecord } : { error: reply.error ?? "Refused." });
    });
    return () => {
      wanted = false;
    };
  }, [line, JSON.stringify(args), n]);
  return { form: got.form, error: got.error, renew: () => setN(n + 1) };
}

/**
 * Move the focus when something has changed, but never in the midst of drawing: then the table of
 * calls takes it for the browser's own doing and gives it back to who had it. Effects may be run
 * early, by the next drawing, so they are not late enough.
 */
function useLater(move: () => void, change: unknown): void {
  useEffect(() => {
    const timer = setTimeout(move);
    return () => clearTimeout(timer);
  }, [change]);
}

const CONTROL = "input, select, textarea, button";

/** Go to the first field that is wrong, unless the one with the focus is. */
function goToWrong(body: HTMLElement | null): void {
  const wrong = [...(body?.querySelectorAll<HTMLElement>("[aria-invalid=true]") ?? [])];
  if (!wrong.some((control) => control === document.activeElement)) wrong[0]?.focus();
}

/** What was entered in fields that are still there. */
function current(entries: Entries, form: FormRecord): Entries {
  const fits = form.fields.filter((field) => {
    const entry = entries[field.name];
    return entry !== undefined && typeof entry === typeof initial(field);
  });
  return Object.fromEntries(fits.map((field) => [field.name, entries[field.name] as Entry]));
}

function wrongOf(reply: Reply): Wrong {
  const { fields = {} } = (reply.value ?? {}) as { fields?: Record<string, string> };
  const none = Object.keys(fields).length === 0;
  return { text: none ? (reply.error ?? "Refused.") : "", fields };
}

function isStale(reply: Reply): boolean {
  return !reply.ok && (reply.value as { stale?: boolean } | null)?.stale === true;
}
