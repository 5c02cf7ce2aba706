import { act } from "preact/test-utils";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { comeAndGone, trafficText } from "../src/announcer";
import { EMPTY, reduce, type Page } from "../src/page";
import { startsIn } from "../src/row";
import type { BackendRecord, WireModel, WorkerRecord } from "../src/wire";
import { AT, byId, call, closeAll, counts, Kernel, model } from "./kernel";

beforeEach(() => {
  vi.useFakeTimers({ now: AT * 1000, toFake: ["Date", "setInterval", "clearInterval", "setTimeout", "clearTimeout"] });
});

afterEach(async () => {
  await closeAll();
  vi.useRealTimers();
  document.body.replaceChildren();
});

async function seconds(n: number): Promise<void> {
  for (let i = 0; i < n; i++) await act(() => void vi.advanceTimersByTime(1000));
}

const A = "tcp://10.0.0.7:40013";
const B = "tcp://10.0.0.8:40113";

function dask(fields: Partial<BackendRecord> = {}): WireModel["backend"] {
  const known: BackendRecord = {
    name: "DaskExecutor", options: { n_workers: 2 }, n_workers: 2, n_there: 2,
    reports_start: false, no_workers_after_s: 10, cannot_restart: "they are not replaced",
  };
  return { backend: { ...known, ...fields } };
}

function waiting(fields: Partial<BackendRecord> = {}): WireModel["backend"] {
  return dask({ n_workers: 0, n_there: 0, waiting_for: "workers of DaskExecutor", waiting_since: AT - 3, hint: "Start some.", ...fields });
}

const TWO: Record<string, WorkerRecord> = {
  [A]: { state: "busy", call: 3, pid: 71, where: "node-07", order: 0 },
  [B]: { state: "idle", where: "node-08", order: 1 },
};

function at(shown: Partial<WireModel>) {
  return reduce(EMPTY, { kind: "full", schema: 1, version: 1, at: 0, model: model(shown) }).page;
}

const cells = (kernel: Kernel, table: string) =>
  [...kernel.el.querySelectorAll(`${table} tbody tr`)].map((tr) => [...tr.querySelectorAll("td")].map((td) => td.textContent));

describe("the journal", () => {
  const run = { name: "demo", state: "running", n: 1, started_at: AT - 10, journal: "journal run.db" } as const;

  test("is named in the header, without a warning while all is well", async () => {
    const kernel = await new Kernel(["header"]).open(model({ run: { run }, backend: dask() }));
    expect(kernel.text(".amltk-meta")).toBe("10 sDaskExecutor(n_workers=2)2 workersjournal run.db");
    expect(kernel.text(".amltk-advice")).toBe("");
  });

  test("is missed by nobody who has none", async () => {
    const kernel = await new Kernel(["header"]).open(model({ backend: dask() }));
    expect(kernel.el.querySelector(".amltk-journal")).toBeNull();
  });

  test("warns as soon as it lacks entries, and when the run is over, too", async () => {
    const kernel = await new Kernel(["header"]).open(model({ run: { run } }));
    const warning = "The journal lacks 12 entries, so recover() may not find all calls; the log says why.";
    await kernel.patch({ run: { upsert: { run: { ...run, journal_warning: warning } } } });
    expect(kernel.text(".amltk-advice")).toBe(warning);
    const over = { ...run, state: "finished", code: "exhausted", ended_at: AT, journal_warning: warning } as const;
    await kernel.patch({ run: { upsert: { run: over } } });
    expect(kernel.text(".amltk-advice")).toBe(warning);
    await kernel.patch({ run: { upsert: { run } } });
    expect(kernel.text(".amltk-advice")).toBe("");
  });
});

