// The small pieces that all views share: a state with its icon and word, a button that asks.

import { useId } from "preact/hooks";
import type { ComponentChildren } from "preact";
import { useConnection } from "./hooks";
import type { CommandName } from "./wire";

const ICONS: Record<string, string> = {
  idle: "○",
  queued: "○",
  running: "◐",
  done: "✓",
  failed: "✕",
  cancelled: "⊘",
  paused: "‖",
  stopping: "■",
};

export function Icon({ tone }: { tone: string }) {
  return <span aria-hidden="true" class={`amltk-icon amltk-is-${tone}`}>{ICONS[tone] ?? "○"}</span>;
}

/** A state by icon, word and colour, never by colour alone. */
export function State(props: { word: string; tone?: string; label?: string }) {
  const tone = props.tone ?? props.word;
  return (
    <span class={`amltk-state amltk-is-${tone}`}>
      <Icon tone={tone} />
      {props.label ?? props.word}
    </span>
  );
}

interface AskProps {
  name: CommandName;
  args?: Record<string, unknown>;
  label: string;
  spoken?: string; // where several buttons have the same label: what this one is for
  hint?: string;
  reason?: string | undefined; // why it cannot be pressed now
  kind?: string;
  room?: string; // the longest label that it gets, for which it keeps room
}

/** A button that sends one command and shows at once that it was received. */
export function Ask({ name, args = {}, label, spoken = label, hint, reason, kind, room }: AskProps) {
  const line = useConnection();
  const id = useId();
  const key = `${name} ${JSON.stringify(args)}`;
  const asked = line.askedSince(key) !== undefined;
  const why = line.lost() ? "Disconnected: the kernel does not answer." : reason;
  // aria-disabled keeps it in the tab order, so that the reason can be reached and focus stays.
  return (
    <button
      type="button"
      class={`amltk-button ${kind ?? ""}`}
      aria-label={spoken}
      aria-busy={asked}
      aria-disabled={asked || why !== undefined}
      aria-describedby={why ? id : undefined}
      title={why ?? hint}
      onClick={() => {
        if (!asked && why === undefined) void line.press(name, args, key);
      }}
    >
      <span class="amltk-stack" data-asked={asked}>
        <span>{label}</span>
        {room && <span class="amltk-room" aria-hidden="true">{room}</span>}
        <span>asked…</span>
      </span>
      {why && <span id={id} class="amltk-hidden">{why}</span>}
    </button>
  );
}

/**
 * One part of the dashboard with its heading. A group and not a region: a notebook holds many
 * dashboards, and landmarks that repeat lead nowhere.
 */
export function Section(props: {
  id: string;
  title: string;
  note?: string | undefined; // a word on the whole of it, beside the heading
  aside?: ComponentChildren;
  children: ComponentChildren;
}) {
  const id = useId();
  return (
    <div role="group" class={`amltk-section amltk-at-${props.id}`} aria-labelledby={id}>
      <div class="amltk-section-head">
        <h3 id={id} class="amltk-h">{props.title}</h3>
        {props.note && <span class="amltk-waits amltk-note">{props.note}</span>}
        {props.aside}
      </div>
      {props.children}
    </div>
  );
}

/** What to do to see something here. */
export function Empty(props: { children: ComponentChildren }) {
  return <p class="amltk-empty">{props.children}</p>;
}
