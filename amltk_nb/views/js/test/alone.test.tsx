import { act } from "preact/test-utils";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { AT, call, byId, closeAll, counts, Kernel, model } from "./kernel";

beforeEach(() => {
  vi.useFakeTimers({ now: AT * 1000, toFake: ["Date", "setInterval", "clearInterval", "setTimeout", "clearTimeout"] });
});

afterEach(async () => {
  await closeAll();
  vi.useRealTimers();
  document.body.replaceChildren();
});

const MARKS: Record<string, string> = {
  header: ".amltk-head", progress: ".amltk-progress", controls: ".amltk-controls", queue: ".amltk-at-queue",
  workers: ".amltk-at-workers", timeline: ".amltk-at-timeline", events: ".amltk-at-events",
  plugins: ".amltk-at-plugins", log: ".amltk-at-log",
};

const run = (fields: object) => ({ run: { run: { name: "demo", state: "running" as const, n: 1, ...fields } } });

describe("a view alone", () => {
  test.each(Object.keys(MARKS))("%s shows itself and of what it is", async (view) => {
    const kernel = await new Kernel([view]).open();
    const shown = Object.keys(MARKS).filter((name) => kernel.el.querySelector(MARKS[name] as string));
    expect(shown).toEqual([view]);
    const line = view === "header" ? ".amltk-head .amltk-title" : ".amltk-strip";
    expect(kernel.text(line)).toContain("demo◐running");
    expect(kernel.el.querySelectorAll(".amltk-title")).toHaveLength(1);
    expect(kernel.el.querySelectorAll('[role="status"]')).toHaveLength(1);
  });

  test.each(Object.keys(MARKS))("%s works before, during and after a run", async (view) => {
    const kernel = await new Kernel([view]).open(model({ ...run({ state: "idle", n: 0 }), calls: {}, counts: counts({}) }));
    expect(kernel.text(".amltk-title")).toContain("○idle");
    await kernel.patch({ run: { upsert: run({ started_at: AT }).run } });
    expect(kernel.text(".amltk-title")).toContain("◐running");
    await kernel.patch({ run: { upsert: run({ state: "finished", code: "stopped", ended_at: AT + 1, elapsed_s: 1 }).run } });
    expect(kernel.text(".amltk-title")).toContain("✓finished");
    await kernel.full(model(run({ state: "finished", code: "stopped" })), "final");
    expect(kernel.text(".amltk-title")).toContain("(closed: shown as it was)");
  });

  test("two of them follow the same run", async () => {
    const kernels = [new Kernel(["controls"]), new Kernel(["queue"])];
    for (const kernel of kernels) document.body.append((await kernel.open()).el);
    for (const kernel of kernels) await kernel.patch({ run: { upsert: run({ state: "paused" }).run } });
    expect(kernels.map((kernel) => kernel.text(".amltk-title .amltk-state"))).toEqual(["‖paused", "‖paused"]);
    expect(kernels[0]?.button("Resume")).toBeDefined();
  });

  test("of several on a page the first speaks, and each says what it was refused itself", async () => {
    const kernels = [await new Kernel(["progress"]).open()];
    const other = new Kernel(["queue"], null);
    const elsewhere = new Kernel(["log"]);
    document.body.replaceChildren(...[kernels[0]?.el, other.el, elsewhere.el].map((el) => el as HTMLElement));
    kernels.push(await other.open(), await elsewhere.open(model(run({ name: "another", started_at: AT }))));
    const said = () => kernels.map((kernel) => kernel.text('[role="status"]'));
    expect(said()).toEqual([
      "demo running. 2 of 4 calls ended: 1 done, 1 failed.", "", "another running. 2 of 4 calls ended: 1 done, 1 failed.",
    ]);
    await other.click("End call 3");
    await other.refuse("cancel", "It has ended.");
    await act(() => void vi.advanceTimersByTime(1000));
    expect(said()[1]).toBe("It has ended.");
  });

  test("says that the kernel is busy", async () => {
    const kernel = await new Kernel(["log"]).open();
    for (let i = 0; i < 4; i++) await act(() => void vi.advanceTimersByTime(1000));
    expect(kernel.text(".amltk-strip .amltk-health")).toBe("Kernel busy for 4 s");
  });

  test("a name that this page does not know is named, as text", async () => {
    const kernel = await new Kernel(["queue", "<b>map</b>"]).open();
    expect(kernel.text(".amltk-advice")).toBe(
      'This page knows no view "<b>map</b>": it is older than the kernel\'s amltk_nb. Reload it.',
    );
    expect(kernel.el.querySelector(".amltk-at-queue")).not.toBeNull();
  });

  test.each([["header"], ["queue"]])("%s says that the scheduler is gone", async (view) => {
    const kernel = await new Kernel([view]).open();
    const gone = "The scheduler is gone: nothing in the notebook refers to it any more.";
    await kernel.full(model(run({ state: "idle", cannot_start: gone })), "final");
    expect(kernel.text(".amltk-advice")).toBe(gone);
  });
});

describe("the panel of a task", () => {
  const PANEL = ["progress", "queue", "events", "plugins"];

  test("is named after it, and after its scheduler", async () => {
    const kernel = await new Kernel(PANEL, "Task-f-1").open();
    expect(kernel.text(".amltk-strip code")).toBe("f(x: int) -> int");
    expect(kernel.text(".amltk-strip strong")).toBe("demo");
    expect(kernel.text(".amltk-advice")).toBe("");
  });

  test("says that its task left, until one of its name is there", async () => {
    const kernel = await new Kernel(PANEL, "Task-f-1").open(model({ tasks: {}, calls: byId([call(1, "done")]) }));
    expect(kernel.text(".amltk-advice")).toBe(
      "The scheduler has no Task-f-1 any more. Run the cell that makes the task, then its panel() again.",
    );
    await kernel.full(model());
    expect(kernel.text(".amltk-advice")).toBe("");
  });
});
