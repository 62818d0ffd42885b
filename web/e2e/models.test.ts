/** A studio of two models: one of classes, which comes first, and the one with words. */

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Page } from "playwright-core";
import { afterAll, expect, test } from "vitest";
import type { Info } from "../src/lib/contract";
import { audit } from "./axe";
import {
  draw,
  finish,
  finished,
  gallery,
  history,
  jobOf,
  PHONE,
  pixels,
  server,
  visit,
} from "./drive";
import { writeClassModel } from "./models";

const folder = mkdtempSync(join(tmpdir(), "asymflow-models-"));
const file = join(folder, "tiny.pth");
writeClassModel(file);
server.models = [file, "embedded"];
afterAll(() => rmSync(folder, { recursive: true }));

const kind = (page: Page) => page.getByRole("combobox", { name: "Choose what to draw" });
const kinds = (page: Page) => page.getByRole("option").filter({ visible: true });
const model = (page: Page) => page.getByRole("combobox", { name: "Model" });
const chosen = (page: Page) => model(page).locator("option:checked").textContent();

async function over(page: Page, title: RegExp): Promise<void> {
  const id = await model(page).locator("option", { hasText: title }).getAttribute("value");
  await model(page).selectOption(id as string);
}

test("a class is found by typing, chosen with keys, and drawn", async () => {
  const page = await visit();
  const go = page.getByRole("button", { name: /^Draw/ });
  expect(await go.isDisabled()).toBe(true);
  expect(await page.locator("#prompt").count()).toBe(0);
  expect(await page.getByRole("group", { name: "Style" }).count()).toBe(0);
  expect(await page.getByRole("group", { name: "Size" }).count()).toBe(0);
  await page.getByText("Runs on its family's default plan.").waitFor();
  await kind(page).fill("fox");
  expect(await kinds(page).first().textContent()).toMatch(/^fox squirrel/);
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("ArrowDown");
  expect(await kind(page).getAttribute("aria-activedescendant")).toBe("class-277");
  expect(await audit(page)).toEqual([]);
  await page.keyboard.press("Enter");
  expect(await kind(page).inputValue()).toBe("red fox, Vulpes vulpes");
  expect(await kinds(page).count()).toBe(0);
  const { id } = await draw(page);
  await finish(page);
  const job = await jobOf(id);
  expect(job.request).toMatchObject({
    label: 277,
    prompt: "",
    width: 48,
    height: 48,
    model: "tiny",
  });
  await page.getByRole("heading", { name: "red fox, Vulpes vulpes" }).waitFor();
  const shown = await finished(page).first().getAttribute("src");
  const alpha = (await pixels(page, shown as string)).filter((_, index) => index % 4 === 3);
  expect(new Set(alpha)).toEqual(new Set([255]));
  await history(page).first().click();
  const box = page.getByRole("dialog", { name: "Picture" });
  await box.getByText("Details").click();
  await box.getByText("277", { exact: true }).waitFor();
  expect(await page.getByText("Transparency").count()).toBe(0);
});

test("a thousand classes are searched within a blink, by number as well", async () => {
  const page = await visit();
  await kind(page).click();
  await page.getByText(/and 940 more/).waitFor();
  await kind(page).fill("999");
  await expect.poll(() => kinds(page).first().textContent()).toMatch(/999$/);
  const ms = await kind(page).evaluate(async (input: HTMLInputElement) => {
    const begun = performance.now();
    for (const text of ["s", "sh", "sha", "shar", ""]) {
      input.value = text;
      input.dispatchEvent(new Event("input", { bubbles: true }));
      await new Promise((resolve) => requestAnimationFrame(resolve));
    }
    return (performance.now() - begun) / 5;
  });
  expect(ms).toBeLessThan(200); // on a busy machine
  await page.keyboard.press("Escape");
  expect(await kinds(page).count()).toBe(0);
});

test("another model is loaded when it is chosen, and stays chosen", async () => {
  const page = await visit();
  await over(page, /embedded|asymflow/);
  await page.locator("#prompt").waitFor();
  expect(await chosen(page)).toBe("The embedded model");
  await page.getByRole("group", { name: "Style" }).getByRole("radio").first().waitFor();
  await expect
    .poll(() => page.getByRole("group", { name: "Quality" }).getByRole("radio").count())
    .toBe(4);
  const { id } = await draw(page, "a red apple");
  await finish(page);
  expect((await jobOf(id)).pictures[0]).toMatchObject({ model: "asymflow", quality: "balanced" });
  await page.reload();
  await page.locator("#prompt").waitFor();
  expect(await chosen(page)).toBe("The embedded model");
  const { models } = await server.get<Info>("/api/info");
  expect(models.map(({ id, state }) => [id, state])).toEqual([
    ["tiny", "ready"],
    ["asymflow", "ready"],
  ]);
});

test("the settings of a picture bring its model back", async () => {
  const page = await visit();
  await over(page, /embedded/);
  await page.locator("#prompt").waitFor();
  const all = await gallery();
  const [picture] = all.filter((each) => each.model === "tiny");
  await history(page).locator(`img[data-id="${picture?.id}"]`).click();
  const box = page.getByRole("dialog", { name: "Picture" });
  expect(await box.getByRole("button", { name: "Vary strongly" }).count()).toBe(0);
  await page.getByRole("button", { name: "Use settings" }).click();
  await expect.poll(() => kind(page).inputValue()).toBe("red fox, Vulpes vulpes");
  expect(await chosen(page)).toMatch(/JiT/);
});

test("on a phone the model can be chosen, too", async () => {
  const page = await visit({ viewport: PHONE, hasTouch: true, isMobile: true });
  await over(page, /embedded/);
  await page.locator("#prompt").waitFor();
  const wide = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
  expect(wide).toBe(false);
  await over(page, /JiT/);
  await kind(page).waitFor();
  expect(await audit(page)).toEqual([]);
});
