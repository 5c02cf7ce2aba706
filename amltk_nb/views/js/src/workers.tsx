// Who runs the calls: one line per worker, and of a crowd a count per machine and the first ones.

import { closedReason } from "./controls";
import { shortName } from "./engine";
import { number, oneLine, plural, ticking } from "./format";
import { useConnection, useSeconds } from "./hooks";
import { findCall, type Page } from "./page";
import { Ask, Empty, Section, State } from "./parts";
import type { BackendRecord, MachineRecord, WorkerRecord } from "./wire";

const TONES: Record<string, string> = { busy: "running", starting: "paused" };

export function Workers({ alone }: { alone: boolean }) {
  const line = useConnection();
  const { page } = line;
  useSeconds(line.live() && page.model.workers.size > 0);
  const backend = page.model.backend.get("backend");
  const there = backend?.n_there ?? page.model.workers.size;
  if (!backend || (there === 0 && backend.waiting_for === undefined && !alone)) return null;
  return (
    <Section id="workers" title="Workers" aside={<Restart page={page} backend={backend} />}>
      {there === 0 && <Empty>{nobody(backend)}</Empty>}
      {page.model.machines.size > 0 && <Machines machines={inOrder(page.model.machines)} of={there} />}
      {page.model.workers.size > 0 && (
        <Named workers={inOrder(page.model.workers)} page={page} now={line.now()} seek={alone ? undefined : (id) => line.seek(id)} />
      )}
      <Rest n={there - page.model.workers.size} toCome={backend.n_to_come ?? 0} />
    </Section>
  );
}

function nobody(backend: BackendRecord): string {
  if (backend.n_to_come) return "Nobody is there yet: they start with the first calls.";
  return backend.waiting_for === undefined ? "Nobody is there: workers come with a run." : "Nobody is there now.";
}

function Restart({ page, backend }: { page: Page; backend: BackendRecord }) {
  const state = page.model.run.get("run")?.state;
  const over = state === "running" || state === "paused" ? undefined : "Nothing is running.";
  return (
    <Ask
      name="restart_workers"
      label="Restart workers"
      hint="Replace the workers, so that edited modules are imported anew; running calls finish"
      reason={closedReason(page.phase) ?? backend.cannot_restart ?? over}
    />
  );
}

function Machines({ machines, of }: { machines: [string, MachineRecord][]; of: number }) {
  const nElsewhere = of - machines.reduce((sum, [, machine]) => sum + machine.n_workers, 0);
  return (
    <>
      <div class="amltk-scroll amltk-short" role="group" aria-label="Table of machines" tabIndex={0}>
        <table class="amltk-table amltk-machines">
          <thead>
            <tr>
              <th scope="col">Machine</th>
              <th scope="col" class="amltk-col-count">Workers</th>
              <th scope="col" class="amltk-col-count">Busy</th>
            </tr>
          </thead>
          <tbody>
            {machines.map(([name, machine]) => (
              <tr key={name} class="amltk-line">
                <td title={oneLine(name)}>{oneLine(name)}</td>
                <td class="amltk-col-count">{number(machine.n_workers)}</td>
                <td class="amltk-col-count">{number(machine.n_busy)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {nElsewhere > 0 && <p class="amltk-muted amltk-rest">and {plural(nElsewhere, "worker")} on other machines</p>}
    </>
  );
}

interface NamedProps {
  workers: [string, WorkerRecord][];
  page: Page;
  now: number;
  seek?: ((call: number) => void) | undefined;
}

function Named({ workers, page, now, seek }: NamedProps) {
  const anyWhere = workers.some(([, worker]) => worker.where !== undefined);
  const anyPid = workers.some(([, worker]) => worker.pid !== undefined);
  return (
    <div class="amltk-scroll amltk-short" role="group" aria-label="Table of workers" tabIndex={0}>
      <table class="amltk-table amltk-workers">
        <thead>
          <tr>
            <th scope="col" class="amltk-col-name">Worker</th>
            <th scope="col" class="amltk-col-doing">State</th>
            <th scope="col">Call</th>
            <th scope="col" class="amltk-col-time">Time</th>
            {anyWhere && <th scope="col" class="amltk-col-where">Machine</th>}
            {anyPid && <th scope="col" class="amltk-col-pid">Process</th>}
          </tr>
        </thead>
        <tbody>
          {workers.map(([name, worker]) => (
            <tr key={name} class="amltk-line">
              <td class="amltk-col-name" title={oneLine(name)}>{shortName(name)}</td>
              <td class="amltk-col-doing"><State word={oneLine(worker.state)} tone={TONES[worker.state] ?? "idle"} /></td>
              <td><Doing worker={worker} page={page} seek={seek} /></td>
              <td class="amltk-col-time">{since(worker, page, now)}</td>
              {anyWhere && <td class="amltk-col-where" title={oneLine(worker.where ?? "")}>{oneLine(worker.where ?? "–")}</td>}
              {anyPid && <td class="amltk-col-pid">{worker.pid ?? "–"}</td>}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

/** The call that a worker has, which leads to its row; engines may hand it several. */
function Doing({ worker, page, seek }: Pick<NamedProps, "page" | "seek"> & { worker: WorkerRecord }) {
  const id = worker.call;
  if (id === undefined) return <span class="amltk-muted">–</span>;
  const call = findCall(page, id);
  const name = `call ${id}`;
  return (
    <>
      {seek ? <button type="button" class="amltk-link" onClick={() => seek(id)}>{name}</button> : name}
      {worker.n_calls !== undefined && <span class="amltk-muted"> and {number(worker.n_calls - 1)} more</span>}
      {call && <code class="amltk-muted amltk-what"> {oneLine(call.function)}({oneLine(call.args)})</code>}
    </>
  );
}

function since(worker: WorkerRecord, page: Page, now: number): string {
  const at = worker.call === undefined ? undefined : findCall(page, worker.call)?.started_at;
  return at === undefined ? "–" : ticking(now - at);
}

function Rest({ n, toCome }: { n: number; toCome: number }) {
  if (n <= 0 && toCome === 0) return null;
  const parts = [n > 0 && `${number(n)} more`, toCome > 0 && `${plural(toCome, "worker")} that ${toCome === 1 ? "starts" : "start"} when needed`];
  return <p class="amltk-muted amltk-rest">and {parts.filter(Boolean).join(", ")}</p>;
}

function inOrder<T extends { order: number }>(records: ReadonlyMap<string, T>): [string, T][] {
  return [...records].sort(([, a], [, b]) => a.order - b.order);
}