describe("the header", () => {
  test("names the engine as it was asked for, and its workers", async () => {
    const kernel = await new Kernel().open(model({ backend: dask() }));
    expect(kernel.text(".amltk-meta")).toBe("10 sDaskExecutor(n_workers=2)2 workers");
  });

  test("cuts options that would fill it", async () => {
    const kernel = await new Kernel().open(model({ backend: dask({ options: { job: "x".repeat(500) } }) }));
    expect(kernel.text(".amltk-engine")).toBe(`DaskExecutor(job=${"x".repeat(155)}…)`);
  });

  test("says what it waits for, and the seconds tick without a message", async () => {
    const kernel = await new Kernel(["header"]).open(model({ backend: waiting({ n_jobs_waiting: 2 }) }));
    expect(kernel.text(".amltk-meta")).toContain("waiting 3 s for workers of DaskExecutor2 jobs in the batch queue");
    expect(kernel.text(".amltk-advice")).toBe("");
    await seconds(6);
    expect(kernel.text(".amltk-meta")).toContain("waiting 9 s for");
    expect(kernel.text(".amltk-advice")).toBe("");
    await seconds(1);
    expect(kernel.text(".amltk-advice")).toBe("Start some.");
    await kernel.patch({ backend: { upsert: dask() } });
    expect(kernel.text(".amltk-meta")).toMatch(/DaskExecutor\(n_workers=2\)2 workers$/);
    expect(kernel.text(".amltk-advice")).toBe("");
  });

  test("promises no end while nobody is there", async () => {
    const ended = Array.from({ length: 9 }, (_, i) => call(i + 1, "done", { ended_at: AT - i, seconds: 2 }));
    const shown = { calls: byId(ended), counts: counts({ done: 9, queued: 5 }) };
    const kernel = await new Kernel().open(model({ ...shown, backend: dask() }));
    expect(kernel.text(".amltk-progress-text")).toContain("left");
    await kernel.patch({ backend: { upsert: waiting() } });
    expect(kernel.text(".amltk-progress-text")).not.toContain("left");
  });

  test("says what a stop waits for where running calls cannot be ended, and so does the button", async () => {
    const kernel = await new Kernel().open(model({ backend: dask({ cannot_end: "the workers are yours" }) }));
    expect(kernel.button("Stop").title).toBe("Take no more calls; running ones finish, for they cannot be ended: the workers are yours");
    await kernel.patch({ run: { upsert: { run: { name: "demo", state: "stopping", n: 1, started_at: AT - 10, stopping_since: AT } } } });
    expect(kernel.text(".amltk-advice")).toBe("It ends when the running calls do: the workers are yours.");
    expect(kernel.button("Stop again: end the running calls now").title).toBe("the workers are yours");
    await kernel.patch({ counts: { upsert: counts({ done: 4 }) } });
    expect(kernel.text(".amltk-advice")).toBe("");
  });
});

