// What each worker ran when: a lane per worker, a bar per call, colour and pattern by outcome.

import { useEffect, useId, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { shortName } from "./engine";
import { duration, number, oneLine, plural, ticking } from "./format";
import { memo, useConnection, useSeconds } from "./hooks";
import { firstBegan, lanes, lastEnded, N_LANES, type Bar, type Lane } from "./lanes";
import { findCall, type Page } from "./page";
import { Empty, Section, State } from "./parts";
import type { CallState } from "./wire";

const LANE_PX = 18;
const BAR_PX = 12;
const FAILED_PX = 4; // at least
const AXIS_PX = 18;
const GRAIN_PX = 2; // what is narrower is drawn together with its neighbours
const WIDTH_PX = 640; // until the page says how wide it is
const N_AT_ONCE = 200; // of more calls than these the bars move once a second, not with each patch
const SPANS: readonly [label: string, seconds: number][] = [
  ["Last minute", 60],
  ["Last 10 minutes", 600],
  ["All", Infinity],
];

export function Timeline({ alone }: { alone: boolean }) {
  const line = useConnection();
  useSeconds(line.live());
  const [asked, ask] = useState<number>();
  const { page, first, now } = useMoment();
  const seek = useMemo(() => (alone ? undefined : (id: number) => line.seek(id)), [line, alone]);
  if (first === undefined && !alone) return null;
  const whole = Math.max(1, now - (first ?? now));
  const spanS = asked ?? (whole > 120 ? 60 : Infinity);
  return (
    <Section id="timeline" title="Timeline" aside={whole > 60 ? <Spans whole={whole} chosen={spanS} choose={ask} /> : undefined}>
      {first === undefined ? (
        <Empty>Nothing has run yet: each call becomes a bar in its worker's lane.</Empty>
      ) : (
        <Chart page={page} from={Math.max(first, now - spanS)} to={now} seek={seek} />
      )}
    </Section>
  );
}

/** What is drawn, and when the first call began: of a flood the picture of this second. */
function useMoment(): { page: Page; now: number; first: number | undefined } {
  const line = useConnection();
  const { page } = line;
  const isFlood = line.live() && page.model.calls.size + page.archive.size > N_AT_ONCE;
  const moment = () => ({ page, now: line.live() ? line.now() : (lastEnded(page) ?? line.now()), first: firstBegan(page) });
  return useMemo(moment, isFlood ? [Math.floor(line.now())] : [page, line.now(), line.live()]);
}

function Spans({ whole, chosen, choose }: { whole: number; chosen: number; choose: (spanS: number) => void }) {
  return (
    <div class="amltk-tools" role="group" aria-label="Shown of the timeline">
      {SPANS.filter(([, seconds]) => seconds < whole || seconds === Infinity).map(([label, seconds]) => (
        <button key={label} type="button" class="amltk-chip" aria-pressed={chosen === seconds} onClick={() => choose(seconds)}>
          {label}
        </button>
      ))}
    </div>
  );
}

interface ChartProps {
  page: Page;
  from: number;
  to: number;
  seek?: ((call: number) => void) | undefined;
}

const Chart = memo(({ page, from, to, seek }: ChartProps) => {
  const id = useId();
  const box = useRef<HTMLDivElement>(null);
  const width = useWidth(box);
  const [at, look] = useState<string>();
  const perPx = Math.max(to - from, 0.001) / width;
  const all = lanes(page, from, to, GRAIN_PX * perPx);
  const shown = all.slice(0, N_LANES);
  const looked = find(shown, at);
  const current = at !== undefined && looked ? at : firstKey(shown);
  useFocusWithin(box);
  return (
    <>
      <div class="amltk-lanes" role="group" aria-label="Bars, one per call; arrow keys go from bar to bar" onKeyDown={(event) => move(event, shown)}>
        <div class="amltk-lane-names" aria-hidden="true">
          {shown.map((lane) => <span key={lane.worker} title={oneLine(lane.worker)}>{shortName(lane.worker)}</span>)}
        </div>
        <div ref={box} class="amltk-lane-bars">
          <svg width={width} height={shown.length * LANE_PX + AXIS_PX} viewBox={`0 0 ${width} ${shown.length * LANE_PX + AXIS_PX}`}>
            <Patterns id={id} />
            {shown.map((lane, row) => (
              <g key={lane.worker} transform={`translate(0 ${row * LANE_PX})`}>
                <line class="amltk-lane-line" x1={0} x2={width} y1={LANE_PX - 0.5} y2={LANE_PX - 0.5} />
                {lane.bars.map((bar) => {
                  const key = keyOf(lane, bar);
                  return (
                    <BarShape
                      key={key}
                      name={key}
                      bar={bar}
                      label={sentence(page, lane, bar)}
                      x={(bar.from - from) / perPx}
                      width={(bar.to - bar.from) / perPx}
                      isCurrent={key === current}
                      look={look}
                      open={seek}
                      patterns={id}
                    />
                  );
                })}
              </g>
            ))}
            <Axis from={from} to={to} width={width} y={shown.length * LANE_PX} />
          </svg>
        </div>
      </div>
      <Look page={page} lanes={shown} at={looked ? at : undefined} nMore={all.length - shown.length} />
    </>
  );
});

const States: readonly CallState[] = ["done", "failed", "running", "cancelled"];

/** What is under the pointer or the focus, in words; without one what the colours mean. */
function Look(props: { page: Page; lanes: Lane[]; at: string | undefined; nMore: number }) {
  const found = find(props.lanes, props.at);
  return (
    <p class="amltk-look">
      {found ? (
        <span>{sentence(props.page, ...found)}</span>
      ) : (
        States.map((state) => <State key={state} word={state} />)
      )}
      {props.nMore > 0 && <span class="amltk-muted">and {plural(props.nMore, "worker")} more</span>}
    </p>
  );
}

interface BarProps {
  name: string;
  bar: Bar;
  label: string;
  x: number;
  width: number;
  isCurrent: boolean;
  look: (name: string | undefined) => void;
  open: ((call: number) => void) | undefined;
  patterns: string;
}

function BarShape({ name, bar, label, x, width, isCurrent, look, open, patterns }: BarProps) {
  const id = bar.calls[0] as number;
  const go = open && (() => open(id));
  const y = (LANE_PX - BAR_PX) / 2;
  // A failure is what one looks for, however short: it is seen on top of what was before it.
  const wide = Math.max(width, bar.state === "failed" ? FAILED_PX : 1);
  const left = bar.state === "failed" ? Math.max(0, x + width - wide) : x;
  const place = { x: left, y, width: wide, height: BAR_PX, rx: width > 6 ? 2 : 0 };
  return (
    <g
      class={`amltk-mark amltk-is-${bar.state}`}
      role={open ? "button" : "img"}
      aria-label={label}
      tabindex={isCurrent ? 0 : -1}
      data-bar={name}
      onMouseEnter={() => look(name)}
      onMouseLeave={() => look(undefined)}
      onFocus={() => look(name)}
      onBlur={() => look(undefined)}
      onClick={go}
      onKeyDown={(event) => {
        if (go && (event.key === "Enter" || event.key === " ")) {
          event.preventDefault();
          go();
        }
      }}
    >
      <rect {...place} />
      {bar.state !== "done" && <rect {...place} fill={`url(#${patterns}-${bar.state})`} />}
    </g>
  );
}

/** Outcomes differ without colour too: failed is crossed, running striped, cancelled dotted. */
function Patterns({ id }: { id: string }) {
  const size = { width: 6, height: 6, patternUnits: "userSpaceOnUse" } as const;
  return (
    <defs>
      <pattern id={`${id}-failed`} {...size}><path d="M0 0L6 6M6 0L0 6" class="amltk-mark-stroke" /></pattern>
      <pattern id={`${id}-running`} {...size}><path d="M-1 7L7 -1M-1 1L1 -1M5 7L7 5" class="amltk-mark-stroke" /></pattern>
      <pattern id={`${id}-cancelled`} {...size}><circle cx={3} cy={3} r={1.3} class="amltk-mark-dot" /></pattern>
    </defs>
  );
}

function Axis({ from, to, width, y }: { from: number; to: number; width: number; y: number }) {
  const step = stepOf((to - from) / Math.max(2, Math.floor(width / 90)));
  const ticks = [];
  for (let s = 0; s <= to - from; s += step) ticks.push(s);
  return (
    <g class="amltk-axis" transform={`translate(0 ${y})`} aria-hidden="true">
      {ticks.map((s) => {
        const x = (s / (to - from)) * width;
        const isLast = x > width - 40;
        return (
          <g key={s}>
            <line x1={x} x2={x} y1={0} y2={4} />
            <text x={isLast ? width : x} y={15} text-anchor={isLast ? "end" : x < 20 ? "start" : "middle"}>{tick(s, step)}</text>
          </g>
        );
      })}
    </g>
  );
}

/** The round number of seconds that is not below a wish. */
export function stepOf(wish: number): number {
  const round = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600];
  return round.find((step) => step >= wish) ?? Math.ceil(wish / 3600) * 3600;
}

