import { describe, expect, test } from "vitest";
import { addRows, EMPTY, findCall, N_ARCHIVED, nNotTriedAgain, reduce, totals, type Page } from "../src/page";
import type { Patch } from "../src/wire";
import { byId, call, counts, model } from "./kernel";

const LIVE = reduce(EMPTY, { kind: "full", schema: 1, version: 5, at: 0, model: model() }).page;

function patched(page: Page, patch: Patch, base = page.version) {
  return reduce(page, { kind: "patch", base, version: base + 1, at: 0, patch });
}

describe("a full model", () => {
  test("is the page's state", () => {
    expect(LIVE.phase).toBe("live");
    expect(LIVE.version).toBe(5);
    expect([...LIVE.model.calls.keys()]).toEqual(["1", "2", "3", "4"]);
    expect(totals(LIVE.model)).toEqual({ ended: 2, submitted: 4 });
  });

  test("of another schema is not looked at", () => {
    const { page } = reduce(LIVE, { kind: "full", schema: 2, version: 9, at: 0, model: {} as never });
    expect(page.phase).toBe("other");
    expect(page.model).toBe(LIVE.model);
  });

  test("that is final ends the page's life", () => {
    const { page } = reduce(LIVE, { kind: "final", schema: 1, version: 6, at: 0, model: model() });
    expect(page.phase).toBe("final");
    expect(patched(page, { run: { remove: ["run"] } }).page).toBe(page);
  });
});

describe("a patch", () => {
  test("changes the records it names and no other collection", () => {
    const patch: Patch = { calls: { upsert: { "5": call(5, "queued") }, remove: ["4"] } };
    const { page, needsFull } = patched(LIVE, patch);
    expect(needsFull).toBe(false);
    expect(page.version).toBe(6);
    expect([...page.model.calls.keys()]).toEqual(["1", "2", "3", "5"]);
    expect(page.model.log).toBe(LIVE.model.log);
    expect([...LIVE.model.calls.keys()]).toEqual(["1", "2", "3", "4"]);
  });

  test("upon another version asks for everything and changes nothing", () => {
    const { page, needsFull } = patched(LIVE, { run: { remove: ["run"] } }, 7);
    expect(needsFull).toBe(true);
    expect(page).toBe(LIVE);
  });

  test("that is older than the page is dropped in silence", () => {
    expect(patched(LIVE, { run: { remove: ["run"] } }, 3)).toEqual({ page: LIVE, needsFull: false });
  });

  test("before anything else came asks for everything", () => {
    expect(patched(EMPTY, {}, 3).needsFull).toBe(true);
  });
});

describe("calls that left the model", () => {
  test("stay when they had ended, and go when they had not", () => {
    const { page } = patched(LIVE, { calls: { remove: ["1", "4"] } });
    expect(findCall(page, 1)?.state).toBe("done");
    expect(findCall(page, 4)).toBeUndefined();
  });

  test("are bounded: the oldest go first", () => {
    const many = Array.from({ length: N_ARCHIVED + 3 }, (_, i) => call(i + 100, "done"));
    const page = addRows(LIVE, many);
    expect(page.archive.size).toBe(N_ARCHIVED);
    expect(page.archive.has(102)).toBe(false);
    expect(page.archive.has(103)).toBe(true);
  });

  test("are not shown twice when they come back", () => {
    const { page } = patched(LIVE, { calls: { remove: ["1"] } });
    const again = patched(page, { calls: { upsert: byId([call(1, "done")]) } }).page;
    expect(again.archive.size).toBe(0);
    expect(addRows(again, [call(1, "done")]).archive.size).toBe(0);
  });

  test("that were queued when fetched are shown until the queue has moved past them", () => {
    const long = patched(LIVE, { counts: { upsert: counts({ queued: 9 }) } }).page;
    const page = addRows(long, [call(90, "queued"), call(95, "queued"), call(80, "running")]);
    expect([...page.glimpsed.keys()]).toEqual([90, 95, 80]);
    const moved = patched(page, { calls: { upsert: byId([call(91, "queued")]), remove: ["4"] } }).page;
    expect([...moved.glimpsed.keys()]).toEqual([95]);
    const short = patched(moved, { counts: { upsert: counts({ queued: 1 }) }, calls: { remove: ["1"] } }).page;
    expect([...short.glimpsed.keys()]).toEqual([]);
  });
});

test("failures that were resubmitted are not offered again", () => {
  expect(nNotTriedAgain(LIVE)).toBe(1);
  const again = patched(LIVE, { calls: { upsert: byId([call(5, "queued", { resubmitted_from: 2 })]) } }).page;
  expect(nNotTriedAgain(again)).toBe(0);
});
