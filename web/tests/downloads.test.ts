import { expect, test } from "vitest";
import type { Picture } from "../src/lib/contract";
import { fileName, savedSide, savedUrl, sides, usual, type Choice } from "../src/lib/downloads";

const picture = (width: number, height: number, prompt = "a red fox"): Picture =>
  ({ id: "p1", width, height, prompt, seed: 7 }) as Picture;
const PLAIN: Choice = { format: "png", side: null, background: "", clean: false };
const query = (url: string) => Object.fromEntries(new URL(url, "http://x").searchParams);

test("what is saved without a choice is worth keeping", () => {
  for (const [width, height] of [
    [64, 64],
    [96, 64],
    [64, 128],
    [512, 512],
  ] as const)
    for (const flat of [true, false])
      expect(usual(picture(width, height), flat, 2048).side, `${width}x${height}`).toBe(1024);
  // It is large enough as it is, or the server saves nothing larger.
  expect(usual(picture(1024, 768), false, 2048).side).toBeNull();
  expect(usual(picture(64, 64), true, 512).side).toBe(512);
});

test("only a flat drawing has every size", () => {
  expect(sides(picture(64, 64), true, 4096)).toEqual([null, 512, 1024, 2048]);
  expect(sides(picture(64, 64), false, 4096)).toEqual([null, 512, 1024]);
  expect(sides(picture(1024, 1024), true, 2048)).toEqual([null, 2048]);
  expect(savedSide(picture(96, 64), null)).toBe(96);
});

test("a flat drawing is drawn anew, another picture is enlarged", () => {
  const flat = savedUrl(picture(64, 64), true, { ...PLAIN, side: 1024, background: "#fff" });
  expect(flat).toMatch(/^\/api\/pictures\/p1\/rendered\?/);
  expect(query(flat)).toEqual({ format: "png", side: "1024", background: "#fff" });
  const other = savedUrl(picture(64, 64), false, { ...PLAIN, format: "webp", side: 1024 });
  expect(other).toMatch(/^\/api\/pictures\/p1\/file\?/);
  expect(query(other)).toEqual({ format: "webp", scale: "16" });
  expect(savedUrl(picture(64, 64), true, PLAIN)).toBe("/api/pictures/p1/file?format=png");
  expect(savedUrl(picture(64, 64), true, { ...PLAIN, format: "svg", clean: true })).toBe(
    "/api/pictures/p1/svg?clean=1",
  );
});

test("a file is named by its words, in any script, or by nothing of the picture", () => {
  expect(fileName(picture(1, 1, "A red  fox!"), PLAIN)).toBe("a-red-fox-7.png");
  expect(fileName(picture(1, 1, "一只狐狸"), { ...PLAIN, format: "jpeg" })).toBe("一只狐狸-7.jpg");
  expect(fileName(picture(1, 1, "../../x"), PLAIN)).toBe("x-7.png");
  expect(fileName(picture(1, 1, "🦊"), { ...PLAIN, format: "svg" })).toBe("picture-7.svg");
  expect(fileName(picture(1, 1), { ...PLAIN, clean: true })).toBe("asymflow.png");
});
