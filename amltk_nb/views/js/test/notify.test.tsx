// Being told of the end: the button, the notification, and the title that is given back.

import { act } from "preact/test-utils";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { Titles } from "../src/titles";
import { AT, closeAll, counts, Kernel, model } from "./kernel";
import type { RunRecord } from "../src/wire";

const TITLE = "Untitled.ipynb  -  Lab"; // two spaces, as hosts may have them

class FakeNotification {
  static permission = "granted";
  static requestPermission = vi.fn(async () => FakeNotification.permission);
  static shown: { title: string; options: { body: string; tag: string } }[] = [];
  onclick: (() => void) | null = null;
  close = vi.fn();

  constructor(title: string, options: { body: string; tag: string }) {
    FakeNotification.shown.push({ title, options });
  }
}

let visibility = "hidden";

beforeEach(() => {
  FakeNotification.permission = "granted";
  FakeNotification.shown = [];
  FakeNotification.requestPermission = vi.fn(async () => FakeNotification.permission);
  vi.stubGlobal("Notification", FakeNotification);
  vi.stubGlobal("isSecureContext", true);
  visibility = "hidden";
  vi.spyOn(document, "visibilityState", "get").mockImplementation(() => visibility as DocumentVisibilityState);
  document.title = TITLE;
});

afterEach(async () => {
  await closeAll();
  await come(); // what is over is in the title until somebody has come to see it
  expect(raw()).not.toMatch(/demo|two/);
  vi.unstubAllGlobals();
  document.body.className = "";
  document.body.replaceChildren();
});

const ENDED: Partial<RunRecord> = { state: "finished", ended_at: AT, elapsed_s: 75, code: "stopped", reason: "good enough" };

function run(fields: Partial<RunRecord> = {}): { run: RunRecord } {
  return { run: { name: "demo", state: "running", n: 1, started_at: AT - 10, ...fields } };
}

async function finish(kernel: Kernel, fields: Partial<RunRecord> = {}): Promise<void> {
  await kernel.patch({
    run: { upsert: run({ ...ENDED, ...fields }) },
    counts: { upsert: counts({ done: 3, failed: 1 }) },
  });
}

function raw(): string {
  return document.querySelector("title")?.textContent ?? "";
}

async function come(): Promise<void> {
  visibility = "visible";
  await act(() => void document.dispatchEvent(new Event("visibilitychange")));
}

describe("a notification", () => {
  test("comes once at the end, with name, outcome and counts, if the page is not in sight", async () => {
    const kernel = await new Kernel().open();
    expect(kernel.button("Notify me").getAttribute("aria-pressed")).toBe("false");
    await kernel.click("Notify me");
    expect(kernel.button("Notify me").getAttribute("aria-pressed")).toBe("true");
    expect(kernel.text(".amltk-notice")).toBe("");
    await finish(kernel);
    await finish(kernel);
    expect(FakeNotification.shown).toEqual([
      {
        title: "✓ demo finished",
        options: {
          body: "stopped: good enough\n4 of 4 calls ended: 3 done, 1 failed in 1 min 15 s",
          tag: `amltk_nb demo ${AT - 10}`,
        },
      },
    ]);
  });

  test("comes though the view is taken away with the last message", async () => {
    const kernel = await new Kernel().open();
    await kernel.click("Notify me");
    await kernel.full(model({ run: run(ENDED), counts: counts({ done: 4 }) }), "final");
    await kernel.close();
    expect(FakeNotification.shown.map((n) => n.title)).toEqual(["✓ demo finished"]);
    expect(raw()).toBe("✓ demo");
    await come();
    expect(raw()).toBe(TITLE);
  });

  test.each([
    ["is not asked for", async () => undefined],
    ["is asked for no more", async (kernel: Kernel) => {
      await kernel.click("Notify me");
      await kernel.click("Notify me");
    }],
    ["finds its reader here", async (kernel: Kernel) => {
      await kernel.click("Notify me");
      visibility = "visible";
    }],
  ])("that %s does not come", async (_, before) => {
    const kernel = await new Kernel().open();
    await before(kernel);
    await finish(kernel);
    expect(FakeNotification.shown).toEqual([]);
  });

  test("is of runs that end from now on, and of each of them", async () => {
    const kernel = await new Kernel().open(model({ run: run(ENDED) }));
    await kernel.click("Notify me");
    expect(raw()).toBe(TITLE);
    await kernel.patch({ run: { upsert: run({ n: 2 }) } });
    await finish(kernel, { n: 2, code: "exception", reason: "ValueError: <b>no</b>" });
    expect(FakeNotification.shown.map((n) => [n.title, n.options.body.split("\n")[0]])).toEqual([
      ["✕ demo finished", "exception: ValueError: <b>no</b>"],
    ]);
    expect(raw()).toBe("✕ demo");
    await kernel.patch({ run: { upsert: run({ n: 3, started_at: AT }) } });
    await finish(kernel, { n: 3 });
    expect(FakeNotification.shown.length).toBe(2);
  });
});

