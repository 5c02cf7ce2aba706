import { act } from "preact/test-utils";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import type { Entry, FieldRecord, FormRecord } from "../src/wire";
import { AT, byId, call, closeAll, Kernel, model } from "./kernel";

beforeEach(() => {
  vi.useFakeTimers({ now: AT * 1000, toFake: ["Date", "setInterval", "clearInterval", "setTimeout", "clearTimeout"] });
});

afterEach(async () => {
  await closeAll();
  vi.useRealTimers();
  document.body.replaceChildren();
});

function field(name: string, kind: string, entry: Entry | null, more: Partial<FieldRecord> = {}): FieldRecord {
  return { name, label: name, kind, hint: kind, entry, ...more };
}

const FIELDS = [
  field("n", "int", null, { required: true }),
  field("deep", "bool", false),
  field("kind", "choice", 1, { options: ["rbf", "linear"] }),
  field("size", "slider", "5", { limits: ["0", "10", "1"] }),
  field("name", "text", "two\nlines"),
  field("points", "literal", "[1, 2]"),
  field("data", "kept", null, { text: "array([1, 2])" }),
  field("args", "literal", null, { label: "*args" }),
];

function form(fields: FieldRecord[] = FIELDS, stamp = "one"): FormRecord {
  return { title: "fit", about: "Fit a model.", note: "", fields, stamp };
}

async function opened(fields?: FieldRecord[], shown = model()): Promise<Kernel> {
  const kernel = await new Kernel(["form"], "Task-f-1").open(shown);
  await kernel.reply("form", form(fields));
  return kernel;
}

type Control = HTMLInputElement | HTMLSelectElement | HTMLTextAreaElement;

/** The control that a label with this text is for. */
function control(kernel: Kernel, label: string): Control {
  const found = [...kernel.el.querySelectorAll("label")].find((each) => each.textContent === label);
  if (!found) throw new Error(`no label "${label}"`);
  return kernel.el.querySelector(`[id="${found.htmlFor}"]`) as Control;
}

async function enter(kernel: Kernel, label: string, value: string): Promise<void> {
  const at = control(kernel, label);
  await act(() => {
    at.value = value;
    at.dispatchEvent(new Event(at.tagName === "SELECT" ? "change" : "input", { bubbles: true }));
  });
}

async function press(at: Element, key: string): Promise<void> {
  await act(async () => {
    at.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
    for (let i = 0; i < 5; i++) await Promise.resolve();
  });
}

/** Let happen what an answer leads to. */
async function settled(): Promise<void> {
  for (let i = 0; i < 5; i++) await act(async () => void vi.advanceTimersByTime(50));
}

/** What a screen reader says of a control besides its name. */
function about(kernel: Kernel, label: string): string {
  const ids = control(kernel, label).getAttribute("aria-describedby")?.split(" ") ?? [];
  return ids.map((id) => kernel.el.querySelector(`[id="${id}"]`)?.textContent).join(" | ");
}

