// One page's line to the kernel: keeps the page's state, sends commands, knows what is unanswered.

import { freeze } from "./freeze";
import { count, EMPTY, reduce, totals, type Page } from "./page";
import { SCHEMA, type AnyModel, type CommandName, type Message, type Reply } from "./wire";

export interface Asked {
  key: string;
  since: number; // seconds of this page's clock
  resolve: (reply: Reply) => void;
}

export interface Notice {
  id: number;
  text: string;
}

const RATE_WINDOW_S = 10;
const GONE_AFTER_S = 300; // of silence during a run: longer than most cells block
const FULL_GAP_S = 1; // everything is asked for at most so often

export class Connection {
  page: Page = EMPTY;
  notice: Notice | null = null;
  sought: { call: number } | null = null; // a call that another view wants the queue to show
  gone = false; // the host said that the kernel's side is lost
  private readonly asked = new Map<number, Asked>();
  private readonly listeners = new Set<() => void>();
  private readonly samples: { at: number; ended: number }[] = [];
  private offsetS = 0; // the kernel's clock minus this page's
  private heardAt: number;
  private askedFullAt = -Infinity;
  private isOwed = false; // everything was asked for and has not come
  private again: ReturnType<typeof setTimeout> | undefined; // when it is asked for once more
  private nextId: number;

  constructor(
    private readonly model: AnyModel,
    private readonly clock: () => number = () => Date.now() / 1000,
    signal?: AbortSignal,
  ) {
    this.heardAt = clock();
    // All pages of a kernel see all replies, so ids must not collide between them.
    this.nextId = Math.floor(Math.random() * 2 ** 32) * 2 ** 16;
    const onMessage = (message: unknown) => this.receive(message);
    const onLiveness = () => this.lose();
    model.on("msg:custom", onMessage);
    model.on("comm_live_update", onLiveness);
    signal?.addEventListener("abort", () => {
      model.off("msg:custom", onMessage);
      model.off("comm_live_update", onLiveness);
      clearTimeout(this.again);
    });
    this.needFull();
  }

