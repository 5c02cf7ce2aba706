import { act } from "preact/test-utils";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { lanes } from "../src/lanes";
import { EMPTY, reduce } from "../src/page";
import { stepOf } from "../src/timeline";
import type { CallRecord } from "../src/wire";
import { AT, byId, call, closeAll, Kernel, model } from "./kernel";

beforeEach(() => {
  vi.useFakeTimers({ now: AT * 1000, toFake: ["Date", "setInterval", "clearInterval", "setTimeout", "clearTimeout"] });
});

afterEach(async () => {
  await closeAll();
  vi.useRealTimers();
  document.body.replaceChildren();
});

function ran(id: number, worker: string, from: number, to: number, state: CallRecord["state"] = "done"): CallRecord {
  return call(id, state, { worker, started_at: from, ended_at: to, seconds: to - from });
}

function page(calls: CallRecord[]) {
  return reduce(EMPTY, { kind: "full", schema: 1, version: 1, at: 0, model: model({ calls: byId(calls) }) }).page;
}

describe("the lanes", () => {
  test("are one for each worker, in the order of their numbers, with bars in order of time", () => {
    const calls = [ran(3, "w-10", 0, 4), ran(2, "w-2", 5, 6), ran(1, "w-2", 1, 3)];
    expect(lanes(page(calls), 0, 10, 0.1)).toEqual([
      { worker: "w-2", bars: [
        { state: "done", from: 1, to: 3, calls: [1] },
        { state: "done", from: 5, to: 6, calls: [2] },
      ] },
      { worker: "w-10", bars: [{ state: "done", from: 0, to: 4, calls: [3] }] },
    ]);
  });

  test("leave out what never ran, and what is outside; what reaches in is cut", () => {
    const calls = [
      call(1, "queued"), call(2, "cancelled", { ended_at: 5 }), ran(3, "w", 0, 1),
      ran(4, "w", 1, 6), call(5, "running", { worker: "w", started_at: 7 }), ran(6, "w", 11, 12),
    ];
    expect(lanes(page(calls), 5, 10, 0.1)).toEqual([
      { worker: "w", bars: [{ state: "done", from: 5, to: 6, calls: [4] }, { state: "running", from: 7, to: 10, calls: [5] }] },
    ]);
  });

  test("draw ten thousand short calls as some bars that miss none", () => {
    const calls = Array.from({ length: 10_000 }, (_, i) => ran(i + 1, "w", i / 100, i / 100 + 0.009, i === 5_000 ? "failed" : "done"));
    const [lane] = lanes(page(calls), 0, 100, 0.3);
    expect(lane?.bars.flatMap((bar) => bar.calls)).toEqual(calls.map((c) => c.id));
    expect(lane?.bars.length).toBeLessThan(100);
    expect(lane?.bars.filter((bar) => bar.state === "failed")).toEqual([{ state: "failed", from: 50, to: 50.009, calls: [5_001] }]);
  });
});

test("who is drawn together stays so while the window moves and grows", () => {
  const calls = Array.from({ length: 2_000 }, (_, i) => ran(i + 1, "w", AT + i / 50, AT + i / 50 + 0.019));
  const firsts = (from: number, to: number, grainS: number) =>
    new Set(lanes(page(calls), from, to, grainS)[0]?.bars.map((bar) => bar.calls[0]));
  const before = firsts(AT + 5, AT + 20, 0.1);
  const moved = [...firsts(AT + 6.3, AT + 21.3, 0.1)];
  expect(moved.filter((id) => !before.has(id)).length).toBeLessThanOrEqual(3); // the first, and new ones
  const grown = [...firsts(AT + 5, AT + 21, 0.107)];
  expect(grown.filter((id) => !before.has(id)).length).toBeLessThanOrEqual(2);
});

