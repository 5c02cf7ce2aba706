// Tells a reader who is elsewhere that a run is over: by a notification and by the tab's title.

import type { Connection } from "./connection";
import { duration, oneLine } from "./format";
import { progressText } from "./progress";
import { totals, type Page } from "./page";
import { Titles } from "./titles";
import type { RunRecord } from "./wire";

const NAME_CHARS = 40;

/**
 * Follows one dashboard while its reader wants to be told of the end.
 *
 * It listens to the connection itself and not as a component: at the end of a run the host takes
 * the whole view away, before anything would be drawn once more.
 */
export class Notifier {
  on = false;
  private isAsking = false;
  private wasLive = false;
  private readonly titles: Titles;
  private readonly leave: () => void;

  constructor(
    private readonly line: Connection,
    private readonly doc: Document = document,
  ) {
    this.titles = Titles.of(doc);
    this.leave = line.subscribe(() => this.look());
  }

  /** Switch it, and ask the browser where that is needed: on a click only, as browsers demand. */
  async toggle(): Promise<void> {
    if (this.isAsking) return;
    this.set(!this.on);
    if (!this.on) return;
    this.isAsking = true;
    const refused = await refusal(this.doc);
    this.isAsking = false;
    if (!refused) return;
    this.set(hasTitle(this.doc));
    const instead = this.on ? "Only the title of this tab will tell." : "@scheduler.on_finished can tell by mail, say.";
    this.line.say(`${refused} ${instead}`);
  }

  private set(on: boolean): void {
    this.on = on;
    this.wasLive = false;
    if (on) this.look();
    else this.titles.mark(this, undefined);
  }

  /** Stop following; what is over is told of first, and stays in the title of a hidden page. */
  close(): void {
    this.look();
    this.leave();
    const ended = this.on && !this.line.live() && this.run() !== undefined;
    if (ended && this.doc.visibilityState === "hidden") {
      const seen = () => this.titles.mark(this, undefined);
      this.doc.addEventListener("visibilitychange", seen, { once: true });
    } else {
      this.titles.mark(this, undefined);
    }
  }

  private run(): RunRecord | undefined {
    return this.line.page.model.run.get("run");
  }

  private look(): void {
    const run = this.run();
    if (!this.on || !run) return;
    if (this.line.live()) {
      this.wasLive = true;
      this.titles.mark(this, `${percent(this.line.page)} % ${short(run)}`);
    } else if (this.wasLive && run.state === "finished") {
      this.wasLive = false;
      this.titles.mark(this, `${icon(run)} ${short(run)}`);
      if (this.doc.visibilityState === "hidden") this.notify(run);
    }
  }

  private notify(run: RunRecord): void {
    if (typeof Notification === "undefined" || Notification.permission !== "granted") return;
    const why = [run.code, run.reason].filter(Boolean).join(": ");
    const took = run.elapsed_s === undefined ? "" : ` in ${duration(run.elapsed_s)}`;
    try {
      const told = new Notification(`${icon(run)} ${short(run)} finished`, {
        body: oneLine(`${why}\n`.trim()) + `\n${progressText(this.line.page.model)}${took}`,
        tag: `amltk_nb ${run.name} ${run.started_at}`, // two views of one run tell of it once
      });
      told.onclick = () => {
        window.focus();
        told.close();
      };
    } catch {
      // Some browsers let only service workers do this; the title tells.
    }
  }
}

/** Ask for what is needed; returns why it cannot be had. */
async function refusal(doc: Document): Promise<string | undefined> {
  if (isInCode(doc)) return "VS Code lets no notebook notify.";
  if (!window.isSecureContext) return "Browsers let pages notify by https or from localhost only.";
  if (typeof Notification === "undefined") return "This browser has no notifications.";
  let answer = Notification.permission;
  try {
    if (answer === "default") answer = await Notification.requestPermission();
  } catch {
    answer = "denied";
  }
  if (answer === "granted") return undefined;
  if (answer === "default") return "The browser's question was closed without an answer.";
  return "The browser blocks notifications of this page; its site settings can allow them.";
}

/** Whether anybody sees the title of this document: it may be a frame within the host's. */
function hasTitle(doc: Document): boolean {
  return window.parent === window && !isInCode(doc);
}

function isInCode(doc: Document): boolean {
  return /\bvscode-/.test(doc.body?.className ?? "");
}

function icon(run: RunRecord): string {
  return run.code === "exception" || run.code === "cancelled" ? "✕" : "✓";
}

function short(run: RunRecord): string {
  const name = oneLine(run.name) || "Scheduler";
  return name.length > NAME_CHARS ? `${name.slice(0, NAME_CHARS)}…` : name;
}

function percent(page: Page): number {
  const { ended, submitted } = totals(page.model);
  return submitted > 0 ? Math.floor((100 * ended) / submitted) : 0;
}
