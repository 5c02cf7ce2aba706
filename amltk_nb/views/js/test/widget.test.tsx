import { act } from "preact/test-utils";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
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

const DETAIL = {
  call: 2, state: "failed", function: "f", arguments: [{ name: "x", text: "2" }],
  result: null, error: "Traceback\nValueError: bad C", output: "fitting\n", resubmitted_from: null,
};

describe("the connection", () => {
  test("says hello and shows what comes", async () => {
    const kernel = new Kernel();
    await kernel.open();
    expect(kernel.sent).toEqual([]);
    expect(kernel.text(".amltk-name")).toBe("demo");
    expect(kernel.text(".amltk-title .amltk-state")).toBe("◐running");
    expect(kernel.text(".amltk-progress-text")).toContain("2 of 4 calls ended");
  });

  test("asks for everything when a patch is missing, once a second at most", async () => {
    const kernel = await new Kernel().open();
    await seconds(2);
    for (let i = 0; i < 3; i++) await kernel.tell({ kind: "patch", base: 40 + i, version: 41 + i, patch: {} });
    expect(kernel.sent.map((sent) => sent.name)).toEqual(["snapshot"]);
  });

  test("shows a notice when the kernel's side is of another version", async () => {
    const kernel = await new Kernel().open();
    await kernel.tell({ kind: "full", schema: 2, version: 9, model: {} });
    expect(kernel.text(".amltk-health")).toBe("This page's part of amltk_nb is older (1) than the kernel's (2): reload the page.");
    expect(kernel.button("Stop").getAttribute("aria-disabled")).toBe("true");
  });

  test("shows what a kernel of another version says to its hello", async () => {
    const kernel = new Kernel();
    await kernel.show();
    const why = "The kernel's amltk_nb is older (0) than this page's part (1): restart the kernel.";
    expect(kernel.sent[0]).toMatchObject({ name: "snapshot", args: { schema: 1 } });
    await kernel.refuse("snapshot", why);
    expect(kernel.text(".amltk-health")).toBe(why);
    expect(kernel.button("Start").getAttribute("aria-disabled")).toBe("true");
    await seconds(5);
    expect(kernel.sent).toEqual([]);
  });

  test("ticks its clock without any message, and says when the kernel is busy", async () => {
    const kernel = await new Kernel().open();
    expect(kernel.text(".amltk-meta")).toContain("10 s");
    await seconds(2);
    expect(kernel.text(".amltk-meta")).toContain("12 s");
    expect(kernel.text(".amltk-health")).toBe("");
    await seconds(2);
    expect(kernel.text(".amltk-health")).toBe("Kernel busy for 4 s");
    await seconds(28);
    expect(kernel.text(".amltk-health")).toBe("Kernel busy for 32 s, or gone");
    await kernel.tell({ kind: "beat" });
    expect(kernel.text(".amltk-health")).toBe("");
  });

  test("sets its clock by the kernel's", async () => {
    const kernel = await new Kernel().open();
    await kernel.tell({ kind: "beat", at: AT + 100 });
    expect(kernel.text(".amltk-meta")).toContain("1 min 50 s");
  });

  test("says disconnected and greys out after long silence, and recovers", async () => {
    const kernel = await new Kernel().open();
    vi.setSystemTime((AT + 400) * 1000);
    await seconds(1);
    expect(kernel.text(".amltk-health")).toContain("Disconnected");
    await kernel.lose();
    expect(kernel.el.querySelector(".amltk-all")?.getAttribute("data-lost")).toBe("true");
    expect(kernel.button("Pause").title).toContain("Disconnected");
    await kernel.reply("snapshot", null);
    expect(kernel.el.querySelector(".amltk-all")?.getAttribute("data-lost")).toBe("false");
    expect(kernel.text(".amltk-health")).toBe("");
  });

  test("says disconnected when the host has lost the kernel and nothing can be sent", async () => {
    const kernel = await new Kernel().open();
    kernel.broken = true;
    await kernel.lose();
    expect(kernel.text(".amltk-health")).toContain("Disconnected");
    expect(kernel.button("Stop").getAttribute("aria-disabled")).toBe("true");
  });

  test("shows that it could not send", async () => {
    const kernel = await new Kernel().open();
    kernel.broken = true;
    await kernel.click("Stop");
    expect(kernel.text(".amltk-notice")).toContain("comm closed");
  });

  test("lets go of everything when its place is removed", async () => {
    const kernel = await new Kernel().open();
    expect(kernel.listening()).toEqual(["msg:custom", "comm_live_update"]);
    expect(vi.getTimerCount()).toBe(1);
    await kernel.close();
    expect(kernel.listening()).toEqual([]);
    expect(kernel.el.childNodes.length).toBe(0);
    expect(vi.getTimerCount()).toBe(0);
  });
});