describe("the form of a task", () => {
  test("shows each field by its kind, with its type and default", async () => {
    const kernel = await opened();
    expect(kernel.text(".amltk-form-title")).toBe("fit Fit a model.");
    const shown = FIELDS.filter(({ kind }) => kind !== "kept").map(({ label }) => {
      const at = control(kernel, label);
      return [at.tagName, at.type, at.type === "checkbox" ? (at as HTMLInputElement).checked : at.value];
    });
    expect(shown).toEqual([
      ["INPUT", "text", ""],
      ["INPUT", "checkbox", false],
      ["SELECT", "select-one", "1"],
      ["INPUT", "range", "5"],
      ["TEXTAREA", "textarea", "two\nlines"],
      ["INPUT", "text", "[1, 2]"],
      ["INPUT", "text", ""],
    ]);
    expect(about(kernel, "n")).toBe("int required");
    expect(control(kernel, "n").getAttribute("aria-required")).toBe("true");
    expect(about(kernel, "deep")).toBe("bool");
    expect(kernel.text(".amltk-kept")).toBe("array([1, 2])");
    expect(kernel.text("output")).toBe("5");
    expect([...control(kernel, "kind").querySelectorAll("option")].map((o) => o.textContent)).toEqual(["rbf", "linear"]);
  });

  test("sends what was changed and nothing else", async () => {
    const kernel = await opened();
    await kernel.click("Submit");
    expect((await kernel.reply("submit", { call: 1 })).args).toEqual({ entries: {}, stamp: "one" });
    await enter(kernel, "n", " 3 ");
    await enter(kernel, "kind", "0");
    await enter(kernel, "size", "7");
    await enter(kernel, "name", "three\nmore lines");
    await enter(kernel, "points", "[3]");
    await act(() => control(kernel, "deep").click());
    expect(kernel.text("output")).toBe("7");
    await kernel.click("Submit");
    const entries = { n: " 3 ", kind: 0, size: "7", name: "three\nmore lines", points: "[3]", deep: true };
    expect((await kernel.reply("submit", { call: 2 })).args).toEqual({ entries, stamp: "one" });
    expect(kernel.text("[role=status].amltk-muted")).toBe("Submitted as call 2.");
    await enter(kernel, "n", "");
    await enter(kernel, "kind", "1");
    await enter(kernel, "size", "5");
    await enter(kernel, "name", "two\nlines");
    await enter(kernel, "points", "[1, 2]");
    await act(() => control(kernel, "deep").click());
    await kernel.click("Submit");
    expect(kernel.take("submit").args).toEqual({ entries: {}, stamp: "one" });
  });

  test("a value that no text stands for is kept until it is replaced", async () => {
    const kernel = await opened();
    await kernel.click("Replace data");
    expect(control(kernel, "data").value).toBe("");
    await enter(kernel, "data", "[1]");
    await kernel.click("Submit");
    expect((await kernel.reply("submit", { call: 1 })).args.entries).toEqual({ data: "[1]" });
    await kernel.click("Keep data");
    expect(kernel.text(".amltk-kept")).toBe("array([1, 2])");
    await kernel.click("Submit");
    expect(kernel.take("submit").args.entries).toEqual({});
  });

  test("says what is wrong beside the field, keeps what was typed, and goes there", async () => {
    const kernel = await opened();
    await enter(kernel, "n", "three");
    await enter(kernel, "points", "[1");
    kernel.button("Submit").focus();
    await kernel.click("Submit");
    const said = { n: "n needs a whole number, like 3; this is 'three'.", points: "points is not a value of Python yet." };
    await kernel.refuse("submit", "both", { fields: said, stale: false });
    await settled();
    expect([control(kernel, "n").value, control(kernel, "points").value]).toEqual(["three", "[1"]);
    expect(document.activeElement).toBe(control(kernel, "n"));
    expect(control(kernel, "n").getAttribute("aria-invalid")).toBe("true");
    expect(about(kernel, "n")).toBe(`int required | ✕ ${said.n}`);
    await enter(kernel, "n", "3");
    control(kernel, "points").focus();
    await press(control(kernel, "points"), "Enter");
    await kernel.refuse("submit", said.points, { fields: { points: said.points }, stale: false });
    await settled();
    expect(document.activeElement).toBe(control(kernel, "points"));
    expect(control(kernel, "n").hasAttribute("aria-invalid")).toBe(false);
    await enter(kernel, "points", "[1]");
    await press(control(kernel, "points"), "Enter");
    expect((await kernel.reply("submit", { call: 1 })).args.entries).toEqual({ n: "3", points: "[1]" });
    expect(kernel.el.querySelectorAll(".amltk-wrong")).toHaveLength(0);
  });

  test("says what is wrong with all of it below the fields", async () => {
    const kernel = await opened();
    await kernel.click("Submit");
    await kernel.refuse("submit", "The scheduler <b>is</b> not running.");
    expect(kernel.text("[role=alert]")).toBe("The scheduler <b>is</b> not running.");
    await kernel.click("Submit");
    await kernel.reply("submit", { call: null });
    expect(kernel.el.querySelector("[role=alert]")).toBeNull();
    expect(kernel.text("[role=status].amltk-muted")).toBe("A plugin of the task refused this call.");
  });

  test("is made anew when its function is another, and keeps what still fits", async () => {
    const kernel = await opened();
    await enter(kernel, "n", "3");
    await enter(kernel, "points", "[3]");
    await kernel.click("Submit");
    await kernel.refuse("submit", "fit is not what it was.", { fields: {}, stale: true });
    await settled();
    await kernel.reply("form", form([field("n", "float", "1.0"), field("points", "bool", false), field("new", "text", "")], "two"));
    expect(kernel.text("[role=alert]")).toBe("fit is not what it was.");
    expect(control(kernel, "n").value).toBe("3");
    await kernel.click("Submit");
    expect((await kernel.reply("submit", { call: 4 })).args).toEqual({ entries: { n: "3" }, stamp: "two" });
  });

  test("is asked once, however often one presses", async () => {
    const kernel = await opened();
    await kernel.click("Submit");
    await kernel.click("Submit");
    await press(control(kernel, "n"), "Enter");
    expect(kernel.button("Submit").getAttribute("aria-busy")).toBe("true");
    expect(kernel.sent.filter(({ name }) => name === "submit")).toHaveLength(1);
  });

  test("waits for its scheduler, and says how to start it", async () => {
    const kernel = await opened(undefined, model({ run: { run: { name: "demo", state: "idle", n: 0 } } }));
    expect(kernel.text(".amltk-form-idle")).toContain("Nothing is running, so nothing can be submitted yet");
    expect(kernel.button("Submit").getAttribute("aria-disabled")).toBe("true");
    await enter(kernel, "n", "3");
    await press(control(kernel, "n"), "Enter");
    await kernel.click("Submit");
    expect(kernel.sent).toEqual([]);
    await kernel.click("Start the scheduler");
    await kernel.reply("start", null);
    await kernel.patch({ run: { upsert: { run: { name: "demo", state: "running", n: 1 } } } });
    expect(kernel.text(".amltk-form-idle")).toBe("");
    expect(control(kernel, "n").value).toBe("3");
    await kernel.click("Submit");
    expect(kernel.take("submit").args.entries).toEqual({ n: "3" });
  });

  test("shows the calls it made, with their state and result as they come", async () => {
    const kernel = await opened();
    expect(kernel.text(".amltk-at-made")).toContain("None yet: press Submit");
    await kernel.set("calls", [9, 3]);
    const asked = await kernel.reply("rows", { rows: [call(9, "done", { seconds: 1 })] });
    expect(asked.args).toEqual({ before: 10, limit: 1 });
    const lines = () => [...kernel.el.querySelectorAll(".amltk-made tbody tr")].map((tr) => [...tr.children].map((td) => td.textContent));
    await settled();
    await kernel.reply("detail", { result: "[<b>81</b>]" });
    await settled();
    expect(lines()).toEqual([["9", "9", "✓done", "[<b>81</b>]"], ["3", "3", "◐running", ""]]);
    await kernel.patch({ calls: { upsert: byId([call(3, "failed", { error: "ValueError: bad C" })]) } });
    expect(lines()[1]).toEqual(["3", "3", "✕failed", "ValueError: bad C"]);
    expect(kernel.sent).toEqual([]);
  });

  test("says why there is none", async () => {
    const kernel = await new Kernel(["form"], "Task-f-1").open();
    await kernel.refuse("form", "fit was defined anew, and this form is of the former task.");
    expect(kernel.text(".amltk-main")).toContain("fit was defined anew");
  });
});

