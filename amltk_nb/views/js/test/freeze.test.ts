// What a page does with the outputs of its notebook when a run has ended.

import { expect, test } from "vitest";
import { freeze } from "../src/freeze";
import type { AnyModel } from "../src/wire";

const VIEW = "application/vnd.jupyter.widget-view+json";
const FROZEN = { model_id: "ours", bundle: { "text/html": "<p>done</p>", "text/plain": "done" } };

class Outputs {
  constructor(readonly list: object[]) {}

  get length(): number {
    return this.list.length;
  }

  get(i: number): { data: Record<string, unknown> } {
    return this.list[i] as { data: Record<string, unknown> };
  }

  set(i: number, output: object): void {
    this.list[i] = output;
  }
}

function shown(model_id: string): object {
  return { output_type: "display_data", data: { [VIEW]: { model_id }, "text/html": "<p>live</p>" }, metadata: {} };
}

function page(widget_manager: unknown): AnyModel {
  const nothing = () => undefined;
  return { widget_manager, get: nothing, send: nothing, on: nothing, off: nothing };
}

test("every output that shows the widget is replaced, and no other", () => {
  const stream = { output_type: "stream", name: "stdout", text: "hello" };
  const first = new Outputs([stream, shown("ours"), shown("another's"), shown("ours")]);
  const second = new Outputs([shown("ours")]);
  const cells = new Set([{ outputs: first }, {}, { outputs: second }]);
  freeze(page({ context: { model: { cells } } }), FROZEN);
  const frozen = { output_type: "display_data", data: FROZEN.bundle, metadata: {} };
  expect(first.list).toEqual([stream, frozen, shown("another's"), frozen]);
  expect(second.list).toEqual([frozen]);
});

test.each([
  [undefined],
  [null],
  [{}],
  [{ context: {} }],
  [{ context: { model: { cells: 7 } } }],
  [{ context: { model: { cells: [{ outputs: { length: 1 } }] } } }],
  [{ get context() { throw new Error("not yours"); } }],
])("a host that does not let a widget there is left alone: %#", (manager) => {
  expect(() => freeze(page(manager), FROZEN)).not.toThrow();
});
