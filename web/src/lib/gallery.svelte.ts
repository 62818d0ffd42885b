/** The pictures of the gallery: which are seen, which are chosen, and what was deleted. */

import * as api from "./api";
import type { Wanted } from "./api";
import type { Picture } from "./contract";
import { t } from "./i18n.svelte";
import { report } from "./problems";
import { toasts } from "./toasts.svelte";

const PAGE = 48;
/** What toasts of deleted pictures are about. */
const DELETED = "deleted";

export const EVERYTHING: Wanted = { q: "", favourites: false, trash: false };

type Mark = Partial<Pick<Picture, "deleted" | "favourite">>;

/** What one click deleted. */
interface Deletion {
  pictures: Picture[];
  done: Promise<unknown>;
}

/** Whether a picture is among those that somebody wants to see. */
export function fits(picture: Picture, wanted: Wanted): boolean {
  const prompt = picture.prompt.toLowerCase();
  const words = wanted.q.toLowerCase().split(/\s+/);
  return (
    picture.deleted === wanted.trash &&
    (!wanted.favourites || picture.favourite) &&
    words.every((word) => prompt.includes(word))
  );
}

/** The ids from one to another, in the order of a list. */
export function between(ids: readonly string[], from: string, to: string): string[] {
  const [a, b] = [ids.indexOf(from), ids.indexOf(to)];
  return a < 0 || b < 0 ? [to] : ids.slice(Math.min(a, b), Math.max(a, b) + 1);
}

class Gallery {
  /** The newest first. */
  pictures = $state.raw<Picture[]>([]);
  wanted = $state.raw<Wanted>(EVERYTHING);
  searching = $state(false);
  chosen = $state.raw<ReadonlySet<string>>(new Set());
  /** Whether a click chooses a picture instead of opening it. */
  choosing = $state(false);
  #next = $state<string | null>(null);
  #asked = 0;
  /** Where a range of chosen pictures begins. */
  #anchor: string | null = null;
  /** What was done here to pictures, whoever holds an older record of them. */
  #marks = $state.raw<Readonly<Record<string, Mark>>>({});
  /** What was deleted here and can come back, oldest first. */
  #deletions: Deletion[] = [];
  /** So many of these are what the message offers to bring back. */
  #offered = 0;

