/**
 * The pictures of the studio in the documentation.
 *
 *     scripts/e2e --screenshots
 */

import { execFileSync } from "node:child_process";
import type { Browser, BrowserContextOptions, Page } from "playwright-core";
import { afterAll, beforeAll, test } from "vitest";
import { launch } from "./browser";
import { Server } from "./server";

const ASSETS = "../docs/assets";
const DESKTOP = { width: 1440, height: 900 };
const LAPTOP = { width: 1366, height: 657 };
const PHONE = { width: 390, height: 844 };
/** Few colours, so that a picture is small. */
const SHRINK = `
import sys
from PIL import Image
for path in sys.argv[1:]:
    picture = Image.open(path).convert("RGB")
    picture.quantize(256, kmeans=3, dither=Image.Dither.NONE).save(path, optimize=True)
`;

const server = new Server();
const taken: string[] = [];
let browser: Browser;

async function visit(options: BrowserContextOptions = {}): Promise<Page> {
  const context = await browser.newContext({ viewport: DESKTOP, locale: "en-US", ...options });
  context.setDefaultTimeout(180_000);
  const page = await context.newPage();
  await page.goto(server.url);
  await page.locator("#prompt").waitFor();
  return page;
}

const choose = (page: Page, group: string, label: string | RegExp) =>
  page
    .getByRole("group", { name: group })
    .getByRole("radio", { name: label })
    .check({ force: true });

async function draw(page: Page, prompt: string): Promise<void> {
  await page.locator("#prompt").fill(prompt);
  await page.locator("body").press("Control+Enter");
  await page.getByRole("heading", { name: prompt, exact: true }).waitFor();
}

const finish = (page: Page) => page.locator(".stage .state[data-state=done]").waitFor();

async function take(page: Page, name: string): Promise<void> {
  const path = `${ASSETS}/studio-${name}.png`;
  await page.locator(".scroll").evaluate((composer) => composer.scrollTo(0, 0));
  await page.waitForTimeout(1500);
  await page.screenshot({ path });
  taken.push(path);
}

beforeAll(async () => {
  [browser] = await Promise.all([launch(), server.start()]);
});

afterAll(async () => {
  await browser.close();
  await server.remove();
  execFileSync("../.venv/bin/python", ["-c", SHRINK, ...taken]);
});

/** The pictures on the stage as they are in the end: sharp, where the model draws flat ones. */
const sharp = (page: Page) =>
  page.waitForFunction(() =>
    [...document.querySelectorAll<HTMLImageElement>(".stage figure .open img")].every(
      ({ complete, src }) => complete && src.includes("/svg"),
    ),
  );

test("the documentation has its pictures", async () => {
  const page = await visit();
  await choose(page, "Quality", /Best/);
  await draw(page, "a {red|green|blue} {heart|leaf|car}");
  await finish(page);
  await sharp(page);
  await take(page, "matrix");

  await choose(page, "Style", /Noto$/);
  await draw(page, "{a red apple|a fox|a bell|a yellow star}");
  await finish(page);
  await sharp(page);
  await take(page, "light");

  const laptop = await visit({ viewport: LAPTOP, locale: "de-DE" });
  await laptop.locator("#prompt").fill("ein roter Fuchs");
  await laptop.getByText("Als Deutsch gelesen").waitFor();
  await laptop.locator("#prompt").press("Enter");
  await laptop.getByRole("heading", { name: "ein roter Fuchs" }).waitFor();
  await laptop.locator("figure .preview").first().waitFor();
  await laptop.screenshot({ path: `${ASSETS}/studio-drawing.png` });
  taken.push(`${ASSETS}/studio-drawing.png`);
  await finish(laptop);

  const dark = await visit({ colorScheme: "dark" });
  await dark.locator(".history li > button").nth(2).click();
  await dark.locator(".view img[src*='/svg']").waitFor();
  await take(dark, "dark");

  const phone = await visit({
    viewport: PHONE,
    deviceScaleFactor: 2,
    isMobile: true,
    hasTouch: true,
  });
  await sharp(phone);
  await take(phone, "phone");
});