describe("the queue of an engine elsewhere", () => {
  test("says that calls wait because nobody is there", async () => {
    const kernel = await new Kernel().open(model({ backend: waiting() }));
    expect(kernel.text(".amltk-at-queue .amltk-note")).toBe("1 call waits for workers of DaskExecutor");
    await kernel.click("Call 4, details");
    expect(kernel.text(".amltk-facts")).toContain("Waits forworkers of DaskExecutor");
    await kernel.patch({ backend: { upsert: dask() } });
    expect(kernel.text(".amltk-at-queue .amltk-note")).toBe("");
    expect(kernel.text(".amltk-facts")).not.toContain("Waits for");
  });

  test("says of running calls that they were handed over, until they report", async () => {
    const kernel = await new Kernel().open(model({ backend: dask() }));
    const state = () => kernel.text('tr[data-call="3"] .amltk-state');
    expect(state()).toBe("◐handed over");
    expect([...kernel.el.querySelectorAll(".amltk-chip")].map((chip) => chip.textContent)).toContain("◐handed over 1");
    await kernel.patch({ calls: { upsert: byId([call(3, "running", { started_at: AT - 5, progress: { text: "1/2", share: 0.5 } })]) } });
    expect(state()).toBe("◐running");
  });

  test("shows where a call runs, without the scheme in the row and in full when it is open", async () => {
    const calls = byId([call(3, "running", { started_at: AT - 5, worker: A })]);
    const kernel = await new Kernel().open(model({ backend: dask(), calls, workers: TWO }));
    expect(kernel.text('tr[data-call="3"] .amltk-col-worker')).toBe("10.0.0.7:40013");
    await kernel.click("Call 3, details");
    expect(kernel.text(".amltk-facts")).toContain(`Worker${A}Machinenode-07`);
    expect(kernel.text(".amltk-facts")).toMatch(/Handed over\d\d:/);
    await kernel.patch({ calls: { upsert: byId([call(3, "done", { started_at: AT - 5, ended_at: AT, seconds: 5 })]) } });
    expect(kernel.text(".amltk-facts")).toMatch(/Started\d\d:/);
  });

  test("counts down to the time of a call that is held back", async () => {
    const held = call(4, "queued", { not_before: AT + 5, attempt: 2 });
    const kernel = await new Kernel(["queue"]).open(model({ calls: byId([held]) }));
    await kernel.click("Call 4, details");
    expect(kernel.text('tr[data-call="4"] .amltk-col-time')).toBe("in 5 s");
    expect(kernel.text(".amltk-facts")).toMatch(/Starts\d\d:\d\d:25 \(in 5 s\)/);
    await seconds(4);
    expect(kernel.text('tr[data-call="4"] .amltk-col-time')).toBe("in 1 s");
    await seconds(1);
    expect(kernel.text('tr[data-call="4"] .amltk-col-time')).toBe("now");
  });

  test.each([[-1, "now"], [0.2, "in 1 s"], [99, "in 99 s"], [99.5, "in 2 min"], [5940, "in 99 min"], [7201, "in 3 h"]])("%d s ahead is %s", (s, text) => {
    expect(startsIn(s)).toBe(text);
  });

  test("shows a long result in part, and all of it when asked", async () => {
    const kernel = await new Kernel().open();
    await kernel.click("Call 1, details");
    const detail = { call: 1, state: "done", function: "f", arguments: [], error: null, output: null, resubmitted_from: null };
    await kernel.reply("detail", { ...detail, result: "r".repeat(12_345) });
    expect(kernel.text(".amltk-block pre")).toBe("r".repeat(600) + "…");
    await kernel.click("Show all 12,345 characters");
    expect(kernel.text(".amltk-block pre")).toBe("r".repeat(12_345));
    expect(kernel.button("Show less").getAttribute("aria-expanded")).toBe("true");
    await kernel.click("Show less");
    expect(kernel.text(".amltk-block pre").length).toBe(601);
  });

  test("says when no more of a result is left", async () => {
    const kernel = await new Kernel().open();
    await kernel.click("Call 1, details");
    const detail = { call: 1, state: "done", function: "f", arguments: [], error: null, output: null, resubmitted_from: null };
    await kernel.reply("detail", { ...detail, result: "[0, 1, ...]", result_is_part: true });
    expect(kernel.text(".amltk-block")).toBe("Result[0, 1, ...]Only this much is left: a result lives as long as somebody keeps its future.");
  });
});