describe("the browser is asked", () => {
  test("on a click only, and once", async () => {
    FakeNotification.permission = "default";
    FakeNotification.requestPermission = vi.fn(async () => (FakeNotification.permission = "granted"));
    const kernel = await new Kernel().open();
    await finish(kernel);
    await kernel.patch({ run: { upsert: run() } });
    expect(FakeNotification.requestPermission).not.toHaveBeenCalled();
    await kernel.click("Notify me");
    expect(FakeNotification.requestPermission).toHaveBeenCalledTimes(1);
    expect(kernel.text(".amltk-notice")).toBe("");
  });

  test.each([
    ["denied", "The browser blocks notifications of this page; its site settings can allow them. "],
    ["default", "The browser's question was closed without an answer. "],
  ])("and when it answers %s the reader is told, and has the title", async (answer, why) => {
    FakeNotification.permission = answer;
    const kernel = await new Kernel().open();
    await kernel.click("Notify me");
    expect(kernel.text(".amltk-notice span")).toBe(`${why}Only the title of this tab will tell.`);
    await finish(kernel);
    expect([FakeNotification.shown, raw()]).toEqual([[], "✓ demo"]);
  });

  test("never where it would refuse anyway", async () => {
    vi.stubGlobal("isSecureContext", false);
    const kernel = await new Kernel().open();
    await kernel.click("Notify me");
    expect(kernel.text(".amltk-notice span")).toContain("by https or from localhost only. Only the title");
    expect(FakeNotification.requestPermission).not.toHaveBeenCalled();
  });

  test("and where nobody sees the title either, it stays off", async () => {
    document.body.className = "vscode-body vscode-dark";
    const kernel = await new Kernel().open();
    await kernel.click("Notify me");
    expect(kernel.text(".amltk-notice span")).toBe("VS Code lets no notebook notify. @scheduler.on_finished can tell by mail, say.");
    expect(kernel.button("Notify me").getAttribute("aria-pressed")).toBe("false");
    expect(raw()).toBe(TITLE);
  });

  test("a browser without notifications has the title, one that cannot make them, too", async () => {
    vi.stubGlobal("Notification", undefined);
    const kernel = await new Kernel().open();
    await kernel.click("Notify me");
    expect(kernel.text(".amltk-notice span")).toContain("This browser has no notifications.");
    vi.stubGlobal("Notification", Object.assign(() => { throw new TypeError("Illegal constructor"); }, { permission: "granted" }));
    await finish(kernel);
    expect(raw()).toBe("✓ demo");
  });
});

describe("the title of the tab", () => {
  test("tells how far it is while asked for, and comes back as it was", async () => {
    const kernel = await new Kernel().open();
    await kernel.click("Notify me");
    expect(raw()).toBe("50 % demo");
    await kernel.patch({ counts: { upsert: counts({ done: 2, running: 1 }) } });
    expect(raw()).toBe("66 % demo");
    await kernel.click("Notify me");
    expect(raw()).toBe(TITLE);
  });

  test("is a name of the program's, spelled and cut", async () => {
    const name = `a\u202eb\n<i>${"x".repeat(99)}`;
    const kernel = await new Kernel().open(model({ run: run({ name }) }));
    await kernel.click("Notify me");
    expect(raw()).toBe(`50 % a\\u202eb⏎<i>${"x".repeat(28)}…`);
  });

  test("comes back when the view goes, whether or not it is over", async () => {
    const kernel = await new Kernel().open();
    await kernel.click("Notify me");
    await kernel.close();
    expect(raw()).toBe(TITLE);
    visibility = "visible";
    const other = await new Kernel().open();
    await other.click("Notify me");
    await finish(other);
    expect(raw()).toBe("✓ demo");
    await other.close();
    expect(raw()).toBe(TITLE);
  });

  test("that the host changes meanwhile is what comes back", async () => {
    const kernel = await new Kernel().open();
    await kernel.click("Notify me");
    document.title = "Other.ipynb";
    await kernel.tell({ kind: "beat" });
    expect(raw()).toBe("50 % demo");
    document.title = "Third.ipynb";
    await kernel.click("Notify me");
    expect(raw()).toBe("Third.ipynb");
  });

  test("is shared by the dashboards of a page, whatever order they come and go in", async () => {
    const one = await new Kernel().open();
    const two = new Kernel();
    document.body.append(one.el);
    await two.open(model({ run: run({ name: "two" }) }));
    await one.click("Notify me");
    await two.click("Notify me");
    expect(raw()).toBe("50 % demo, 50 % two");
    document.title = "Other.ipynb";
    await finish(one);
    expect(raw()).toBe("✓ demo, 50 % two");
    await one.click("Notify me");
    expect(raw()).toBe("50 % two");
    await two.close();
    expect(raw()).toBe("Other.ipynb");
  });

  test("is kept by one for all modules of a page, also one of a document without any", () => {
    expect(Titles.of(document)).toBe(Titles.of(document));
    const bare = document.implementation.createHTMLDocument();
    bare.querySelector("title")?.remove();
    const who = {};
    Titles.of(bare).mark(who, "1 % a");
    expect(bare.title).toBe("1 % a");
    Titles.of(bare).mark(who, undefined);
    expect(bare.title).toBe("");
  });
});