describe("buttons", () => {
  test.each([
    ["Pause", "pause", {}],
    ["Stop", "stop", {}],
    ["Stop now", "stop_now", {}],
    ["Resubmit failed (1)", "resubmit_failed", {}],
    ["Cancel call 4", "cancel", { call: 4 }],
    ["End call 3", "cancel", { call: 3 }],
    ["Resubmit call 2", "resubmit", { call: 2 }],
  ])("%s asks for %s, says so at once and only once", async (label, name, args) => {
    const kernel = await new Kernel().open();
    await kernel.click(label);
    expect(kernel.sent.map((sent) => [sent.kind, sent.name, sent.args])).toEqual([["command", name, args]]);
    expect(kernel.button(label).getAttribute("aria-busy")).toBe("true");
    await kernel.click(label);
    expect(kernel.sent.length).toBe(1);
    expect(kernel.text(".amltk-title .amltk-state")).toBe("◐running");
    await kernel.reply(name, null);
    expect(kernel.button(label).getAttribute("aria-busy")).toBe("false");
  });

  test("a reply to another page's command is not ours", async () => {
    const kernel = await new Kernel().open();
    await kernel.click("Stop");
    await kernel.tell({ kind: "reply", id: 3, ok: true, error: null, value: null });
    expect(kernel.button("Stop").getAttribute("aria-busy")).toBe("true");
  });

  test("a refusal is shown until it is dismissed", async () => {
    const kernel = await new Kernel().open();
    await kernel.click("Pause");
    await kernel.refuse("pause", "It is <b>stopping</b>.");
    expect(kernel.text(".amltk-notice span")).toBe("It is <b>stopping</b>.");
    await kernel.click("Dismiss");
    expect(kernel.text(".amltk-notice")).toBe("");
  });

  test("an unanswered click is explained", async () => {
    const kernel = await new Kernel().open(model({ run: { run: { name: "demo", state: "idle", n: 0 } } }));
    await kernel.click("Start");
    await seconds(4);
    expect(kernel.text(".amltk-health")).toBe("No answer yet for 4 s: kernel busy");
  });

  test.each([
    ["idle", ["Start"], ["Stop", "Stop now", "Resubmit failed (1)"]],
    ["running", ["Pause", "Stop", "Stop now", "Resubmit failed (1)"], []],
    ["paused", ["Resume", "Stop", "Stop now", "Resubmit failed (1)"], []],
    ["stopping", ["Stop again: end the running calls now", "Stop now"], ["Pause", "Resubmit failed (1)"]],
    ["finished", ["Start"], ["Stop", "Stop now", "Resubmit failed (1)"]],
  ] as const)("when %s, %j can be pressed and %j not", async (state, can, cannot) => {
    const kernel = await new Kernel(["controls"]).open(model({ run: { run: { name: "demo", state, n: 1 } } }));
    for (const label of can) expect(kernel.button(label).getAttribute("aria-disabled")).toBe("false");
    for (const label of cannot) expect(kernel.button(label).getAttribute("aria-disabled")).toBe("true");
    expect(kernel.buttons().length).toBe(can.length + cannot.length);
  });

  test("the second click on Stop ends what runs", async () => {
    const kernel = await new Kernel().open();
    await kernel.click("Stop");
    await kernel.reply("stop", null);
    await kernel.patch({ run: { upsert: { run: { name: "demo", state: "stopping", n: 1, started_at: AT - 10, stopping_since: AT } } } });
    await kernel.click("Stop again: end the running calls now");
    expect(kernel.take("stop_now").args).toEqual({});
  });

  test("while running calls have some seconds left, they are counted down here and what comes is said", async () => {
    const run = { name: "demo", state: "stopping" as const, n: 1, started_at: AT - 10, stopping_since: AT, grace_ends_at: AT + 3.5 };
    const kernel = await new Kernel().open(model({ run: { run } }));
    const shown = () => [kernel.text(".amltk-meta"), kernel.button("Stop again: end the running calls now").title];
    const hint = "Stopping; click again to end 1 running call now";
    expect(shown()[0]).toContain("stopping: ends 1 running call in 4 s");
    expect(shown()[1]).toBe(`${hint} and not in 4 s`);
    await seconds(1);
    expect(shown()[0]).toContain("stopping: ends 1 running call in 3 s");
    expect(shown()[1]).toBe(`${hint} and not in 3 s`);
    await seconds(3);
    expect(shown()[0]).toContain("stopping: ends 1 running call now");
    expect(shown()[1]).toBe(hint);
    await kernel.patch({ counts: { upsert: { running: { n: 0 } } } });
    expect(shown()[0]).toContain("stopping for 4 s");
  });

  test("what cannot be ended is left behind after its seconds, not ended", async () => {
    const run = { name: "demo", state: "stopping" as const, n: 1, started_at: AT - 10, stopping_since: AT, grace_ends_at: AT + 2 };
    const backend = { backend: { name: "ThreadExecutor", options: {}, n_workers: 2, cannot_end: "threads cannot be ended" } };
    const kernel = await new Kernel().open(model({ run: { run }, backend }));
    expect(kernel.text(".amltk-meta")).toContain("stopping: leaves 1 running call in 2 s");
    expect(kernel.text(".amltk-advice")).toBe(""); // it does not wait for them
    await seconds(2);
    expect(kernel.text(".amltk-meta")).toContain("stopping: leaves 1 running call now");
  });

  test.each([
    [undefined, undefined, "finish"],
    [undefined, "threads", "finish, for they cannot be ended: threads"],
    [0, undefined, "are ended"],
    [5, undefined, "get 5.00 s to finish, then they are ended"],
    [5, "threads", "get 5.00 s to finish, then they are left to finish unseen, for they cannot be ended: threads"],
  ])("with %s s of grace and %s, Stop says what becomes of running calls", async (graceS, cannotEnd, told) => {
    const run = { name: "demo", state: "running" as const, n: 1, ...(graceS !== undefined && { grace_s: graceS }) };
    const backend = { name: "Executor", options: {}, n_workers: 2, ...(cannotEnd && { cannot_end: cannotEnd }) };
    const kernel = await new Kernel(["controls"]).open(model({ run: { run }, backend: { backend } }));
    expect(kernel.button("Stop").title).toBe(`Take no more calls; running ones ${told}`);
  });

  test("each keeps room for what it will say, so that its neighbours stay", async () => {
    const kernel = await new Kernel(["controls"]).open();
    const rooms = [...kernel.el.querySelectorAll(".amltk-room")].map((room) => room.textContent);
    expect(rooms).toEqual(["Resume", "Stop again"]);
  });

  test("what the backend cannot do cannot be pressed and says why", async () => {
    const why = "threads cannot be ended";
    const backend = { backend: { name: "ThreadExecutor", options: {}, n_workers: 2, cannot_end: why } };
    const kernel = await new Kernel().open(model({ backend }));
    for (const label of ["Stop now", "End call 3"]) {
      const button = kernel.button(label);
      expect(button.title).toBe(why);
      expect(document.getElementById(button.getAttribute("aria-describedby") ?? "")?.textContent).toBe(why);
      await kernel.click(label);
    }
    expect(kernel.sent).toEqual([]);
    expect(kernel.button("Cancel call 4").getAttribute("aria-disabled")).toBe("false");
  });

  test("keep plain keys from the notebook's shortcuts, and leave it those with Ctrl", async () => {
    const kernel = await new Kernel().open();
    const stop = kernel.button("Stop");
    const seen: boolean[] = [];
    const lab = () => void seen.push(stop.hasAttribute("data-lm-suppress-shortcuts"));
    document.addEventListener("keydown", lab, true);
    for (const init of [{ key: "d" }, { key: "s", ctrlKey: true }, { key: "Enter", shiftKey: true }]) {
      stop.dispatchEvent(new KeyboardEvent("keydown", { ...init, bubbles: true }));
    }
    document.removeEventListener("keydown", lab, true);
    expect(seen).toEqual([true, false, true]);
  });

  test("cannot_start is why Start cannot be pressed", async () => {
    const run = { name: "demo", state: "idle" as const, n: 0, cannot_start: "no loop runs" };
    const kernel = await new Kernel().open(model({ run: { run } }));
    expect(kernel.button("Start").title).toBe("no loop runs");
  });
});

