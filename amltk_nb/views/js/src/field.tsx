// One field of a form: a label with its type, the control for its kind, and what is wrong with it.

import { useId, useState } from "preact/hooks";
import { visible } from "./format";
import type { Entry, FieldRecord } from "./wire";

const LONG_CHARS = 60;

interface Props {
  field: FieldRecord;
  entry: Entry | undefined; // undefined: as it was
  wrong: string | undefined;
  onChange: (entry: Entry | undefined) => void;
}

interface ControlProps {
  field: FieldRecord;
  value: Entry;
  attributes: Record<string, string | boolean | undefined>;
  onEntry: (entry: Entry) => void;
}

/** What a field shows at first, as it would be entered. */
export function initial(field: FieldRecord): Entry {
  return field.entry ?? "";
}

export function Field({ field, entry, wrong, onChange }: Props) {
  const id = useId();
  const [replaced, setReplaced] = useState(false);
  const was = initial(field);
  const isKept = field.kind === "kept" && !replaced;
  const attributes = {
    id,
    "aria-describedby": [`${id}-hint`, wrong && `${id}-wrong`].filter(Boolean).join(" "),
    "aria-invalid": wrong ? "true" : undefined,
    "aria-required": field.required ? "true" : undefined,
  };
  // What is as it was does not travel: the kernel has the very value. A replaced one always does.
  const change = (now: Entry) => onChange(now === was && field.kind !== "kept" ? undefined : now);
  const control = { field, value: entry ?? was, attributes, onEntry: change };
  const swap = () => {
    setReplaced(!replaced);
    onChange(replaced ? undefined : "");
  };
  return (
    <div class="amltk-field" data-changed={entry !== undefined}>
      <div class="amltk-field-name">
        {isKept ? <code>{visible(field.label)}</code> : <label for={id}><code>{visible(field.label)}</code></label>}
        <span id={`${id}-hint`} class="amltk-muted">
          {visible(field.hint)}
          {field.required && <span class="amltk-required"> required</span>}
          {entry !== undefined && field.entry !== null && <span class="amltk-changed"> changed</span>}
        </span>
      </div>
      <div class="amltk-field-value">
        {isKept ? <code class="amltk-kept">{visible(field.text ?? "")}</code> : <Control {...control} />}
        {field.kind === "kept" && (
          <button type="button" class="amltk-link" aria-label={`${replaced ? "Keep" : "Replace"} ${field.label}`} onClick={swap}>
            {replaced ? "Keep" : "Replace"}
          </button>
        )}
        {wrong && <p id={`${id}-wrong`} class="amltk-wrong amltk-is-failed"><span aria-hidden="true">✕ </span>{visible(wrong)}</p>}
      </div>
    </div>
  );
}

function Control(props: ControlProps) {
  switch (props.field.kind) {
    case "bool":
      return <Checkbox {...props} />;
    case "choice":
      return <Choice {...props} />;
    case "slider":
      return <Slider {...props} />;
    default:
      return <Line {...props} />;
  }
}

function Checkbox({ value, attributes, onEntry }: ControlProps) {
  return (
    <input type="checkbox" checked={value === true} {...attributes} onChange={(event) => onEntry(event.currentTarget.checked)} />
  );
}

function Choice({ field, value, attributes, onEntry }: ControlProps) {
  return (
    <select value={String(value)} {...attributes} onChange={(event) => onEntry(Number(event.currentTarget.value))}>
      {field.options?.map((label, i) => <option key={i} value={String(i)}>{visible(label)}</option>)}
    </select>
  );
}

function Slider({ field, value, attributes, onEntry }: ControlProps) {
  const [low, high, step] = field.limits ?? [];
  return (
    <>
      <input type="range" min={low} max={high} step={step} value={String(value)} {...attributes} onInput={(event) => onEntry(event.currentTarget.value)} />
      <output for={attributes.id as string}>{String(value)}</output>
    </>
  );
}

/** Text as it is typed; how it was at first says how much room it gets. */
function Line({ field, value, attributes, onEntry }: ControlProps) {
  const was = String(initial(field));
  const shared = {
    ...attributes,
    value: String(value),
    class: field.kind === "text" ? undefined : "amltk-code",
    spellcheck: false,
    autocomplete: "off",
    autocapitalize: "off" as const,
    onInput: (event: { currentTarget: { value: string } }) => onEntry(event.currentTarget.value),
  };
  if (was.length > LONG_CHARS || was.includes("\n")) return <textarea rows={3} {...shared} />;
  return <input type="text" placeholder={example(field)} {...shared} />;
}

/** What may be typed; not alone, or it would look like a value that is there. */
function example(field: FieldRecord): string | undefined {
  if (field.label.startsWith("**")) return 'like {"a": 1, "b": 2}';
  if (field.label.startsWith("*")) return "like [1, 2]";
  return EXAMPLES[field.kind];
}

const EXAMPLES: Record<string, string> = {
  int: "like 3",
  float: "like 2.5",
  number: "like 3 or 2.5",
  literal: 'like 3, "text", [1, 2] or None',
  kept: 'like 3, "text", [1, 2] or None',
};
