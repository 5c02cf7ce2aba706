// What callbacks printed and logged, newest last, with a filter and a copy.

import { useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { clockTime, number, oneLine, visible } from "./format";
import { memo } from "./hooks";
import type { Model } from "./page";
import { Empty, Section } from "./parts";
import type { LogRecord } from "./wire";

type Entry = [string, LogRecord];

export const Log = memo(({ log }: { log: Model["log"] }) => {
  const [text, setText] = useState("");
  const shown = useMemo(() => filtered(log, text), [log, text]);
  const tools = (
    <div class="amltk-tools">
      <input
        type="search"
        placeholder="Filter"
        aria-label="Filter the log"
        value={text}
        onInput={(event) => setText(event.currentTarget.value)}
      />
      <CopyButton entries={shown} />
    </div>
  );
  return (
    <Section id="log" title="Log" aside={tools}>
      <Lines entries={shown} />
      {log.size === 0 && <Empty>Nothing yet. What callbacks print in the background is shown here.</Empty>}
      {log.size > 0 && shown.length === 0 && <Empty>None of {number(log.size)} entries has this text.</Empty>}
    </Section>
  );
});

function Lines({ entries }: { entries: Entry[] }) {
  const box = useRef<HTMLDivElement>(null);
  const atEnd = useRef(true);
  useLayoutEffect(() => {
    // Follow the end, unless the reader has scrolled up to read something.
    if (box.current && atEnd.current) box.current.scrollTop = box.current.scrollHeight;
  }, [entries]);
  if (entries.length === 0) return null;
  return (
    <div
      ref={box}
      class="amltk-log"
      role="group"
      aria-label="Log entries"
      tabIndex={0}
      onScroll={({ currentTarget: el }) => {
        atEnd.current = el.scrollHeight - el.scrollTop - el.clientHeight < 8;
      }}
    >
      <ol>
        {entries.map(([id, line]) => (
          <li key={id} data-level={line.level}>
            <time>{clockTime(line.at)}</time>
            <span class="amltk-source">{oneLine(line.source)}</span>
            <span class="amltk-text">
              {marked(line.level) && <strong>{line.level === "error" ? "✕ error" : "! warning"} </strong>}
              {visible(line.text)}
            </span>
          </li>
        ))}
      </ol>
    </div>
  );
}

function CopyButton({ entries }: { entries: Entry[] }) {
  const [said, setSaid] = useState("Copy");
  const copy = async () => {
    const text = entries.map(([, line]) => asText(line)).join("\n");
    setSaid((await copied(text)) ? "Copied" : "Not allowed");
    setTimeout(() => setSaid("Copy"), 2000);
  };
  return (
    <button type="button" class="amltk-button amltk-copy" onClick={() => void copy()}>
      {said}
    </button>
  );
}

async function copied(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false; // the host's page may forbid it, or not be secure
  }
}

function asText(line: LogRecord): string {
  return `${new Date(line.at * 1000).toISOString()} ${line.source} ${line.level}: ${line.text}`;
}

function marked(level: string): boolean {
  return level === "error" || level === "warning";
}

function filtered(log: Model["log"], text: string): Entry[] {
  const wanted = text.trim().toLowerCase();
  // Ids count up, so their order is the order of the lines.
  const entries = [...log].sort(([a], [b]) => Number(a) - Number(b));
  if (wanted === "") return entries;
  return entries.filter(([, l]) => `${l.source} ${l.level} ${l.text}`.toLowerCase().includes(wanted));
}