describe("the queue", () => {
  test("filters by state with pressed chips, and by text", async () => {
    const kernel = await new Kernel().open();
    expect(kernel.rows()).toEqual([3, 4, 2, 1]);
    const chip = (state: string) => [...kernel.el.querySelectorAll(".amltk-chip")].find((c) => c.textContent?.includes(state)) as HTMLElement;
    expect(chip("failed").textContent).toBe("✕failed 1");
    await act(() => chip("failed").click());
    expect(chip("failed").getAttribute("aria-pressed")).toBe("true");
    expect(chip("all").getAttribute("aria-pressed")).toBe("false");
    expect(kernel.rows()).toEqual([2]);
    await act(() => chip("failed").click());
    await kernel.type("Filter the calls by text", "bad c");
    expect(kernel.rows()).toEqual([2]);
    await kernel.type("Filter the calls by text", "nowhere");
    expect(kernel.text(".amltk-at-queue .amltk-empty")).toBe("No call has this text.");
  });

  test("draws only what is in sight of ten thousand rows", async () => {
    const calls = Array.from({ length: 10_000 }, (_, i) => call(i + 1, "queued"));
    const kernel = await new Kernel().open(model({ calls: byId(calls), counts: counts({ queued: 10_000 }) }));
    const shown = kernel.rows();
    expect(shown.length).toBeLessThan(60);
    expect(shown[0]).toBe(1);
    const table = kernel.el.querySelector("table") as HTMLTableElement;
    expect(table.getAttribute("aria-rowcount")).toBe("10001");
    const box = kernel.el.querySelector(".amltk-scroll") as HTMLElement;
    await act(() => {
      box.scrollTop = 30 * 5_000;
      box.dispatchEvent(new Event("scroll"));
    });
    expect(kernel.rows()).toContain(5_001);
    expect(kernel.rows()).not.toContain(1);
    const gaps = [...kernel.el.querySelectorAll<HTMLElement>(".amltk-gap td")].map((td) => parseInt(td.style.height));
    expect(gaps.reduce((a, b) => a + b) / 30 + kernel.rows().length).toBe(10_000);
  });

  test("opens a row, asks for its detail and asks again when its state moves", async () => {
    const kernel = await new Kernel().open();
    await kernel.click("Call 3, details");
    expect(kernel.button("Call 3, details").getAttribute("aria-expanded")).toBe("true");
    expect(kernel.take("detail").args).toEqual({ call: 3 });
    await kernel.patch({ calls: { upsert: byId([call(3, "done", { seconds: 1 })]) } });
    await kernel.reply("detail", { ...DETAIL, call: 3, error: null, result: "42" });
    expect(kernel.text(".amltk-detail")).toContain("Result42");
    await kernel.click("Call 3, details");
    expect(kernel.text(".amltk-detail")).toBe("");
  });

  test("shows arguments, traceback and output of the open row", async () => {
    const kernel = await new Kernel().open();
    await kernel.click("Call 2, details");
    await kernel.reply("detail", DETAIL);
    const blocks = [...kernel.el.querySelectorAll(".amltk-block")].map((b) => b.textContent);
    expect(blocks).toEqual(["Argumentsx2", "ErrorValueError: bad CTraceback\nValueError: bad C", "Outputfitting\n"]);
  });

  test("says it when the call is gone", async () => {
    const kernel = await new Kernel().open();
    await kernel.click("Call 2, details");
    await kernel.refuse("detail", "There is no call 2.");
    expect(kernel.text(".amltk-detail p")).toBe("There is no call 2.");
  });

  test("goes to the call that a row was resubmitted from, fetching it if need be", async () => {
    const calls = byId([call(9, "done", { resubmitted_from: 1 })]);
    const kernel = await new Kernel().open(model({ calls, counts: counts({ done: 9 }) }));
    await kernel.click("Call 9, details");
    await kernel.reply("detail", DETAIL);
    await kernel.click("call 1");
    expect((await kernel.reply("rows", { rows: [call(1, "failed")] })).args).toEqual({ before: 2, limit: 1 });
    expect(kernel.button("Call 1, details").getAttribute("aria-expanded")).toBe("true");
    expect(kernel.take("detail").args).toEqual({ call: 1 });
  });

  test("shows how far a call is: as a bar while it runs, and in words", async () => {
    const far = { text: "37/100, loss=0.12", share: 0.37 };
    const kernel = await new Kernel().open(
      model({ calls: byId([call(1, "running", { progress: far }), call(2, "running", { progress: { text: "5" } }), call(3, "done", { progress: far })]) }),
    );
    const shown = (id: number) => kernel.el.querySelector(`tr[data-call="${id}"] .amltk-far`);
    expect([1, 2, 3].map((id) => shown(id)?.textContent)).toEqual(["37/100, loss=0.12", "5", "37/100, loss=0.12"]);
    expect([1, 2, 3].map((id) => shown(id)?.querySelector(".amltk-gauge") !== null)).toEqual([true, false, false]);
    expect(shown(1)?.querySelector<HTMLElement>(".amltk-gauge > span")?.style.width).toBe("37%");
    await kernel.patch({ calls: { upsert: { "1": call(1, "running", { progress: { text: "50/100", share: 0.5 } }) } } });
    expect(shown(1)?.textContent).toBe("50/100");
    expect(shown(1)?.querySelector<HTMLElement>(".amltk-gauge > span")?.style.width).toBe("50%");
    await kernel.click("Call 1, details");
    expect(kernel.text(".amltk-facts")).toContain("Progress50/100");
  });

  test("loads older calls page by page until there are no more", async () => {
    const kernel = await new Kernel().open(model({ calls: byId([call(500, "done")]), counts: counts({ done: 500 }) }));
    expect(kernel.text(".amltk-more")).toContain("1 of 500 calls loaded.");
    await kernel.click("Load older");
    const page = Array.from({ length: 200 }, (_, i) => call(499 - i, "done"));
    expect((await kernel.reply("rows", { rows: page })).args).toEqual({ limit: 200 });
    await kernel.click("Load older");
    const rest = [call(299, "failed")];
    expect((await kernel.reply("rows", { rows: rest })).args).toEqual({ limit: 200, before: 300 });
    expect(kernel.text(".amltk-more")).toBe("202 of 500 calls loaded.Older ones have left the history.");
  });

  test("keeps rows in their places while the pointer is over them", async () => {
    const kernel = await new Kernel().open();
    const box = kernel.el.querySelector(".amltk-scroll") as HTMLElement;
    await act(() => void box.dispatchEvent(new Event("pointerenter")));
    const done = { "3": call(3, "done", { ended_at: AT }), "5": call(5, "running", { started_at: AT }) };
    await kernel.patch({ calls: { upsert: done } });
    expect(kernel.rows()).toEqual([3, 4, 2, 1, 5]);
    await act(() => void box.dispatchEvent(new Event("pointerleave")));
    expect(kernel.rows()).toEqual([5, 4, 3, 2, 1]);
  });

  test("moves rows that are in the way of others, and makes none anew", async () => {
    const kernel = await new Kernel().open();
    const row = () => kernel.el.querySelector('tr.amltk-row[data-call="3"]');
    const before = row();
    await kernel.patch({ calls: { upsert: byId([call(3, "done", { ended_at: AT })]) } });
    expect(kernel.rows()).toEqual([4, 3, 2, 1]);
    expect(row()).toBe(before);
  });

  test("keeps the focus through two hundred updates", async () => {
    const kernel = await new Kernel().open();
    kernel.button("Call 3, details").focus();
    const focused = document.activeElement;
    for (let i = 0; i < 200; i++) {
      const state = (["running", "done", "failed", "queued"] as const)[i % 4] ?? "done";
      await kernel.patch({
        calls: { upsert: byId([call(3, state, { ended_at: AT + i }), call(100 + i, "running")]) },
        counts: { upsert: counts({ done: i, running: 4 }) },
      });
    }
    expect(document.activeElement).toBe(focused);
    expect(kernel.button("Call 3, details")).toBe(focused);
  });

  test("is walked through with the arrow keys, and Escape closes the open row", async () => {
    const kernel = await new Kernel().open();
    const press = (key: string) =>
      act(() => void document.activeElement?.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true })));
    kernel.button("Call 3, details").focus();
    await press("ArrowDown");
    expect(document.activeElement).toBe(kernel.button("Call 4, details"));
    await press("End");
    expect(document.activeElement).toBe(kernel.button("Call 1, details"));
    await kernel.click("Call 1, details");
    kernel.el.querySelector<HTMLElement>(".amltk-detail button")?.focus();
    await press("Escape");
    expect(kernel.text(".amltk-detail")).toBe("");
    expect(document.activeElement).toBe(kernel.button("Call 1, details"));
  });
});

