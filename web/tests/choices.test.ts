import { expect, test } from "vitest";
import type { Card, Info, Job, Sizes } from "../src/lib/contract";
import { combinations, escaped, groups, hasWords, table } from "../src/lib/matrix";
import { fitted, fromRequest, INITIAL, redraws, stored } from "../src/lib/settings";
import { classesLike, heading, matching, possible, shape, titled } from "../src/lib/shown";

const SIZES: Sizes = {
  native: { width: 64, height: 64 },
  offered: [{ width: 64, height: 64 }],
  smallest: 16,
  largest: 512,
  multiple: 8,
  trained: [32, 128],
  fixed: false,
};
const FIXED: Sizes = { ...SIZES, native: { width: 48, height: 32 }, fixed: true };

const info = {
  model: { id: "asymflow", name: "", hash: "" },
  card: {
    classes: ["cat", "dog"],
    guided: true,
    sizes: { ...SIZES, native: { width: 64, height: 48 } },
  },
  styles: [{ id: "noto", name: "Noto", thumbnail: "" }],
  qualities: [{ id: "draft", steps: 1, forwards: 2, seconds: 1 }],
  default: { quality: "draft", guidance_scale: 3, size: "64x48" },
  limits: { pictures: 4 },
} as unknown as Info;

test("a prompt without alternatives is one picture", () => {
  for (const prompt of ["a car", "a {red} car", "a | b", "{red|blue", ""])
    expect(combinations(prompt), prompt).toBe(1);
});

test("alternatives multiply", () => {
  expect(groups("{red| light blue } {car|cat|hat}")).toEqual([
    ["red", "light blue"],
    ["car", "cat", "hat"],
  ]);
  expect(combinations("{red|blue} {car|cat|hat}")).toBe(6);
});

test("a backslash takes the sign behind it as it is", () => {
  expect(groups(String.raw`\{red|blue} car`)).toEqual([]);
  expect(groups(String.raw`{a\|b|c} {\{x\}|y}`)).toEqual([
    ["a|b", "c"],
    ["{x}", "y"],
  ]);
  // Elsewhere it is a sign like any other.
  expect(groups(String.raw`C:\dir {a\b|c}`)).toEqual([[String.raw`a\b`, "c"]]);
  for (const prompt of ["a car", "{red|blue} car", String.raw`\{a|b}`, String.raw`\\{a|{b|c}`])
    expect(combinations(escaped(prompt)), prompt).toBe(1);
  expect(escaped("a {red} car")).toBe("a {red} car");
  expect(escaped("{a|b}")).toBe(String.raw`\{a|b}`);
});

test("a prompt of empty choices has no words", () => {
  for (const prompt of ["", "  ", "{|}", "{ | }{a|}", "{a|}"])
    expect(hasWords(prompt), prompt).toBe(false);
  for (const prompt of ["a", "{a|b}", "a {|red} car", "{}", String.raw`\{|}`])
    expect(hasWords(prompt), prompt).toBe(true);
});

test("two groups make a table; one or three do not", () => {
  expect(table("{red|blue} {car|cat}")).toEqual({ rows: ["red", "blue"], columns: ["car", "cat"] });
  expect(table("{red|blue} car")).toBeNull();
  expect(table("{a|b} {c|d} {e|f}")).toBeNull();
});

test("a size is the largest that the model is good at and that has the shape of a picture", () => {
  expect(matching(500, 500, SIZES)).toEqual({ width: 128, height: 128 });
  expect(matching(20, 20, SIZES)).toEqual({ width: 128, height: 128 });
  expect(matching(4000, 2000, SIZES)).toEqual({ width: 128, height: 64 });
  // A little off in shape, and larger.
  expect(matching(1024, 1000, SIZES)).toEqual({ width: 128, height: 128 });
  const coarse = { ...SIZES, trained: [256, 1024] as [number, number], multiple: 16 };
  expect(matching(4000, 3000, coarse)).toEqual({ width: 1024, height: 768 });
  for (const [width, height] of [
    [1600, 1200],
    [1080, 1920],
    [3000, 2000],
  ] as const) {
    const size = matching(width, height, SIZES);
    expect(Math.abs(Math.log(size.width / size.height / (width / height)))).toBeLessThan(0.06);
    expect([size.width % 8, size.height % 8]).toEqual([0, 0]);
  }
  // A panorama: as wide as it can be, the rest is cropped or padded.
  expect(matching(9000, 300, SIZES)).toEqual({ width: 128, height: 32 });
  expect(matching(9000, 300, FIXED)).toEqual(FIXED.native);
  expect([shape(64, 64), shape(96, 64), shape(64, 96)]).toEqual([
    "square",
    "landscape",
    "portrait",
  ]);
});

test("stored settings come back, without what the server does not know", () => {
  const saved = { ...INITIAL, prompt: "a fox", style: "noto", n: 3, quality: "draft" };
  expect(stored(JSON.stringify(saved), info)).toEqual({ ...saved, model: "asymflow" });
  const strange = { prompt: 7, style: "gone", quality: "gone", n: 99, other: true };
  const settings = stored(JSON.stringify(strange), info);
  expect(settings).toMatchObject({ prompt: "", style: null, quality: "draft", n: 4 });
  expect(settings).not.toHaveProperty("other");
});