describe("Resubmit with changes", () => {
  async function editing(): Promise<Kernel> {
    const kernel = await new Kernel(["queue"]).open();
    await kernel.click("Call 2, details");
    await kernel.reply("detail", { call: 2, state: "failed", function: "f", arguments: [], result: null, error: null, output: null, resubmitted_from: null });
    await kernel.click("Resubmit with changes, call 2");
    const asked = await kernel.reply("edit", form([field("x", "number", "2"), field("data", "kept", null, { text: "Model(3)" })]));
    expect(asked.args).toEqual({ call: 2 });
    await settled();
    return kernel;
  }

  test("begins in the first field and opens the new call's row", async () => {
    const kernel = await editing();
    expect(document.activeElement).toBe(control(kernel, "x"));
    await enter(kernel, "x", "3");
    expect(about(kernel, "x")).toBe("number changed");
    await press(control(kernel, "x"), "Enter");
    await kernel.patch({ calls: { upsert: byId([call(5, "queued", { args: "3", resubmitted_from: 2 })]) } });
    const sent = await kernel.reply("resubmit_with", { call: 5 });
    await settled();
    expect(sent.args).toEqual({ call: 2, entries: { x: "3" }, stamp: "one" });
    expect(kernel.el.querySelector("tr.amltk-detail")?.getAttribute("data-call")).toBe("5");
    expect(document.activeElement).toBe(kernel.button("Call 5, details"));
    expect(kernel.text(".amltk-facts")).toContain("Resubmitted fromcall 2");
  });

  test("is left by Cancel and by Escape, which go back to the button and leave the row open", async () => {
    const kernel = await editing();
    await kernel.click("Cancel");
    expect(kernel.el.querySelector(".amltk-form")).toBeNull();
    expect(document.activeElement).toBe(kernel.button("Resubmit with changes, call 2"));
    await kernel.click("Resubmit with changes, call 2");
    await kernel.reply("edit", form([field("x", "number", "2")]));
    await press(control(kernel, "x"), "Escape");
    expect(kernel.el.querySelector(".amltk-form")).toBeNull();
    expect(kernel.el.querySelector("tr.amltk-detail")?.getAttribute("data-call")).toBe("2");
    expect(kernel.sent).toEqual([]);
  });

  test("stays as it is while everything around it changes", async () => {
    const kernel = await editing();
    await enter(kernel, "x", "31");
    const at = control(kernel, "x");
    for (let i = 0; i < 20; i++) {
      await kernel.patch({ calls: { upsert: byId([call(100 + i, "running"), call(3, i % 2 ? "done" : "running")]) } });
    }
    expect(control(kernel, "x")).toBe(at);
    expect(at.value).toBe("31");
    expect(document.activeElement).toBe(at);
  });

  test("says that the call left the history", async () => {
    const kernel = await new Kernel(["queue"]).open();
    await kernel.click("Call 2, details");
    await kernel.click("Resubmit with changes, call 2");
    await kernel.refuse("edit", "No call 2 is known.");
    expect(kernel.text(".amltk-edit")).toContain("No call 2 is known.");
  });
});