  hasMore = $derived(this.#next !== null);
  filtered = $derived(this.wanted.q.trim() !== "" || this.wanted.favourites || this.wanted.trash);
  picked = $derived(this.pictures.filter(({ id }) => this.chosen.has(id)));

  // What is seen.

  /** Look for other pictures; those of the last request are shown, whichever answer comes last. */
  async want(change: Partial<Wanted>): Promise<void> {
    this.wanted = { ...this.wanted, ...change };
    this.unchoose();
    this.searching = true;
    const number = ++this.#asked;
    try {
      await this.load();
    } catch (error) {
      report(error);
    } finally {
      if (number === this.#asked) this.searching = false;
    }
  }

  async load(): Promise<void> {
    const number = this.#asked;
    // What is being deleted is in the trash, for whoever looks there.
    await Promise.allSettled(this.#deletions.map(({ done }) => done));
    const page = await api.pictures(this.wanted, null, PAGE);
    if (number !== this.#asked) return;
    this.pictures = page.pictures;
    this.#next = page.next;
  }

  async more(): Promise<void> {
    if (this.#next === null) return;
    const number = this.#asked;
    try {
      const page = await api.pictures(this.wanted, this.#next, PAGE);
      if (number !== this.#asked) return;
      this.#next = page.next;
      const known = new Set(this.pictures.map(({ id }) => id));
      this.pictures = [...this.pictures, ...page.pictures.filter(({ id }) => !known.has(id))];
    } catch (error) {
      report(error);
    }
  }

  /** A picture was finished. */
  collect(picture: Picture): void {
    const now = this.now(picture);
    if (!fits(now, this.wanted) || this.pictures.some(({ id }) => id === picture.id)) return;
    const newest = this.pictures[0];
    // Older pictures come in pages.
    if (newest && picture.created < newest.created) return;
    this.pictures = [now, ...this.pictures];
  }

  /** A picture with what was done to it since somebody noted it. */
  now(picture: Picture): Picture {
    const mark = this.#marks[picture.id];
    return mark === undefined ? picture : { ...picture, ...mark };
  }

  // What is chosen.

  choose(id: string): void {
    const chosen = new Set(this.chosen);
    if (!chosen.delete(id)) chosen.add(id);
    this.#choose(chosen);
    this.#anchor = id;
  }

  /** Everything from the picture that was chosen last. */
  chooseTo(id: string): void {
    const ids = this.pictures.map((picture) => picture.id);
    this.#choose(new Set([...this.chosen, ...between(ids, this.#anchor ?? id, id)]));
    this.#anchor ??= id;
  }

  chooseAll(): void {
    this.#choose(new Set(this.pictures.map(({ id }) => id)));
  }

  unchoose(): void {
    this.chosen = new Set();
    this.choosing = false;
    this.#anchor = null;
  }

  #choose(chosen: ReadonlySet<string>): void {
    this.chosen = chosen;
    this.choosing = chosen.size > 0 || this.choosing;
  }

  // Favourites.

  async favour(pictures: readonly Picture[], favourite: boolean): Promise<void> {
    const changed = pictures.filter((each) => this.now(each).favourite !== favourite);
    if (changed.length === 0) return;
    this.#mark(changed, { favourite });
    try {
      await this.#forEach(changed, (ids) => api.favourPictures(ids, favourite));
    } catch (error) {
      this.#mark(changed, { favourite: !favourite });
      report(error);
    }
  }

  // Deleting.

  async remove(pictures: readonly Picture[]): Promise<void> {
    const there = pictures.filter((each) => !this.now(each).deleted);
    if (there.length === 0) return;
    const entry: Deletion = {
      pictures: there,
      done: this.#forEach(there, api.deletePictures),
    };
    this.#mark(there, { deleted: true });
    this.#deletions.push(entry);
    this.#offered = toasts.shows(DELETED) ? this.#offered + 1 : 1;
    this.#offer();
    try {
      await entry.done;
    } catch (error) {
      if (!this.#deletions.includes(entry)) return; // it is being brought back already
      this.#deletions = this.#deletions.filter((each) => each !== entry);
      this.#offered = Math.max(0, this.#offered - 1);
      this.#offer();
      this.#mark(there, { deleted: false });
      report(error);
    }
  }

  /** Bring back what was deleted last; whether there was something. */
  undo(): boolean {
    if (this.#deletions.length === 0) return false;
    void this.#bringBack(1);
    return true;
  }

  /** Bring back pictures of the trash. */
  async restore(pictures: readonly Picture[]): Promise<void> {
    const ids = new Set(pictures.map(({ id }) => id));
    this.#deletions = this.#deletions
      .map((each) => ({ ...each, pictures: each.pictures.filter(({ id }) => !ids.has(id)) }))
      .filter((each) => each.pictures.length > 0);
    this.#offered = 0;
    this.#mark(pictures, { deleted: false });
    toasts.show(t("history.restored", { n: pictures.length }), "info", { about: DELETED });
    try {
      await this.#forEach(pictures, api.restorePictures);
    } catch (error) {
      this.#mark(pictures, { deleted: true });
      report(error);
    }
  }

  /** Delete pictures of the trash, so that nothing brings them back. */
  async removeForGood(pictures: readonly Picture[]): Promise<void> {
    this.#forget(pictures.map(({ id }) => id));
    try {
      for (const { id } of pictures) await api.removePicture(id);
    } catch (error) {
      report(error);
      await this.want({});
    }
  }

  async emptyTrash(): Promise<void> {
    try {
      const { deleted } = await api.emptyTrash();
      this.#deletions = [];
      this.#offered = 0;
      toasts.show(t("trash.emptied", { n: deleted }), "info", { about: DELETED });
    } catch (error) {
      report(error);
    }
    await this.want({});
  }

  /** Say how many pictures were deleted, with the way back for all of them. */
  #offer(): void {
    const n = this.#deletions
      .slice(this.#deletions.length - this.#offered)
      .reduce((sum, { pictures }) => sum + pictures.length, 0);
    if (n === 0) toasts.closeAbout(DELETED);
    else
      toasts.show(t("history.deleted", { n }), "info", {
        about: DELETED,
        action: { label: t("history.undo"), run: () => void this.#bringBack(this.#offered) },
      });
  }

  async #bringBack(count: number): Promise<void> {
    const back = this.#deletions.splice(-count);
    const pictures = back.flatMap((entry) => entry.pictures);
    this.#offered = toasts.shows(DELETED) ? Math.max(0, this.#offered - count) : 0;
    this.#mark(pictures, { deleted: false });
    if (this.#offered > 0) this.#offer();
    else toasts.show(t("history.restored", { n: pictures.length }), "info", { about: DELETED });
    for (const entry of back) {
      try {
        // Where it was never deleted, to restore it changes nothing.
        await Promise.allSettled([entry.done]);
        await this.#forEach(entry.pictures, api.restorePictures);
      } catch (error) {
        this.#mark(entry.pictures, { deleted: true });
        this.#deletions.push(entry);
        report(error);
      }
    }
  }

  // Inside.

  /** Note what was done to pictures, and show those that are wanted now. */
  #mark(pictures: readonly Picture[], mark: Mark): void {
    const marks = { ...this.#marks };
    for (const { id } of pictures) marks[id] = { ...marks[id], ...mark };
    this.#marks = marks;
    const changed = new Map(pictures.map((each) => [each.id, this.now(each)]));
    const kept = this.pictures.map((each) => changed.get(each.id) ?? each);
    const known = new Set(kept.map(({ id }) => id));
    const oldest = this.hasMore ? (kept.at(-1)?.created ?? 0) : 0;
    const fresh = [...changed.values()].filter(
      ({ id, created }) => !known.has(id) && created >= oldest,
    );
    const all = fresh.length > 0 ? [...kept, ...fresh].sort(newestFirst) : kept;
    this.pictures = all.filter((each) => fits(each, this.wanted));
    this.#dropChosen();
  }

  #forget(ids: readonly string[]): void {
    const gone = new Set(ids);
    this.pictures = this.pictures.filter(({ id }) => !gone.has(id));
    this.#deletions = this.#deletions
      .map((each) => ({ ...each, pictures: each.pictures.filter(({ id }) => !gone.has(id)) }))
      .filter((each) => each.pictures.length > 0);
    this.#offered = Math.min(this.#offered, this.#deletions.length);
    this.#dropChosen();
  }

  /** What is not seen is not chosen. */
  #dropChosen(): void {
    if (this.chosen.size === 0) return;
    const left = this.pictures.filter(({ id }) => this.chosen.has(id)).map(({ id }) => id);
    if (left.length === 0) this.unchoose();
    else this.chosen = new Set(left);
  }

  async #forEach(
    pictures: readonly Picture[],
    call: (ids: string[]) => Promise<unknown>,
  ): Promise<void> {
    const ids = pictures.map(({ id }) => id);
    for (let at = 0; at < ids.length; at += MOST) await call(ids.slice(at, at + MOST));
  }
}

/** Pictures of one call. */
const MOST = 5000;

/** As the server lists them: of the same moment, those of later slots first. */
const newestFirst = (a: Picture, b: Picture) => b.created - a.created || b.slot - a.slot;

export const gallery = new Gallery();