test("settings follow the card of another model", () => {
  const card = { ...info.card, guided: false, sizes: FIXED } as Card;
  const other = { ...info, model: { ...info.model, id: "jit" }, card };
  const chosen = { ...INITIAL, label: 2, guidance: 3, width: 128, height: 128 };
  const found = fitted(chosen, other);
  expect(found).toMatchObject({ model: "jit", label: null, guidance: null, width: 48, height: 32 });
  expect(fitted({ ...INITIAL, label: 1 }, other).label).toBe(1);
});

test("a size is possible by the card, offered or not", () => {
  expect(possible(SIZES, { width: 512, height: 24 })).toBe(true);
  for (const [width, height] of [
    [520, 64],
    [64, 8],
    [64, 60],
  ] as const)
    expect(possible(SIZES, { width, height })).toBe(false);
  expect(possible(FIXED, { width: 48, height: 32 })).toBe(true);
  expect(possible(FIXED, { width: 48, height: 48 })).toBe(false);
});

test("classes are found by number and by any word of their names, the likeliest first", () => {
  const classes = ["tench, Tinca tinca", "goldfish", "great white shark", "tiger shark", "shark 1"];
  expect(classesLike(classes, "")).toEqual([0, 1, 2, 3, 4]);
  expect(classesLike(classes, " SHARK ")).toEqual([4, 2, 3]);
  expect(classesLike(classes, "tinca")).toEqual([0]);
  expect(classesLike(classes, "1")).toEqual([1, 4]);
  expect(classesLike(classes, "fish")).toEqual([1]);
  expect(classesLike(["fox squirrel", "foxhound", "a foxglove", "red fox, Vulpes"], "fox")).toEqual(
    [0, 1, 3, 2],
  );
  expect(classesLike(classes, "zebra")).toEqual([]);
});

test("without stored settings, or with damaged ones, the defaults of the server count", () => {
  for (const text of [null, "{", "[]", "null", '"a"'])
    expect(stored(text, info)).toMatchObject({ width: 64, height: 48, quality: "draft" });
});

test("settings of a picture replace all that decide it, and end live mode", () => {
  const before = { ...INITIAL, live: true, guidance: 7, negative: "text" };
  const after = fromRequest(before, { prompt: "a fox", seed: 0, width: 128, height: 64 });
  expect(after).toMatchObject({ prompt: "a fox", negative: "", guidance: null, live: false });
  expect(after).toMatchObject({ width: 128, height: 64, look: { seed: 0 } });
});

test("stored styles are those that there are, in their order, and damaged ones none", () => {
  const two = { ...info, styles: [{ id: "noto" }, { id: "twemoji" }] } as unknown as Info;
  const styles = (value: unknown) => stored(JSON.stringify({ styles: value }), two).styles;
  expect(styles(["twemoji", "gone", "noto"])).toEqual(["noto", "twemoji"]);
  for (const damaged of [null, {}, "noto", 1]) expect(styles(damaged)).toEqual([]);
  expect(stored(JSON.stringify({ purpose: "restyle" }), info).purpose).toBe("restyle");
});

test("a picture that was drawn again brings back what for, and its style alone", () => {
  const before = { ...INITIAL, styles: ["twemoji"] };
  const request = { prompt: "my cat", seed: 3, style: "noto", reference: "upload" };
  expect(fromRequest(before, request)).toMatchObject({
    purpose: "restyle",
    styles: ["noto"],
    look: { seed: 3, reference: null }, // it is the picture on the page
  });
  const begun = { ...before, purpose: "restyle" as const };
  expect(fromRequest(begun, { ...request, image: "another" })).toMatchObject({
    purpose: "start",
    styles: ["twemoji"],
    look: { reference: "upload" }, // which the page does not show
  });
  expect(fromRequest(begun, { prompt: "a fox", seed: 3, style: "noto" })).toMatchObject({
    purpose: "restyle",
    styles: ["twemoji"],
    look: { reference: null },
  });
  for (const other of [{ reference: "none" }, { reference: null }, { style: null }])
    expect(redraws({ ...request, ...other })).toBe(false);
  expect(redraws({ ...request, parent: "picture" })).toBe(false);
});

test("names of styles stand on cards as titles", () => {
  expect(titled("fluent 3d")).toBe("Fluent 3D");
  expect(titled("noto blob")).toBe("Noto Blob");
});

test("a job is called by its words, and by their pattern where they hold choices", () => {
  const request = { prompt: String.raw`\{a|b}` } as Job["request"];
  const slot = { label: null, prompt: "{a|b}", seed: 1 };
  expect(heading({ request, slots: [slot] } as Job)).toBe("{a|b}");
  expect(heading({ request, slots: [{ ...slot, label: "a" }] } as Job)).toBe(request.prompt);
});