describe("the other views", () => {
  test("events are a tree of emitters with counts and callbacks, hidden ones left out", async () => {
    const kernel = await new Kernel().open();
    const emitters = [...kernel.el.querySelectorAll(".amltk-emitter")].map((e) => e.textContent);
    expect(emitters).toEqual([
      "Scheduler@on_start1",
      "f(x: int) -> intTask-f-1@on_result7def record(r) -> Nonecell [3]✕ 2 errors5",
    ]);
  });

  test("plugins are cards of their state", async () => {
    const kernel = await new Kernel().open();
    expect(kernel.text(".amltk-card")).toBe("limiter on fcalls3/10max concurrentnone");
    expect(kernel.el.querySelector<HTMLElement>(".amltk-gauge span")?.style.width).toBe("30%");
  });

  test("the log is in order, filtered, and copied as it is shown", async () => {
    const kernel = await new Kernel().open();
    const texts = () => [...kernel.el.querySelectorAll(".amltk-log .amltk-text")].map((t) => t.textContent);
    expect(texts()).toEqual(["started", "best 0.97"]);
    await kernel.type("Filter the log", "RECORD");
    expect(texts()).toEqual(["best 0.97"]);
    const writeText = vi.fn().mockResolvedValue(undefined);
    vi.stubGlobal("navigator", { clipboard: { writeText } });
    await kernel.click("Copy");
    expect(writeText.mock.calls).toEqual([["2023-11-14T22:13:12.000Z on_result · record print: best 0.97"]]);
    expect(kernel.button("Copied")).toBeDefined();
    vi.unstubAllGlobals();
  });

  test("before the start there is something to do before the first call", async () => {
    const kernel = await new Kernel(["queue"]).open(model({ run: { run: { name: "demo", state: "idle", n: 0 } }, calls: {}, counts: counts({}) }));
    expect(kernel.text(".amltk-empty")).toBe("No calls yet: start it, then task.submit(…) in any cell, and it is shown here.");
  });

  test("empty ones teach", async () => {
    const empty = model({ calls: {}, counts: counts({}), events: {}, callbacks: {}, tasks: {}, plugins: {}, log: {} });
    const kernel = await new Kernel().open(empty);
    expect([...kernel.el.querySelectorAll(".amltk-empty")].map((e) => e.textContent)).toEqual([
      "No calls yet: task.submit(…) in any cell, and it is shown here.",
      "No tasks yet: put @scheduler.task above a function; its events are shown here, too.",
      "No plugins. Limit a task with scheduler.task(f, plugins=Limiter(max_concurrent=2)).",
      "Nothing yet. What callbacks print in the background is shown here.",
    ]);
  });

  test("progress is a bar that can be heard", async () => {
    const kernel = await new Kernel().open();
    const bar = kernel.el.querySelector('[role="progressbar"]');
    expect(bar?.getAttribute("aria-valuenow")).toBe("2");
    expect(bar?.getAttribute("aria-valuemax")).toBe("4");
    expect(bar?.getAttribute("aria-valuetext")).toBe("2 of 4 calls ended: 1 done, 1 failed");
  });

  test("a finished run says why and how long it took", async () => {
    const run = { name: "demo", state: "finished" as const, n: 2, started_at: AT - 75, ended_at: AT, elapsed_s: 75, code: "exception", reason: "ValueError: no" };
    const kernel = await new Kernel().open(model({ run: { run } }));
    expect(kernel.text(".amltk-title")).toBe("demo✕finishedexception: ValueError: no○Notify me");
    expect(kernel.text(".amltk-meta")).toBe("took 1 min 15 sProcessExecutor2 workersrun 2");
  });

  test("a closed view shows the end and takes no clicks", async () => {
    const kernel = await new Kernel().open();
    await kernel.full(model(), "final");
    expect(kernel.text(".amltk-title")).toContain("closed: shown as it was");
    expect(kernel.buttons().filter((b) => b.getAttribute("aria-disabled") === "false").map((b) => b.textContent)).toEqual([]);
  });

  test("the rate counts what ended over the last ten seconds", async () => {
    const kernel = await new Kernel().open();
    for (let i = 1; i <= 20; i++) {
      await seconds(1);
      await kernel.patch({ counts: { upsert: counts({ running: 1, done: 5 * i }) } });
    }
    expect(kernel.text(".amltk-meta")).toContain("5.0 calls/s");
  });
});