describe("the workers", () => {
  test("are a line each: what it has and since when, where it is", async () => {
    const kernel = await new Kernel().open(model({ backend: dask(), workers: TWO }));
    expect(cells(kernel, ".amltk-workers")).toEqual([
      ["10.0.0.7:40013", "◐busy", "call 3 f(3)", "5 s", "node-07", "71"],
      ["10.0.0.8:40113", "○idle", "–", "–", "node-08", "–"],
    ]);
    await seconds(2);
    expect(cells(kernel, ".amltk-workers")[0]?.[3]).toBe("7 s");
  });

  test("of this machine have no column for it", async () => {
    const workers = { "worker-1": { state: "busy", call: 3, pid: 41, order: 0 }, "worker-2": { state: "starting", order: 1 } };
    const kernel = await new Kernel().open(model({ workers }));
    const heads = [...kernel.el.querySelectorAll(".amltk-workers th")].map((th) => th.textContent);
    expect(heads).toEqual(["Worker", "State", "Call", "Time", "Process"]);
  });

  test("with several calls say how many more", async () => {
    const workers = { [A]: { state: "busy", call: 3, n_calls: 4, order: 0 } };
    const kernel = await new Kernel().open(model({ backend: dask({ n_there: 1 }), workers }));
    expect(cells(kernel, ".amltk-workers")[0]?.[2]).toBe("call 3 and 3 more f(3)");
  });

  test("lead to the row of a call, whatever was chosen in the queue", async () => {
    const kernel = await new Kernel().open(model({ backend: dask(), workers: TWO }));
    await kernel.type("Filter the calls by text", "nothing has this");
    expect(kernel.rows()).toEqual([]);
    await kernel.click("call 3");
    expect(kernel.button("Call 3, details").getAttribute("aria-expanded")).toBe("true");
    expect(document.activeElement).toBe(kernel.button("Call 3, details"));
    expect(kernel.take("detail").args).toEqual({ call: 3 });
  });

  test("lead to a call that is not here by fetching it", async () => {
    const workers = { [A]: { state: "busy", call: 77, order: 0 } };
    const kernel = await new Kernel().open(model({ backend: dask(), workers, counts: counts({ running: 90 }) }));
    await kernel.click("call 77");
    expect((await kernel.reply("rows", { rows: [call(77, "running")] })).args).toEqual({ before: 78, limit: 1 });
    expect(document.activeElement).toBe(kernel.button("Call 77, details"));
  });

  test("alone name the call, since there is no row to go to", async () => {
    const kernel = await new Kernel(["workers"]).open(model({ workers: TWO }));
    expect(cells(kernel, ".amltk-workers")[0]?.[2]).toBe("call 3 f(3)");
    expect(kernel.buttons().map((button) => button.getAttribute("aria-label"))).toEqual(["Restart workers"]);
  });

  test("of a crowd are counted by machine, and the first are named", async () => {
    const machines = { "node-01": { n_workers: 32, n_busy: 30, order: 1 }, "node-00": { n_workers: 40, n_busy: 0, order: 0 } };
    const kernel = await new Kernel().open(model({ backend: dask({ n_workers: 1000, n_there: 1000 }), workers: TWO, machines }));
    expect(cells(kernel, ".amltk-machines")).toEqual([["node-00", "40", "0"], ["node-01", "32", "30"]]);
    const rest = [...kernel.el.querySelectorAll(".amltk-rest")].map((p) => p.textContent);
    expect(rest).toEqual(["and 928 workers on other machines", "and 998 more"]);
  });

  test("that are yet to come are counted and not named", async () => {
    const kernel = await new Kernel().open(model({ backend: dask({ n_there: 0, n_to_come: 2 }) }));
    expect(kernel.el.querySelector(".amltk-at-workers")).toBeNull();
    await kernel.patch({ backend: { upsert: dask({ n_there: 1, n_to_come: 1 }) }, workers: { upsert: { [A]: TWO[A] as WorkerRecord } } });
    expect(kernel.text(".amltk-rest")).toBe("and 1 worker that starts when needed");
  });

  test("are replaced by a button, where they can be", async () => {
    const kernel = await new Kernel().open(model({ workers: TWO }));
    await kernel.click("Restart workers");
    expect(kernel.take("restart_workers").args).toEqual({});
    await kernel.patch({ backend: { upsert: dask() } });
    expect(kernel.button("Restart workers").title).toBe("they are not replaced");
  });

  test("nobody there is said", async () => {
    const kernel = await new Kernel().open(model({ backend: waiting() }));
    expect(kernel.text(".amltk-at-workers .amltk-empty")).toBe("Nobody is there now.");
  });
});

