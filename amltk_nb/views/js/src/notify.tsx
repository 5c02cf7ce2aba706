// The button by which a reader asks to be told of the end.

import { useEffect, useMemo, useState } from "preact/hooks";
import { useConnection } from "./hooks";
import { Notifier } from "./notifier";

export function Notify() {
  const line = useConnection();
  const notifier = useMemo(() => new Notifier(line), [line]);
  useEffect(() => () => notifier.close(), [notifier]);
  const [, render] = useState({});
  const over = line.page.phase === "final" || line.page.phase === "other";
  if (over && !notifier.on) return null; // nothing is to come
  const toggle = () => {
    void notifier.toggle().then(() => render({}));
    render({});
  };
  return (
    <button
      type="button"
      class="amltk-button amltk-notify"
      aria-label="Notify me"
      aria-pressed={notifier.on}
      title="When the run is over, show a notification if this page is not in sight; meanwhile the tab's title counts"
      onClick={toggle}
    >
      <span aria-hidden="true" class="amltk-icon">{notifier.on ? "●" : "○"}</span>Notify me
    </button>
  );
}