describe("the status line", () => {
  const said = async (kernel: Kernel, n: number): Promise<string[]> => {
    const texts: string[] = [];
    for (let i = 0; i < n; i++) {
      await seconds(1);
      await kernel.patch({ counts: { upsert: counts({ running: 1, done: 10 + i }) } });
      const text = kernel.text('[role="status"]');
      if (texts.at(-1) !== text) texts.push(text);
    }
    return texts;
  };

  test("speaks every ten seconds at most while all is well", async () => {
    const kernel = await new Kernel().open();
    const texts = await said(kernel, 40);
    expect(texts.length).toBeGreaterThanOrEqual(4);
    expect(texts.length).toBeLessThanOrEqual(6);
  });

  test("speaks at once on a milestone", async () => {
    const kernel = await new Kernel().open();
    await kernel.patch({ run: { upsert: { run: { name: "demo", state: "finished", n: 1, code: "exhausted" } } } });
    expect(kernel.text('[role="status"]')).toBe("demo finished (exhausted). 2 of 4 calls ended: 1 done, 1 failed.");
    expect(kernel.el.querySelectorAll("[aria-live]").length).toBe(1);
  });

  test("says how long running calls have, and again when that is shortened", async () => {
    const kernel = await new Kernel().open();
    const stopping = (endsAt: number) =>
      kernel.patch({ run: { upsert: { run: { name: "demo", state: "stopping", n: 1, stopping_since: AT, grace_ends_at: endsAt } } } });
    const said = () => kernel.text('[role="status"]');
    await stopping(AT + 60);
    expect(said()).toBe("demo stopping. 2 of 4 calls ended: 1 done, 1 failed. It ends 1 running call in 1 min 00 s.");
    await stopping(AT + 5);
    expect(said()).toBe("demo stopping. 2 of 4 calls ended: 1 done, 1 failed. It ends 1 running call in 5 s.");
  });
});

