// The calls that a form made, the latest first, with what became of them.

import { useEffect, useRef, useState } from "preact/hooks";
import { callWord } from "./engine";
import { oneLine } from "./format";
import { useConnection } from "./hooks";
import { addRows, findCall, isEnded } from "./page";
import { Empty, Section, State } from "./parts";
import type { CallRecord, Detail } from "./wire";

const RESULT_CHARS = 300;

export function FormCalls() {
  const ids = useIds();
  useMissing(ids);
  return (
    <Section id="made" title="Calls of this form">
      {ids.length === 0 ? (
        <Empty>None yet: press Submit, and the call is shown here.</Empty>
      ) : (
        <div class="amltk-scroll amltk-short" role="group" aria-label="Calls of this form" tabIndex={0}>
          <table class="amltk-table amltk-made">
            <thead>
              <tr>
                <th scope="col" class="amltk-col-id">Id</th>
                <th scope="col">Arguments</th>
                <th scope="col" class="amltk-col-state">State</th>
                <th scope="col">Result</th>
              </tr>
            </thead>
            <tbody>{ids.map((id) => <Made key={id} id={id} />)}</tbody>
          </table>
        </div>
      )}
    </Section>
  );
}

function Made({ id }: { id: number }) {
  const { page } = useConnection();
  const call = findCall(page, id);
  const result = useResult(id, call);
  const word = call && callWord(call, page.model.backend.get("backend"));
  const outcome = call?.error ?? result ?? "";
  return (
    <tr class="amltk-line">
      <td class="amltk-col-id">{id}</td>
      <td title={oneLine(call?.args ?? "")}><code>{oneLine(call?.args ?? "")}</code></td>
      <td class="amltk-col-state">{call && <State word={call.state} label={word ?? call.state} />}</td>
      <td class={call?.error ? "amltk-is-failed" : ""} title={oneLine(outcome)}><code>{oneLine(outcome)}</code></td>
    </tr>
  );
}

/** The ids of the calls, which the kernel tells all pages of this form. */
function useIds(): number[] {
  const line = useConnection();
  const [ids, setIds] = useState<number[]>([]);
  useEffect(() => line.follow("calls", (value) => setIds(Array.isArray(value) ? value.map(Number) : [])), [line]);
  return ids;
}

/** Ask once for each call that is not among those the page was sent. */
function useMissing(ids: readonly number[]): void {
  const line = useConnection();
  const asked = useRef(new Set<number>());
  useEffect(() => {
    for (const id of ids) {
      if (findCall(line.page, id) || asked.current.has(id)) continue;
      asked.current.add(id);
      void line.ask("rows", { before: id + 1, limit: 1 }, `row ${id}`).then((reply) => {
        const { rows } = (reply.value ?? { rows: [] }) as { rows: CallRecord[] };
        line.update(addRows(line.page, rows.filter((row) => row.id === id)));
      });
    }
  }, [ids]);
}

/** What a call returned, asked for once it has ended. */
function useResult(id: number, call: CallRecord | undefined): string | undefined {
  const line = useConnection();
  const [text, setText] = useState<string>();
  const done = call?.state === "done" && isEnded(call);
  useEffect(() => {
    if (!done) return;
    void line.ask("detail", { call: id }, `result ${id}`).then((reply) => {
      const result = reply.ok ? (reply.value as Detail).result : null;
      setText(result === null ? "" : result.slice(0, RESULT_CHARS));
    });
  }, [id, done]);
  return text;
}
