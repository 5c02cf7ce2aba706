// How numbers, durations and the program's own strings are written; the same words as the static
// HTML and the text form use.

import type { Value } from "./wire";

// Made once: what toLocaleString makes anew each time takes longer than all else on a busy page.
const NUMBERS = new Intl.NumberFormat("en-US");
const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });

export function number(n: number): string {
  return NUMBERS.format(n);
}

/** Write "1 call", "2 calls". */
export function plural(n: number, noun: string): string {
  return `${number(n)} ${noun}${n === 1 ? "" : "s"}`;
}

/** Write a measured duration: 4 ms, 0.31 s, 12.4 s, 2 min 05 s, 1 h 02 min, 3 d 04 h. */
export function duration(seconds: number): string {
  const s = Math.max(0, seconds);
  if (s < 0.0995) return `${(s * 1000).toFixed(0)} ms`;
  if (s < 9.995) return `${s.toFixed(2)} s`;
  if (s < 59.95) return `${s.toFixed(1)} s`;
  return long(Math.round(s));
}

/** Write a duration that ticks once a second: 0 s, 12 s, 2 min 05 s. */
export function ticking(seconds: number): string {
  const s = Math.max(0, Math.floor(seconds));
  return s < 60 ? `${s} s` : long(s);
}

function long(s: number): string {
  const two = (n: number) => String(n).padStart(2, "0");
  const minutes = Math.floor(s / 60);
  if (minutes < 60) return `${minutes} min ${two(s % 60)} s`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return `${hours} h ${two(minutes % 60)} min`;
  return `${Math.floor(hours / 24)} d ${two(hours % 24)} h`;
}

/** Write a rate: 0/s, 0.42/s, 3.1/s, 250/s, 12,345/s; or with what is counted, 3.1 calls/s. */
export function rate(perSecond: number, noun = ""): string {
  const digits = perSecond >= 10 || perSecond < 0.005 ? 0 : perSecond >= 1 ? 1 : 2;
  const written = Number(perSecond.toFixed(digits)).toLocaleString("en-US", { minimumFractionDigits: digits });
  return `${written}${noun && " "}${noun}/s`;
}

/** Write what is left as a range: "about 2–3 min left", "up to 7 s left". */
export function range(lowS: number, highS: number): string {
  if (highS < 1) return "under 1 s left";
  const [unit, size] = highS < 90 ? ["s", 1] : highS < 5400 ? ["min", 60] : ["h", 3600];
  const low = Math.floor(lowS / Number(size));
  const high = Math.ceil(highS / Number(size));
  if (low === 0) return `up to ${high} ${unit} left`;
  return low === high ? `about ${high} ${unit} left` : `about ${low}–${high} ${unit} left`;
}

/** Write a moment in the reader's time zone. */
export function clockTime(at: number): string {
  return CLOCK.format(at * 1000);
}

export function value(v: Value): string {
  if (v === null) return "none";
  if (typeof v === "boolean") return v ? "yes" : "no";
  return typeof v === "number" ? v.toLocaleString("en-US", { maximumFractionDigits: 4 }) : visible(v);
}

const COLOURS = /\x1b\[[0-9;:]*m/g;
// Control and direction characters could make what is shown differ from what is there; line
// breaks and tabs stay, and so do the joiners that words and emoji need.
const HIDING = /[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;

/** Spell a string of the program so that it can do nothing but be read. */
export function visible(text: string): string {
  return text.replace(/\r\n/g, "\n").replace(COLOURS, "").replace(HIDING, spelled);
}

/** The same, in one line. */
export function oneLine(text: string): string {
  return visible(text).replace(/\n/g, "⏎").replace(/\t/g, " ");
}

function spelled(char: string): string {
  const code = char.charCodeAt(0);
  if (code < 0x20) return String.fromCharCode(0x2400 + code);
  return code < 0x100 ? `\\x${code.toString(16)}` : `\\u${code.toString(16).padStart(4, "0")}`;
}
