// How components follow the connection and the passing of time.

import { Component, createContext, h, type ComponentType, type VNode } from "preact";
import { useContext, useLayoutEffect, useState } from "preact/hooks";
import type { Connection } from "./connection";

export const Line = createContext<Connection>(null as unknown as Connection);

/** The connection; renders again with every change of it. */
export function useConnection(): Connection {
  const connection = useContext(Line);
  const [, render] = useState({});
  useLayoutEffect(() => connection.subscribe(() => render({})), [connection]);
  return connection;
}

const tickers = new Set<() => void>();
let timer: ReturnType<typeof setInterval> | undefined;

/** Render again every second while `active`; all clocks of a page tick together. */
export function useSeconds(active: boolean): void {
  const [, render] = useState({});
  useLayoutEffect(() => {
    if (!active) return undefined;
    const tick = () => render({});
    tickers.add(tick);
    timer ??= setInterval(() => tickers.forEach((each) => each()), 1000);
    return () => {
      tickers.delete(tick);
      if (tickers.size > 0) return;
      clearInterval(timer);
      timer = undefined;
    };
  }, [active]);
}

/** Render a component again only when one of its properties is another object or value. */
export function memo<P extends object>(Inner: (props: P) => VNode | null): ComponentType<P> {
  // Inner has hooks of its own, so it stays a component and is not called from here.
  return class extends Component<P> {
    override shouldComponentUpdate(next: Readonly<P>): boolean {
      const old = this.props as Record<string, unknown>;
      return Object.entries(next).some(([name, value]) => old[name] !== value);
    }

    override render(): VNode {
      return h(Inner as ComponentType<object>, this.props) as VNode;
    }
  };
}