function tick(s: number, step: number): string {
  return step < 1 && s > 0 ? duration(s) : ticking(s);
}

function sentence(page: Page, lane: Lane, bar: Bar): string {
  const worker = shortName(lane.worker);
  if (bar.calls.length > 1) return `${plural(bar.calls.length, "short call")} on ${worker}, ${bar.state}, in ${duration(bar.to - bar.from)}`;
  const id = bar.calls[0] as number;
  const call = findCall(page, id);
  const what = call ? ` ${oneLine(call.function)}(${oneLine(call.args)})` : "";
  const took = bar.state === "running" ? `for ${ticking(bar.to - (call?.started_at ?? bar.from))}` : duration(call?.seconds ?? bar.to - bar.from);
  const error = call?.error ? `: ${oneLine(call.error)}` : "";
  return `Call ${number(id)}${what} on ${worker}, ${bar.state}, ${took}${error}`;
}

function keyOf(lane: Lane, bar: Bar): string {
  return `${lane.worker}/${bar.calls[0]}`;
}

function firstKey(shown: Lane[]): string | undefined {
  const lane = shown[0];
  const bar = lane?.bars.at(-1);
  return lane && bar && keyOf(lane, bar);
}

function find(shown: Lane[], key: string | undefined): [Lane, Bar] | undefined {
  if (key === undefined) return undefined;
  for (const lane of shown) for (const bar of lane.bars) if (keyOf(lane, bar) === key) return [lane, bar];
  return undefined;
}