describe("the timeline", () => {
  const bars = (kernel: Kernel) => [...kernel.el.querySelectorAll("[data-bar]")];
  const calls = [
    ran(1, "worker-1", AT - 9, AT - 7), ran(2, "worker-2", AT - 9, AT - 4, "failed"), ran(3, "worker-1", AT - 6, AT - 5),
    call(4, "running", { worker: "worker-1", started_at: AT - 3 }),
  ];
  const open = (views = ["queue", "timeline"]) => new Kernel(views).open(model({ calls: byId(calls) }));

  test("says of each bar what it is, and of the one that is looked at in a line of its own", async () => {
    const kernel = await open();
    expect(bars(kernel).map((bar) => bar.getAttribute("aria-label"))).toEqual([
      "Call 1 f(1) on worker-1, done, 2.00 s",
      "Call 3 f(3) on worker-1, done, 1.00 s",
      "Call 4 f(4) on worker-1, running, for 3 s",
      "Call 2 f(2) on worker-2, failed, 5.00 s",
    ]);
    expect(kernel.text(".amltk-look")).toBe("✓done✕failed◐running⊘cancelled");
    await act(() => void (bars(kernel)[3] as SVGElement).dispatchEvent(new Event("mouseenter")));
    expect(kernel.text(".amltk-look")).toBe("Call 2 f(2) on worker-2, failed, 5.00 s");
  });

  test("shows a failure that took no time at its moment", async () => {
    const short = [ran(1, "w", AT - 10, AT - 5), ran(2, "w", AT - 5, AT - 5, "failed"), ran(3, "w", AT - 5, AT)];
    const kernel = await new Kernel(["timeline"]).open(model({ calls: byId(short) }));
    const places = bars(kernel).map((bar) => {
      const rect = bar.querySelector("rect");
      return [Number(rect?.getAttribute("x")), Number(rect?.getAttribute("width"))] as const;
    });
    const [before, failed, after] = places as [typeof places[0], typeof places[0], typeof places[0]];
    expect(failed?.[1]).toBe(4);
    expect((failed?.[0] ?? 0) + 4).toBeCloseTo(after?.[0] ?? 0);
    expect(before?.[0]).toBeLessThan(failed?.[0] ?? 0);
  });

  test("is one stop of the tab key, and arrows go from bar to bar", async () => {
    const kernel = await open();
    const inOrder = () => bars(kernel).filter((bar) => bar.getAttribute("tabindex") === "0");
    expect(inOrder().map((bar) => bar.getAttribute("data-bar"))).toEqual(["worker-1/4"]);
    await act(() => (inOrder()[0] as SVGElement).focus());
    const press = async (key: string) => {
      await act(() => void document.activeElement?.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true })));
      return document.activeElement?.getAttribute("data-bar");
    };
    expect(await press("ArrowLeft")).toBe("worker-1/3");
    expect(await press("Home")).toBe("worker-1/1");
    expect(await press("ArrowDown")).toBe("worker-2/2");
    expect(await press("ArrowUp")).toBe("worker-1/3");
    expect(await press("End")).toBe("worker-1/4");
    expect(await press("ArrowRight")).toBe("worker-1/4");
    expect(inOrder().map((bar) => bar.getAttribute("data-bar"))).toEqual(["worker-1/4"]);
  });

  test("leads to the row of a call, if there is a queue", async () => {
    const kernel = await open();
    await act(() => void (bars(kernel)[3] as SVGElement).dispatchEvent(new Event("click", { bubbles: true })));
    expect(kernel.el.querySelector('tr.amltk-row[data-call="2"]')?.getAttribute("data-open")).toBe("true");
    const alone = await open(["timeline"]);
    expect(bars(alone).map((bar) => bar.getAttribute("role"))).toEqual(["img", "img", "img", "img"]);
  });

  test("keeps the focus while bars come and grow", async () => {
    const kernel = await open();
    await act(() => (bars(kernel)[2] as SVGElement).focus());
    for (let n = 0; n < 50; n++) {
      await kernel.patch({ calls: { upsert: byId([ran(10 + n, "worker-2", AT - 3 + n / 100, AT - 3 + n / 100 + 0.1)]) } });
    }
    expect(document.activeElement?.getAttribute("data-bar")).toBe("worker-1/4");
  });

  test("keeps the focus among the bars when the one that has it leaves", async () => {
    const old = [ran(1, "w", AT - 61, AT - 59.5), ran(2, "w", AT - 30, AT - 10), ran(3, "w", AT - 700, AT - 690)];
    const kernel = await new Kernel(["timeline"]).open(model({ calls: byId(old) }));
    expect(bars(kernel).map((bar) => bar.getAttribute("data-bar"))).toEqual(["w/1", "w/2"]);
    await act(() => (bars(kernel)[0] as SVGElement).focus());
    await act(() => void vi.advanceTimersByTime(2_000));
    expect(bars(kernel).map((bar) => bar.getAttribute("data-bar"))).toEqual(["w/2"]);
    expect(document.activeElement?.getAttribute("data-bar")).toBe("w/2");
  });

  test("of a flood is drawn anew once a second", async () => {
    const many = Array.from({ length: 300 }, (_, i) => ran(i + 1, "w", AT - 60 + i / 10, AT - 60 + i / 10 + 0.09));
    const kernel = await new Kernel(["timeline"]).open(model({ calls: byId(many) }));
    const drawn = bars(kernel).length;
    await kernel.patch({ calls: { upsert: byId([ran(301, "v", AT - 3, AT - 2)]) } });
    expect(bars(kernel).length).toBe(drawn);
    await act(() => void vi.advanceTimersByTime(1_000));
    expect(bars(kernel).map((bar) => bar.getAttribute("data-bar"))).toContain("v/301");
    await kernel.full(model({ run: { run: { name: "demo", state: "finished", n: 1, started_at: AT - 60 } }, calls: byId([ran(1, "u", AT - 9, AT - 8)]) }), "final");
    expect(bars(kernel).map((bar) => bar.getAttribute("data-bar"))).toContain("u/1");
  });

  test("teaches when it is empty, and offers a shorter time when there is more", async () => {
    const none = await new Kernel(["timeline"]).open(model({ calls: {} }));
    expect(none.text(".amltk-at-timeline")).toContain("Nothing has run yet: each call becomes a bar");
    const long = [ran(1, "w", AT - 700, AT - 650), ran(2, "w", AT - 30, AT - 10)];
    const kernel = await new Kernel(["timeline"]).open(model({ calls: byId(long) }));
    const chips = () => [...kernel.el.querySelectorAll<HTMLButtonElement>(".amltk-at-timeline .amltk-chip")];
    expect(chips().map((chip) => [chip.textContent, chip.getAttribute("aria-pressed")])).toEqual([
      ["Last minute", "true"], ["Last 10 minutes", "false"], ["All", "false"],
    ]);
    expect(bars(kernel).length).toBe(1);
    await act(() => chips()[2]?.click());
    expect(bars(kernel).length).toBe(2);
  });
});

test.each([[0.3, 0.5], [1, 1], [7, 10], [200, 300], [5_000, 7_200]])("ticks at round times: %d", (wish, step) => {
  expect(stepOf(wish)).toBe(step);
});