  subscribe(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /** Be told a trait of the widget now and whenever it changes; returns how to stop that. */
  follow(trait: string, told: (value: unknown) => void): () => void {
    const tell = () => told(this.model.get(trait));
    this.model.on(`change:${trait}`, tell);
    tell();
    return () => this.model.off(`change:${trait}`, tell);
  }

  /** Seconds since the epoch by the kernel's clock. */
  now(): number {
    return this.clock() + this.offsetS;
  }

  /** Seconds since anything came from the kernel. */
  silence(): number {
    return this.clock() - this.heardAt;
  }

  /** Whether the kernel's side is lost, as far as a page can know. */
  lost(): boolean {
    return this.gone || (this.live() && this.silence() > GONE_AFTER_S);
  }

  /** Whether a run is on, so that something must be heard every second. */
  live(): boolean {
    const state = this.page.model.run.get("run")?.state;
    return this.page.phase === "live" && state !== undefined && state !== "idle" && state !== "finished";
  }

  /** Calls ended per second over the last seconds; undefined until that means something. */
  rate(): number | undefined {
    const now = this.now();
    const start = this.samples.findLast((s) => s.at <= now - RATE_WINDOW_S) ?? this.samples[0];
    const last = this.samples.at(-1);
    if (!start || !last || now - start.at < 3) return undefined;
    return (last.ended - start.ended) / (now - start.at);
  }

  /** Since when a command is unanswered, in seconds of this page's clock. */
  askedSince(key: string): number | undefined {
    for (const asked of this.asked.values()) if (asked.key === key) return asked.since;
    return undefined;
  }

  /** For how many seconds the oldest unanswered command has been waiting. */
  longestWait(): number {
    let oldest = this.clock();
    const now = oldest;
    for (const asked of this.asked.values()) oldest = Math.min(oldest, asked.since);
    return now - oldest;
  }

  /** Send a command; the promise resolves with the kernel's reply, refusals included. */
  ask(name: CommandName, args: Record<string, unknown> = {}, key: string = name): Promise<Reply> {
    const id = this.nextId++;
    const answered = new Promise<Reply>((resolve) => {
      this.asked.set(id, { key, since: this.clock(), resolve });
    });
    try {
      this.model.send({ kind: "command", id, name, args });
    } catch (error) {
      this.settle({ kind: "reply", id, ok: false, error: `Not sent: ${error}`, value: null, isUnsent: true });
    }
    this.changed();
    return answered;
  }

  /** Send a command that a person asked for: a refusal is shown. */
  async press(name: CommandName, args: Record<string, unknown>, key: string): Promise<Reply> {
    this.notice = null;
    const reply = await this.ask(name, args, key);
    if (!reply.ok) this.say(reply.error ?? "The kernel refused and did not say why.");
    return reply;
  }

  say(text: string | null): void {
    this.notice = text === null ? null : { id: (this.notice?.id ?? 0) + 1, text };
    this.changed();
  }

  /** Have the queue open a call's row and go there. */
  seek(call: number): void {
    this.sought = { call };
    this.changed();
  }

  update(page: Page): void {
    this.page = page;
    this.changed();
  }

  /** Ask for everything: now, or as soon as that is allowed again. */
  private needFull(): void {
    this.isOwed = true;
    if (this.again !== undefined) return;
    const waitS = this.askedFullAt + FULL_GAP_S - this.clock();
    if (waitS <= 0) return this.hello();
    this.again = setTimeout(() => {
      this.again = undefined;
      if (this.isOwed) this.hello();
    }, Math.ceil(waitS * 1000));
  }

  private hello(): void {
    this.askedFullAt = this.clock();
    void this.ask("snapshot", { schema: SCHEMA }).then((reply) => {
      if (reply.ok && this.isOwed) this.needFull(); // should what was promised be lost
      if (reply.ok || reply.isUnsent) return;
      this.isOwed = false;
      this.update({ ...this.page, phase: "other", why: reply.error ?? "The kernel does not take this page." });
    });
  }

  private lose(): void {
    // The host tells of both losing and regaining; only a word from the kernel settles which.
    this.gone = true;
    this.needFull();
    this.changed();
  }

  private receive(raw: unknown): void {
    if (!isMessage(raw)) return; // of a newer kernel, say
    this.heardAt = this.clock();
    this.gone = false;
    if (raw.kind === "reply") this.settle(raw);
    else this.take(raw);
    this.changed();
  }

  private settle(reply: Reply): void {
    const asked = reply.id === null ? undefined : this.asked.get(reply.id);
    if (!asked) return; // another page's
    this.asked.delete(reply.id as number);
    asked.resolve(reply);
  }

  private take(message: Exclude<Message, Reply>): void {
    this.offsetS = message.at - this.clock();
    const { page, needsFull } = reduce(this.page, message);
    this.page = page;
    if (message.kind === "full" || message.kind === "final") this.isOwed = false;
    if (needsFull) this.needFull();
    if (message.kind === "final" && page.phase === "final") freeze(this.model, message.frozen);
    if (message.kind !== "beat") this.sample(message.at);
  }

  private sample(at: number): void {
    const { ended } = totals(this.page.model);
    const last = this.samples.at(-1);
    if (last && ended < last.ended) this.samples.length = 0; // another scheduler's history
    if (count(this.page.model, "running") === 0 && last?.ended === ended) return;
    this.samples.push({ at, ended });
    while (this.samples.length > 2 && (this.samples[1]?.at ?? at) < at - RATE_WINDOW_S) {
      this.samples.shift();
    }
  }

  private changed(): void {
    for (const listener of [...this.listeners]) listener();
  }
}

const FIELDS: Record<string, (m: Record<string, unknown>) => boolean> = {
  full: (m) => isNumber(m.version) && isObject(m.model),
  final: (m) => isNumber(m.version) && isObject(m.model),
  patch: (m) => isNumber(m.version) && isNumber(m.base) && isObject(m.patch),
  beat: () => true,
};

/** Whether this is a message that this page knows, with what it needs of it. */
function isMessage(raw: unknown): raw is Message {
  if (!isObject(raw)) return false;
  if (raw.kind === "reply") return true;
  const fields = Object.hasOwn(FIELDS, String(raw.kind)) ? FIELDS[String(raw.kind)] : undefined;
  return fields !== undefined && isNumber(raw.at) && fields(raw);
}

function isNumber(value: unknown): value is number {
  return typeof value === "number" && Number.isFinite(value);
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}
