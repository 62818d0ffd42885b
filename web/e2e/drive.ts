/** A browser with a page of a studio of its own, and what people do there. */

import { readFileSync } from "node:fs";
import type {
  Browser,
  BrowserContext,
  BrowserContextOptions,
  Locator,
  Page,
} from "playwright-core";
import { afterAll, afterEach, beforeAll, expect } from "vitest";
import type { Job, Picture } from "../src/lib/contract";
import { launch } from "./browser";
import { Server } from "./server";

export const DESKTOP = { width: 1440, height: 900 };
export const PHONE = { width: 390, height: 844 };

export const server = new Server();
let browser: Browser;
let complaints: string[] = [];

beforeAll(async () => {
  [browser] = await Promise.all([launch(), server.start()]);
});

afterEach(async () => {
  const pages = browser.contexts().flatMap((context) => context.pages());
  await Promise.all(pages.map((page) => page.unrouteAll({ behavior: "ignoreErrors" })));
  await Promise.all(browser.contexts().map((context) => context.close()));
  if (server.pid === 0) await server.start(); // a test ended it, and failed
  await server.clear();
  const said = complaints;
  complaints = [];
  // Among these would be every breach of the content security policy.
  expect(said).toEqual([]);
});

afterAll(async () => {
  await browser.close();
  await server.remove();
});

/** Forget what the browser complained about: a test made it so. */
export const forgive = (): void => {
  complaints = [];
};

export async function visit(options: BrowserContextOptions = {}): Promise<Page> {
  const context = await browser.newContext({ viewport: DESKTOP, locale: "en-US", ...options });
  context.setDefaultTimeout(90_000);
  return another(context);
}

/** One more window of the same browser. */
export async function another(context: BrowserContext): Promise<Page> {
  const page = await context.newPage();
  // It works without a network, and tells nobody.
  page.on("request", (request) => {
    if (!/^(blob:|data:)/.test(request.url()) && !request.url().startsWith(server.url))
      complaints.push(`asked for ${request.url()}`);
  });
  page.on("pageerror", (error) => complaints.push(error.message));
  page.on("console", (message) => {
    if (message.type() === "error") complaints.push(message.text());
  });
  await page.goto(server.url);
  await page.locator(".composer").waitFor();
  return page;
}

export const stage = (page: Page) => page.locator(".stage");
export const tiles = (page: Page) => stage(page).locator("figure");
export const finished = (page: Page) => stage(page).locator("figure .open img");
export const history = (page: Page) => page.locator(".history li > button");
export const state = (page: Page) => stage(page).locator(".state");

export async function choose(page: Page, group: string, label: string | RegExp): Promise<void> {
  await page
    .getByRole("group", { name: group })
    .getByRole("radio", { name: label })
    .check({ force: true });
}

/** Send what stands on the page and give the job that the server made of it. */
export async function draw(page: Page, prompt?: string): Promise<Job> {
  if (prompt !== undefined) await page.locator("#prompt").fill(prompt);
  const answer = page.waitForResponse(
    (response) => response.url().endsWith("/api/jobs") && response.request().method() === "POST",
  );
  await page.locator("body").press("Control+Enter");
  return (await (await answer).json()) as Job;
}

export async function finish(page: Page): Promise<void> {
  await state(page).and(page.locator("[data-state=done]")).waitFor();
}

export const jobOf = (id: string) => server.get<Job>(`/api/jobs/${id}`);
export const gallery = async () =>
  (await server.get<{ pictures: Picture[] }>("/api/pictures?limit=100")).pictures;

/** The pixels of a picture as the browser decodes them: red, green, blue, alpha. */
export const pixels = (page: Page, url: string) =>
  page.evaluate(async (from) => {
    const bitmap = await createImageBitmap(await (await fetch(from)).blob());
    const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
    const context = canvas.getContext("2d") as OffscreenCanvasRenderingContext2D;
    context.drawImage(bitmap, 0, 0);
    return [...context.getImageData(0, 0, bitmap.width, bitmap.height).data];
  }, url);

export async function download(page: Page, link: Locator): Promise<{ name: string; data: Buffer }> {
  const [file] = await Promise.all([page.waitForEvent("download"), link.click()]);
  return { name: file.suggestedFilename(), data: readFileSync(await file.path()) };
}

/** Drop a file onto an element, as a desktop would. */
export async function drop(page: Page, onto: Locator, data: Buffer, type: string): Promise<void> {
  const transfer = await page.evaluateHandle(
    ([base64, mime]) => {
      const bytes = Uint8Array.from(atob(base64 as string), (char) => char.charCodeAt(0));
      const carried = new DataTransfer();
      carried.items.add(new File([bytes], "picture.png", { type: mime }));
      return carried;
    },
    [data.toString("base64"), type],
  );
  await onto.dispatchEvent("dragover", { dataTransfer: transfer });
  await onto.dispatchEvent("drop", { dataTransfer: transfer });
}
