import { describe, expect, test } from "vitest";
import { remaining } from "../src/eta";
import * as format from "../src/format";
import { EMPTY, reduce } from "../src/page";
import { shareOf } from "../src/plugins";
import { chosen, held, known, pieces } from "../src/rows";
import type { CallRecord } from "../src/wire";
import { byId, call, counts, model } from "./kernel";

describe("format", () => {
  test.each([
    [-1, "0 ms"], [0.004, "4 ms"], [0.31, "0.31 s"], [9.999, "10.0 s"], [12.44, "12.4 s"], [59.97, "1 min 00 s"],
    [125, "2 min 05 s"], [3720, "1 h 02 min"], [273_600, "3 d 04 h"],
  ])("duration(%d) is %s", (s, text) => expect(format.duration(s)).toBe(text));

  test.each([[0.9, "0 s"], [59.9, "59 s"], [60, "1 min 00 s"]])("ticking(%d) is %s", (s, text) =>
    expect(format.ticking(s)).toBe(text));

  test.each([[0.001, "0 calls/s"], [0.423, "0.42 calls/s"], [3.14, "3.1 calls/s"], [12_345.6, "12,346 calls/s"]])("rate(%d) is %s", (n, text) =>
    expect(format.rate(n, "calls")).toBe(text));

  test.each([
    [0.1, 0.6, "under 1 s left"], [19.2, 27.5, "about 19–28 s left"], [100, 200, "about 1–4 min left"],
    [0, 6.1, "up to 7 s left"], [0.4, 1, "up to 1 s left"], [7000, 7100, "about 1–2 h left"], [119, 120, "about 1–2 min left"],
  ])("range(%d, %d) is %s", (low, high, text) => expect(format.range(low, high)).toBe(text));

  test("a program's strings are spelled out where they would hide something", () => {
    expect(format.visible("a\u202eb\u0000c\x1b[31mred\x1b[0m\x1b]8;;x\x07")).toBe("a\\u202eb␀cred␛]8;;x␇");
    expect(format.visible("tab\tand\r\nline")).toBe("tab\tand\nline");
    expect(format.oneLine("a\nb")).toBe("a⏎b");
    expect(format.visible("family 👨‍👩‍👧 שלום")).toBe("family 👨‍👩‍👧 שלום");
  });

  test.each([[null, "none"], [true, "yes"], [1234.56789, "1,234.5679"], ["3/10", "3/10"]])("value(%s) is %s", (v, text) =>
    expect(format.value(v)).toBe(text));
});

describe("what is left", () => {
  const page = (calls: CallRecord[], n: Record<string, number>) =>
    reduce(EMPTY, { kind: "full", schema: 1, version: 1, at: 0, model: model({ calls: byId(calls), counts: counts(n) }) }).page;
  const done = (n: number, seconds = 2) => Array.from({ length: n }, (_, i) => call(i + 1, "done", { seconds }));

  test("is not guessed before five calls are done", () => {
    expect(remaining(page(done(4), { queued: 10, running: 2 }), 0)).toBeUndefined();
    expect(remaining(page(done(5), { queued: 10, running: 2 }), 0)).toBeDefined();
  });

  test("is what the queue takes at the present concurrency", () => {
    expect(remaining(page(done(5), { queued: 9, running: 2 }), 0)).toEqual({ lowS: 10, highS: 10 });
  });

  test("is a range as wide as the durations differ", () => {
    const mixed = [1, 1, 2, 3, 3].map((seconds, i) => call(i + 1, "done", { seconds }));
    const { lowS, highS } = remaining(page(mixed, { queued: 9, running: 2 }), 0) ?? { lowS: 0, highS: 0 };
    expect((lowS + highS) / 2).toBeCloseTo(10);
    expect(highS - lowS).toBeCloseTo(2 * 1.28 * Math.sqrt(10 + 100 / 5) / 2);
  });

  test("knows that two workers cannot run a thousand calls at once", () => {
    expect(remaining(page(done(5), { queued: 9, running: 1000 }), 0)).toEqual({ lowS: 10, highS: 10 });
  });

  test("of tiny calls reaches to what the observed rate says", () => {
    const left = page(done(5, 0.001), { queued: 999, running: 2 });
    expect(remaining(left, 0)?.highS).toBeCloseTo(0.5);
    expect(remaining(left, 0, 100)?.highS).toBe(10);
    expect(remaining(page(done(5), { queued: 9, running: 2 }), 0, 1)).toEqual({ lowS: 10, highS: 10 });
  });

  test("may be as long again as a call has run that outlasts the measured ones", () => {
    const running = (since: number) => call(9, "running", { started_at: 100 - since });
    const left = (since: number) => remaining(page([...done(5), running(since)], { running: 1 }), 100);
    expect(left(1)).toEqual({ lowS: 1, highS: 1 });
    expect(left(60)).toEqual({ lowS: 1, highS: 60 });
  });

  test("is nothing when nothing is left", () => {
    expect(remaining(page(done(9), {}), 0)).toBeUndefined();
  });
});

describe("rows", () => {
  const page = reduce(EMPTY, { kind: "full", schema: 1, version: 1, at: 0, model: model() }).page;
  const ids = (calls: CallRecord[]) => calls.map((c) => c.id);

  test("are running, queued, then ended ones with the latest first", () => {
    expect(ids(known(page))).toEqual([3, 4, 2, 1]);
  });

  test("are chosen by state and by any text", () => {
    expect(ids(chosen(known(page), "failed", ""))).toEqual([2]);
    expect(ids(chosen(known(page), "all", "BAD c"))).toEqual([2]);
    expect(ids(chosen(known(page), "all", "worker-1"))).toEqual([3]);
    expect(ids(chosen(known(page), "done", "bad"))).toEqual([]);
  });

  test("stay where they are while they are held, and new ones come last", () => {
    const calls = [call(9, "running"), ...known(page)];
    expect(ids(held(calls, [1, 2, 77, 3]))).toEqual([1, 2, 3, 9, 4]);
  });

  test.each([
    [3, 0, 9, [], [{ index: 0 }, { index: 1 }, { index: 2 }]],
    [9, 3, 4, [], [{ gap: 3 }, { index: 3 }, { index: 4 }, { gap: 4 }]],
    [9, 3, 4, [7, -1, 99], [{ gap: 3 }, { index: 3 }, { index: 4 }, { gap: 2 }, { index: 7 }, { gap: 1 }]],
    [9, -5, 0, [0], [{ index: 0 }, { gap: 8 }]],
    [0, 0, 5, [], []],
  ])("pieces(%d, %d, %d, %j)", (n, first, last, pinned, expected) => {
    expect(pieces(n, first, last, pinned)).toEqual(expected);
  });

  test("every row is drawn or stood for exactly once", () => {
    const total = pieces(10_000, 500, 540, [3, 9_999]).reduce((sum, p) => sum + ("gap" in p ? p.gap : 1), 0);
    expect(total).toBe(10_000);
  });
});

test.each([["3/10", 0.3], ["2/2", 1], ["7 / 5", 1], ["1/0", undefined], ["a/b", undefined], [3, undefined]])(
  "the share of %s is %s", (v, share) => expect(shareOf(v)).toBe(share));