describe("what is announced", () => {
  const told = (before: Page, now: Page) => trafficText(comeAndGone(before, now), now);
  const [none, one, two] = [at({ backend: dask({ n_there: 0 }) }), at({ workers: { [A]: TWO[A] as WorkerRecord } }), at({ workers: TWO })];

  test.each([
    [none, two, "2 workers came, 2 now."],
    [two, one, "1 worker went, 1 now."],
    [one, at({ workers: { [B]: TWO[B] as WorkerRecord } }), "1 worker came, 1 worker went, 1 now."],
    [two, two, ""],
    [EMPTY, two, ""],
  ])("of workers: case %#", (before, now, said) => {
    expect(told(before, now)).toBe(said);
  });

  test("of a crowd is only how many more or fewer there are", () => {
    const crowd = (n: number, name: string) =>
      at({ backend: dask({ n_there: n }), workers: { [name]: { state: "idle", order: 0 } }, machines: { m: { n_workers: n, n_busy: 0, order: 0 } } });
    expect(told(crowd(100, "a"), crowd(90, "b"))).toBe("10 workers went, 90 now.");
    expect(told(crowd(90, "a"), crowd(1090, "b"))).toBe("1,000 workers came, 1,090 now.");
  });

  test("waiting and its end are told at once, advice when it is long, seconds never", async () => {
    const kernel = await new Kernel().open(model({ backend: waiting(), counts: counts({ queued: 1 }), calls: byId([call(1, "queued")]) }));
    const said = () => kernel.text('[role="status"]');
    expect(said()).toBe("demo running. 0 of 1 call ended. Waiting for workers of DaskExecutor.");
    await seconds(7);
    await kernel.tell({ kind: "beat" });
    expect(said()).toBe("demo running. 0 of 1 call ended. Waiting for workers of DaskExecutor. Start some.");
    await kernel.patch({ backend: { upsert: dask() }, workers: { upsert: TWO } });
    expect(said()).toBe("demo running. 0 of 1 call ended. 2 workers came, 2 now.");
  });

  test("a worker that goes just after a milestone is told two seconds later, once", async () => {
    const kernel = await new Kernel().open(model({ backend: dask(), workers: TWO, counts: counts({ running: 1 }) }));
    const said = () => kernel.text('[role="status"]');
    await seconds(3);
    await kernel.patch({ counts: { upsert: counts({ failed: 1 }) } });
    const failed = "demo running. 1 of 1 call ended: 1 failed.";
    expect(said()).toBe(failed);
    await kernel.patch({ backend: { upsert: dask({ n_there: 1 }) }, workers: { remove: [A] } });
    await seconds(1);
    await kernel.tell({ kind: "beat" });
    expect(said()).toBe(failed);
    await seconds(1);
    await kernel.tell({ kind: "beat" });
    expect(said()).toBe(`${failed} 1 worker went, 1 now.`);
    await seconds(10);
    await kernel.tell({ kind: "beat" });
    expect(said()).toBe(failed);
  });

  test("what a milestone replaced before it was heard is told again with it", async () => {
    const kernel = await new Kernel().open(model({ backend: dask(), workers: TWO, counts: counts({ running: 1 }) }));
    const said = () => kernel.text('[role="status"]');
    await seconds(3);
    await kernel.patch({ backend: { upsert: dask({ n_there: 1 }) }, workers: { remove: [A] } });
    expect(said()).toBe("demo running. 0 of 1 call ended. 1 worker went, 1 now.");
    await seconds(1);
    await kernel.patch({ counts: { upsert: counts({ failed: 1 }) } });
    expect(said()).toBe("demo running. 1 of 1 call ended: 1 failed. 1 worker went, 1 now.");
  });

  test("a worker that comes and goes unheard of is counted twice", async () => {
    const kernel = await new Kernel().open(model({ backend: dask({ n_there: 1 }), workers: { [A]: TWO[A] as WorkerRecord } }));
    const b = { [B]: TWO[B] as WorkerRecord };
    await kernel.patch({ backend: { upsert: dask() }, workers: { upsert: b } });
    await kernel.patch({ backend: { upsert: dask({ n_there: 1 }) }, workers: { remove: [B] } });
    await seconds(2);
    await kernel.tell({ kind: "beat" });
    expect(kernel.text('[role="status"]')).toMatch(/ 1 worker came, 1 worker went, 1 now\.$/);
  });
});
