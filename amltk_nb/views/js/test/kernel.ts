// A kernel's side to test against: keeps what the page asked, answers when told to.

import { act } from "preact/test-utils";
import widget from "../src/index";
import type { CallRecord, Patch, WireModel } from "../src/wire";

export interface Sent {
  kind: string;
  id: number;
  name: string;
  args: Record<string, unknown>;
}

export const AT = 1_700_000_000;

export function call(id: number, state: CallRecord["state"], fields: Partial<CallRecord> = {}): CallRecord {
  return { id, task: "Task-f-1", function: "f", args: String(id), state, submitted_at: AT, ...fields };
}

export function byId(calls: CallRecord[]): Record<string, CallRecord> {
  return Object.fromEntries(calls.map((c) => [String(c.id), c]));
}

export function model(changes: Partial<WireModel> = {}): WireModel {
  return {
    run: { run: { name: "demo", state: "running", n: 1, started_at: AT - 10 } },
    backend: { backend: { name: "ProcessExecutor", options: {}, n_workers: 2 } },
    counts: counts({ queued: 1, running: 1, done: 1, failed: 1 }),
    events: {
      "scheduler/on_start": { emitter: "scheduler", name: "on_start", count: 1, order: 0 },
      "Task-f-1/on_result": { emitter: "Task-f-1", name: "on_result", count: 7, order: 1 },
    },
    callbacks: {
      a: { event: "Task-f-1/on_result", text: "def record(r) -> None", n_calls: 5, n_errors: 2, cell: "[3]", order: 0 },
      b: { event: "Task-f-1/on_result", text: "def secret() -> None", n_calls: 5, hidden: true, order: 1 },
    },
    tasks: {
      "Task-f-1": {
        function: "f", signature: "f(x: int) -> int", order: 0,
        n_queued: 1, n_running: 1, n_done: 1, n_failed: 1, n_cancelled: 0,
      },
    },
    plugins: { p: { task: "Task-f-1", name: "limiter", state: { calls: "3/10", max_concurrent: null }, order: 0 } },
    calls: byId([
      call(4, "queued"),
      call(3, "running", { started_at: AT - 5, worker: "worker-1" }),
      call(2, "failed", { started_at: AT - 8, ended_at: AT - 7, seconds: 1, error: "ValueError: bad C" }),
      call(1, "done", { started_at: AT - 9, ended_at: AT - 8, seconds: 0.5 }),
    ]),
    workers: {},
    machines: {},
    log: {
      "9": { at: AT - 9, source: "scheduler", level: "info", text: "started" },
      "10": { at: AT - 8, source: "on_result · record", level: "print", text: "best 0.97" },
    },
    ...changes,
  };
}

export function counts(given: Record<string, number>): Record<string, { n: number }> {
  const states = ["queued", "running", "done", "failed", "cancelled", "hidden"];
  return Object.fromEntries(states.map((state) => [state, { n: given[state] ?? 0 }]));
}

type Heard = (content: unknown) => void;

const opened = new Set<Kernel>();

/** Take all widgets of a test off the page again. */
export async function closeAll(): Promise<void> {
  for (const kernel of opened) await kernel.close();
}

export class Kernel {
  readonly sent: Sent[] = [];
  readonly el = document.createElement("div");
  private readonly heard = new Map<string, Heard>();
  private version = 0;
  private cleanup: () => void = () => undefined;
  broken = false; // the comm is closed, so that sending throws

  constructor(
    private readonly views: readonly string[] = [],
    private readonly task: string | null = null,
  ) {
    document.body.replaceChildren(this.el);
  }

  private readonly traits = new Map<string, unknown>();

  get = (key: string) => (key === "views" ? this.views : key === "task" ? this.task : this.traits.get(key));
  on = (event: string, callback: (...args: never[]) => void) =>
    void this.heard.set(event, callback as Heard);
  off = (event?: string | null) => void this.heard.delete(event ?? "");
  send = (content: unknown) => {
    if (this.broken) throw new Error("comm closed");
    this.sent.push(content as Sent);
  };

  /** Change a trait of the widget that the kernel keeps in step. */
  async set(trait: string, value: unknown): Promise<void> {
    this.traits.set(trait, value);
    await act(() => this.heard.get(`change:${trait}`)?.(undefined));
  }

  /** Show the widget, which says hello. */
  async show(): Promise<void> {
    opened.add(this);
    await act(() => {
      this.cleanup = widget.render({ model: this, el: this.el });
    });
  }

  /** Show the widget and answer its hello. */
  async open(shown: WireModel = model()): Promise<this> {
    await this.show();
    await this.full(shown);
    await this.reply("snapshot", null);
    return this;
  }

  async close(): Promise<void> {
    opened.delete(this);
    await act(() => this.cleanup());
  }

  listening(): string[] {
    return [...this.heard.keys()];
  }

  async tell(message: Record<string, unknown>): Promise<void> {
    await act(() => this.heard.get("msg:custom")?.({ at: Date.now() / 1000, ...message }));
  }

  async lose(): Promise<void> {
    await act(() => this.heard.get("comm_live_update")?.(undefined));
  }

  async full(shown: WireModel, kind = "full"): Promise<void> {
    await this.tell({ kind, schema: 1, version: ++this.version, model: shown });
  }

  async patch(patch: Patch): Promise<void> {
    await this.tell({ kind: "patch", base: this.version, version: ++this.version, patch });
  }

  /** Take the oldest unanswered command of a name, which must be there. */
  take(name: string): Sent {
    const index = this.sent.findIndex((sent) => sent.name === name);
    if (index < 0) throw new Error(`the page did not ask for ${name}: ${JSON.stringify(this.sent)}`);
    return this.sent.splice(index, 1)[0] as Sent;
  }

  async reply(name: string, value: unknown): Promise<Sent> {
    const sent = this.take(name);
    await this.tell({ kind: "reply", id: sent.id, ok: true, error: null, value });
    return sent;
  }

  async refuse(name: string, error: string, value: unknown = null): Promise<Sent> {
    const sent = this.take(name);
    await this.tell({ kind: "reply", id: sent.id, ok: false, error, value });
    return sent;
  }

  /** The button with this accessible name. */
  button(name: string): HTMLButtonElement {
    const found = this.buttons().filter((b) => spoken(b) === name);
    if (found.length !== 1) {
      throw new Error(`${found.length} buttons "${name}" among ${this.buttons().map(spoken).join(" | ")}`);
    }
    return found[0] as HTMLButtonElement;
  }

  buttons(): HTMLButtonElement[] {
    return [...this.el.querySelectorAll("button")];
  }

  async click(name: string): Promise<void> {
    await act(async () => {
      this.button(name).click();
      for (let i = 0; i < 5; i++) await Promise.resolve(); // what the click awaits
    });
  }

  async type(label: string, text: string): Promise<void> {
    const input = this.el.querySelector<HTMLInputElement>(`input[aria-label="${label}"]`);
    if (!input) throw new Error(`no field "${label}"`);
    await act(() => {
      input.value = text;
      input.dispatchEvent(new Event("input", { bubbles: true }));
    });
  }

  text(selector: string): string {
    return this.el.querySelector(selector)?.textContent ?? "";
  }

  /** The ids of the rows that are shown, in order. */
  rows(): number[] {
    return [...this.el.querySelectorAll("tr.amltk-row")].map((r) => Number(r.getAttribute("data-call")));
  }
}

function spoken(button: Element): string {
  return (button.getAttribute("aria-label") ?? button.textContent ?? "").trim();
}
