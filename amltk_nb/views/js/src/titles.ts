// The title of the browser's tab, lent by the page: dashboards write to it and give it back.

const KEY = Symbol.for("amltk_nb titles");

/**
 * All dashboards of a page share one of these, found by the document: each of them may have been
 * loaded as a module of its own, and two that did not know of each other would restore each
 * other's titles.
 */
export class Titles {
  private readonly marks = new Map<object, string>();
  private own = ""; // the page's title, to be given back
  private shown: string | undefined; // what was written here last

  static of(doc: Document): Titles {
    const shared = doc as Document & { [KEY]?: Titles };
    return (shared[KEY] ??= new Titles(doc));
  }

  constructor(private readonly doc: Document) {}

  /** Show a text for somebody; undefined: nothing any more. */
  mark(who: object, text: string | undefined): void {
    if (text === undefined) this.marks.delete(who);
    else this.marks.set(who, text);
    this.write();
  }

  private write(): void {
    const present = this.present();
    // Whatever else stands there now, the host has put there meanwhile: that is what comes back.
    if (present !== this.shown) this.own = present;
    const texts = new Set(this.marks.values()); // two views of one run say the same
    const wanted = texts.size > 0 ? [...texts].join(", ") : undefined;
    if ((wanted ?? this.own) !== present) this.doc.title = wanted ?? this.own;
    this.shown = wanted === undefined ? undefined : this.present();
  }

  /** Read it as it is: `document.title` collapses spaces. */
  private present(): string {
    return this.doc.querySelector("head > title, title")?.textContent ?? "";
  }
}
