/** A studio whose first model looks at references: pictures that people bring are drawn again. */

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Page } from "playwright-core";
import { afterAll, expect, test } from "vitest";
import type { Job } from "../src/lib/contract";
import { audit } from "./axe";
import { choose, draw, finish, forgive, jobOf, PHONE, pixels, server, tiles, visit } from "./drive";
import { writeLookingModel } from "./models";

const folder = mkdtempSync(join(tmpdir(), "asymflow-looking-"));
const file = join(folder, "looking.safetensors");
const plain = join(folder, "plain.safetensors");
writeLookingModel(file);
writeLookingModel(plain, 0);
server.models = [file, plain];
afterAll(() => rmSync(folder, { recursive: true }));

const AGAIN = "Draw it again in a style";
const button = (page: Page, name: string) => page.getByRole("button", { name, exact: true });
const styles = (page: Page) => page.getByRole("group", { name: "Styles" });
const style = (page: Page, name: string) => styles(page).getByRole("checkbox", { name });
const purpose = (page: Page, name: string) => page.getByRole("radio", { name });

/** Bring a picture: a part of the page itself is as good as any. */
async function bring(page: Page): Promise<void> {
  const buffer = await page.screenshot({ clip: { x: 0, y: 0, width: 120, height: 90 } });
  await page.getByTestId("upload").setInputFiles({
    name: "photo.png",
    mimeType: "image/png",
    buffer,
  });
  await purpose(page, AGAIN).waitFor({ state: "attached" });
}

async function restyle(page: Page): Promise<void> {
  await bring(page);
  await choose(page, "What to do with it", AGAIN);
}

test("one picture in each of the styles, side by side", async () => {
  const page = await visit();
  await restyle(page);
  expect(await button(page, "Draw 8").isDisabled()).toBe(true);
  await page.locator("#prompt").fill("my cat");
  expect(await style(page, "All").isChecked()).toBe(true);
  await button(page, "Draw 8").waitFor();
  await page.getByText("How closely to follow").waitFor({ state: "detached" });
  expect(await page.getByText("Repaint a part of it").count()).toBe(0);
  expect(await page.getByText("Match my image").count()).toBe(0);
  for (const name of ["Twemoji", "Fluent 3D"]) await style(page, name).check({ force: true });
  expect(await style(page, "All").isChecked()).toBe(false);
  expect(await audit(page)).toEqual([]);
  const { id } = await draw(page);
  await finish(page);
  const { request, pictures } = await jobOf(id);
  expect(request).toMatchObject({
    prompt: "my cat",
    style: null,
    styles: ["fluent-3d", "twemoji"],
    image: null,
    strength: null,
    mask: null,
  });
  expect(pictures.map((each) => each.reference)).toEqual([request.reference, request.reference]);
  expect(await tiles(page).locator("figcaption").allTextContents()).toEqual([
    "Fluent 3D",
    "Twemoji",
  ]);
  await page.getByRole("button", { name: "Open the picture: my cat, Twemoji" }).waitFor();
});

test("all styles again, and a click on that changes nothing", async () => {
  const page = await visit();
  await restyle(page);
  await page.locator("#prompt").fill("my cat");
  await style(page, "Noto Blob").check({ force: true });
  await style(page, "Noto Blob").uncheck({ force: true });
  expect(await style(page, "All").isChecked()).toBe(true);
  await style(page, "All").click({ force: true });
  expect(await style(page, "All").isChecked()).toBe(true);
  await button(page, "Draw 8").waitFor();
});

test("a reload keeps the picture, what it is for, and the styles", async () => {
  const page = await visit();
  await restyle(page);
  await page.locator("#prompt").fill("my cat");
  await style(page, "Emojione").check({ force: true });
  await page.reload();
  await styles(page).waitFor();
  expect(await purpose(page, AGAIN).isChecked()).toBe(true);
  expect(await style(page, "Emojione").isChecked()).toBe(true);
  await button(page, "Draw").waitFor();
  await choose(page, "What to do with it", "Start from it");
  await page.getByText("How closely to follow").waitFor();
  expect(await styles(page).count()).toBe(0);
  const { id } = await draw(page);
  await finish(page);
  const { request } = await jobOf(id);
  expect([request.reference, request.styles]).toEqual([null, []]);
  expect(request.image).not.toBeNull();
});

test("the settings of a picture draw it once more, to the last pixel", async () => {
  const page = await visit();
  await restyle(page);
  for (const name of ["Twemoji", "Streamline"]) await style(page, name).check({ force: true });
  await draw(page, "my dog");
  await finish(page);
  const twemoji = page.getByRole("button", { name: "Open the picture: my dog, Twemoji" });
  const before = (await twemoji.locator("img").getAttribute("data-id")) as string;
  await page.reload();
  await page.locator(`.history img[data-id="${before}"]`).click();
  await page.getByRole("button", { name: "Use settings" }).click();
  await page.getByText("Settings restored").waitFor();
  expect(await purpose(page, AGAIN).isChecked()).toBe(true);
  const { id } = await draw(page);
  await finish(page);
  const { request, pictures } = await jobOf(id);
  expect(request.styles).toEqual(["twemoji"]);
  const [first, second] = await Promise.all(
    [before, pictures[0]?.id].map((each) => pixels(page, `/api/pictures/${each}/file?format=png`)),
  );
  expect(second).toEqual(first);
});

test("a variation looks at the same picture, as long as it is there", async () => {
  const page = await visit();
  await restyle(page);
  await style(page, "Twemoji").check({ force: true });
  const { request } = await draw(page, "my fox");
  await finish(page);
  const varied = async (vary: () => Promise<void>) => {
    const answer = page.waitForResponse(
      (each) => each.url().endsWith("/api/jobs") && each.request().method() === "POST",
    );
    await vary();
    return (await (await answer).json()) as Job;
  };
  const first = await varied(() => page.getByRole("button", { name: "Vary subtly" }).click());
  expect(first.request).toMatchObject({ reference: request.reference, style: "twemoji" });
  expect(first.request.parent).not.toBeNull();
  await finish(page);
  await page.route(`**/api/uploads/${request.reference}`, (route) =>
    route.fulfill({ status: 404 }),
  );
  const tile = tiles(page).first();
  await tile.hover();
  const second = await varied(() => tile.getByRole("button", { name: "Vary strongly" }).click());
  expect(second.request).toMatchObject({ reference: null, style: "twemoji" });
  forgive();
});

test("a model without references asks nothing new, and starts from the picture", async () => {
  const page = await visit();
  await restyle(page);
  await page.getByRole("combobox", { name: "Model" }).selectOption("plain");
  await page.getByText("How closely to follow").waitFor();
  expect(await page.getByRole("group", { name: "What to do with it" }).count()).toBe(0);
  expect(await styles(page).count()).toBe(0);
  const { id } = await draw(page, "a red apple");
  await finish(page);
  const { request } = await jobOf(id);
  expect([request.reference, request.styles]).toEqual([null, []]);
  expect(request.image).not.toBeNull();
});

test("on a phone", async () => {
  const page = await visit({ viewport: PHONE, hasTouch: true, isMobile: true });
  await restyle(page);
  await page.locator("#prompt").fill("my cat");
  await style(page, "Fluent Flat").check({ force: true });
  const wide = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
  expect(wide).toBe(false);
  expect(await audit(page)).toEqual([]);
});