test("whatever a program calls its things, it is shown as text", async () => {
  const evil = '<img src=x onerror="window.hurt=1"><script>window.hurt=1</script>javascript:hurt()';
  const shown = model({
    run: { run: { name: evil, state: "finished", n: 1, code: evil, reason: evil } },
    backend: { backend: { name: evil, options: { [evil]: evil }, n_workers: 1, n_there: 1, cannot_end: evil, cannot_restart: evil, waiting_for: evil, waiting_since: AT, no_workers_after_s: 0, hint: evil } },
    workers: { [evil]: { state: evil, where: evil, call: 1, order: 0 } },
    machines: { [evil]: { n_workers: 1, n_busy: 0, order: 0 } },
    events: { e: { emitter: evil, name: evil, count: 1, order: 0 }, s: { emitter: "scheduler", name: evil, count: 1, order: 1 } },
    callbacks: { c: { event: "s", text: evil, n_calls: 1, cell: evil, order: 0 } },
    tasks: { [evil]: { function: evil, signature: evil, order: 0, n_queued: 0, n_running: 0, n_done: 0, n_failed: 0, n_cancelled: 0 } },
    plugins: { p: { task: evil, name: evil, state: { [evil]: evil }, order: 0 } },
    calls: byId([call(1, "failed", { task: evil, function: evil, args: evil, error: evil, worker: evil })]),
    log: { "1": { at: AT, source: evil, level: evil, text: evil } },
  });
  const kernel = await new Kernel().open(shown);
  await kernel.click("Call 1, details");
  await kernel.reply("detail", {
    call: 1, state: "failed", function: evil, arguments: [{ name: evil, text: evil }],
    result: evil, error: evil, output: evil, resubmitted_from: null,
  });
  expect(kernel.el.querySelectorAll("img, script, a, iframe").length).toBe(0);
  expect("hurt" in window).toBe(false);
  expect(kernel.el.textContent?.split("window.hurt=1").length).toBeGreaterThan(30);
});