/** Arrow keys: earlier and later in a lane, the bar at the same time in the next one. */
function move(event: KeyboardEvent, shown: Lane[]): void {
  const { target, key, currentTarget } = event;
  const name = target instanceof Element ? target.getAttribute("data-bar") : null;
  const found = name === null ? undefined : find(shown, name);
  const next = found && neighbour(shown, ...found, key);
  if (!next) return;
  event.preventDefault();
  const root = currentTarget as Element;
  const wanted = keyOf(...next);
  for (const mark of root.querySelectorAll<SVGElement>("[data-bar]")) {
    if (mark.getAttribute("data-bar") === wanted) mark.focus();
  }
}

function neighbour(shown: Lane[], lane: Lane, bar: Bar, key: string): [Lane, Bar] | undefined {
  const i = lane.bars.indexOf(bar);
  const inLane: Record<string, Bar | undefined> = {
    ArrowLeft: lane.bars[i - 1],
    ArrowRight: lane.bars[i + 1],
    Home: lane.bars[0],
    End: lane.bars.at(-1),
  };
  if (key in inLane) return inLane[key] && [lane, inLane[key]];
  const step = key === "ArrowUp" ? -1 : key === "ArrowDown" ? 1 : 0;
  const other = step === 0 ? undefined : shown[shown.indexOf(lane) + step];
  if (!other) return undefined;
  const middle = (b: Bar) => Math.abs((b.from + b.to) / 2 - (bar.from + bar.to) / 2);
  const nearest = other.bars.reduce((a, b) => (middle(b) < middle(a) ? b : a));
  return [other, nearest];
}

/** Keep the focus among the bars when the one that has it leaves or is drawn with others. */
function useFocusWithin(ref: { readonly current: HTMLElement | null }): void {
  const holds = () => ref.current?.contains(document.activeElement) === true;
  const held = holds();
  useLayoutEffect(() => {
    if (held && !holds()) ref.current?.querySelector<SVGElement>('[tabindex="0"]')?.focus();
  });
}

/** How wide an element is, as the page changes. */
function useWidth(ref: { readonly current: HTMLElement | null }): number {
  const [width, setWidth] = useState(WIDTH_PX);
  useEffect(() => {
    const { current } = ref;
    if (!current || typeof ResizeObserver === "undefined") return undefined;
    const observer = new ResizeObserver(([entry]) => {
      if (entry && entry.contentRect.width > 0) setWidth(Math.floor(entry.contentRect.width));
    });
    observer.observe(current);
    return () => observer.disconnect();
  }, [ref]);
  return width;
}
