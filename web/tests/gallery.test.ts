import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { Picture } from "../src/lib/contract";
import { between, EVERYTHING, fits, gallery } from "../src/lib/gallery.svelte";
import { toasts } from "../src/lib/toasts.svelte";

const picture = (id: string, more: Partial<Picture> = {}): Picture =>
  ({
    id,
    prompt: `a red ${id}`,
    created: 1000 - id.charCodeAt(0),
    slot: 0,
    favourite: false,
    deleted: false,
    ...more,
  }) as Picture;

const ALL = ["a", "b", "c", "d", "e"].map((id) => picture(id));
const ids = () => gallery.pictures.map(({ id }) => id).join("");

/** What the server was asked, and whether it answers. */
let asked: [string, unknown][] = [];
let works = true;

beforeEach(async () => {
  asked = [];
  works = true;
  vi.useFakeTimers();
  vi.stubGlobal("fetch", async (path: string, init: RequestInit = {}) => {
    const body = init.body === undefined ? null : JSON.parse(init.body as string);
    asked.push([`${init.method ?? "GET"} ${path}`, body]);
    if (!works) throw new TypeError("no network");
    const answer = path.startsWith("/api/pictures?")
      ? { pictures: path.includes("trash") ? [] : ALL, next: null }
      : { pictures: [], missing: [], deleted: 3 };
    return new Response(JSON.stringify(answer));
  });
  while (gallery.undo()) await vi.advanceTimersByTimeAsync(1);
  await gallery.favour(gallery.pictures, false);
  await gallery.want(EVERYTHING);
  toasts.list = [];
  asked = [];
});

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

test("a picture is seen where it has all words, and is as it is wanted", () => {
  const fox = picture("fox", { prompt: "A red Fox, asleep" });
  for (const q of ["", "fox", "RED fox", " asleep  red ", "sle"])
    expect(fits(fox, { ...EVERYTHING, q }), q).toBe(true);
  expect(fits(fox, { ...EVERYTHING, q: "red dog" })).toBe(false);
  expect(fits(fox, { ...EVERYTHING, favourites: true })).toBe(false);
  expect(fits(fox, { ...EVERYTHING, trash: true })).toBe(false);
  expect(fits({ ...fox, deleted: true }, EVERYTHING)).toBe(false);
  expect(fits({ ...fox, deleted: true }, { ...EVERYTHING, trash: true })).toBe(true);
});

test("a range goes both ways, and is one picture where its begin is not seen", () => {
  expect(between(["a", "b", "c", "d"], "d", "b")).toEqual(["b", "c", "d"]);
  expect(between(["a", "b", "c", "d"], "a", "b")).toEqual(["a", "b"]);
  expect(between(["a", "b"], "x", "b")).toEqual(["b"]);
});

test("pictures are chosen one by one, in ranges, and all", () => {
  gallery.choose("b");
  gallery.chooseTo("d");
  expect([...gallery.chosen].sort().join("")).toBe("bcd");
  gallery.choose("c");
  expect(gallery.picked.map(({ id }) => id).join("")).toBe("bd");
  gallery.chooseAll();
  expect(gallery.chosen.size).toBe(5);
  gallery.unchoose();
  expect([gallery.chosen.size, gallery.choosing]).toEqual([0, false]);
});

test("several are deleted in one call, and one undo brings all of them back in their places", async () => {
  gallery.choose("b");
  gallery.choose("d");
  await gallery.remove(gallery.picked);
  expect(ids()).toBe("ace");
  expect(gallery.chosen.size).toBe(0);
  expect(asked).toEqual([["POST /api/pictures/delete", { ids: ["b", "d"] }]]);
  await gallery.remove([picture("c")]);
  expect(ids()).toBe("ae");
  expect(toasts.list.map(({ text }) => text)).toEqual(["3 pictures deleted"]);
  gallery.undo();
  await vi.advanceTimersByTimeAsync(1);
  expect(ids()).toBe("ace");
  gallery.undo();
  await vi.advanceTimersByTimeAsync(1);
  expect(ids()).toBe("abcde");
  expect(asked.slice(-2)).toEqual([
    ["POST /api/pictures/restore", { ids: ["c"] }],
    ["POST /api/pictures/restore", { ids: ["b", "d"] }],
  ]);
  expect(gallery.undo()).toBe(false);
});

test("what the server did not delete is there again, and is nothing to undo", async () => {
  works = false;
  await gallery.remove([picture("b"), picture("c")]);
  expect(ids()).toBe("abcde");
  expect(gallery.undo()).toBe(false);
  expect(toasts.list.map(({ tone }) => tone)).toEqual(["problem"]);
});

test("a favourite is known wherever its picture is held, and no more if that failed", async () => {
  await gallery.favour([picture("b"), picture("c")], true);
  expect(gallery.now(picture("b")).favourite).toBe(true);
  expect(asked).toEqual([["POST /api/pictures/favourite", { ids: ["b", "c"], favourite: true }]]);
  works = false;
  await gallery.favour([picture("d")], true);
  expect(gallery.now(picture("d")).favourite).toBe(false);
});

test("a finished picture comes first, but not among others than are wanted", async () => {
  const newest = picture("n", { created: 2000 });
  gallery.collect(newest);
  gallery.collect(newest);
  expect(ids()).toBe("nabcde");
  await gallery.want({ q: "dog" });
  gallery.collect(picture("m", { created: 3000 }));
  expect(ids()).not.toContain("m");
});

test("what is looked for last is what is shown", async () => {
  const answers: ((response: Response) => void)[] = [];
  vi.stubGlobal("fetch", () => new Promise((resolve) => answers.push(resolve)));
  const first = gallery.want({ q: "a" });
  const second = gallery.want({ q: "b" });
  await vi.advanceTimersByTimeAsync(1);
  const page = (id: string) =>
    new Response(JSON.stringify({ pictures: [picture(id)], next: null }));
  answers[1]?.(page("b"));
  await second;
  answers[0]?.(page("a"));
  await first;
  expect(ids()).toBe("b");
});

test("in the trash, what is brought back leaves it", async () => {
  await gallery.remove([picture("b")]);
  await gallery.want({ trash: true });
  expect(ids()).toBe("");
  gallery.pictures = [picture("b", { deleted: true })];
  await gallery.restore(gallery.pictures);
  expect(ids()).toBe("");
  expect(gallery.now(picture("b")).deleted).toBe(false);
  expect(gallery.undo()).toBe(false);
});
