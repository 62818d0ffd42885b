/**
 * The studio with the models of a file, one after the other: `scripts/e2e --models FILE`.
 * benchmarks/suites/models.py writes it, and reads what came of every test by its title.
 */

import { readFileSync } from "node:fs";
import type { BrowserContextOptions, Page } from "playwright-core";
import { describe, expect, test } from "vitest";
import type { Info, Job } from "../src/lib/contract";
import { audit } from "./axe";
import {
  DESKTOP,
  draw,
  finish,
  finished,
  history,
  jobOf,
  PHONE,
  pixels,
  server,
  visit,
} from "./drive";

interface Subject {
  id: string;
  ref: string;
  /** What it is asked for, and whether that is a prompt or a class. */
  asked: string;
  by: "prompt" | "label";
  grey: boolean;
  plans: string[];
}

const FILE = process.env.E2E_MODELS;
if (!FILE) throw new Error("Say which models: scripts/e2e --models FILE");
const subjects = JSON.parse(readFileSync(FILE, "utf8")) as Subject[];
server.models = subjects.map(({ ref }) => ref);

const kind = (page: Page) => page.getByRole("combobox", { name: "Choose what to draw" });

/** A page of a model that is loaded. */
async function of({ id, by }: Subject, options: BrowserContextOptions = {}): Promise<Page> {
  const page = await visit(options);
  if (subjects.length > 1) await page.getByRole("combobox", { name: "Model" }).selectOption(id);
  await expect
    .poll(
      async () =>
        (await server.get<Info>("/api/info")).models.find((each) => each.id === id)?.state,
    )
    .toBe("ready");
  await (by === "prompt" ? page.locator("#prompt") : kind(page)).waitFor();
  await page.getByText("Loading the model").waitFor({ state: "detached" });
  return page;
}

async function drawn(page: Page, { asked, by }: Subject): Promise<Job> {
  if (by === "label") {
    await kind(page).fill(asked);
    await page.keyboard.press("ArrowDown");
    await page.keyboard.press("Enter");
  }
  const { id } = await draw(page, by === "prompt" ? asked : undefined);
  await finish(page);
  return jobOf(id);
}

describe.each(subjects)("", (subject) => {
  const { id, asked, by, grey, plans } = subject;

  test(`${id}: draws what it is asked for, with the plan that was made`, async () => {
    const page = await of(subject);
    const { default: chosen } = await server.get<Info>(`/api/info?model=${id}`);
    const names = page.getByRole("group", { name: "Quality" }).getByRole("radio");
    const values = await names.evaluateAll((all) =>
      all.map((each) => (each as HTMLInputElement).value),
    );
    expect(new Set(values)).toEqual(new Set([...plans, chosen.quality]));
    const job = await drawn(page, subject);
    expect(job.request.model).toBe(id);
    expect(job.pictures[0]).toMatchObject({ quality: chosen.quality });
    await page.getByRole("heading", { name: asked }).waitFor();
    const shown = await pixels(page, (await finished(page).first().getAttribute("src")) as string);
    const at = (channel: number) => shown.filter((_, index) => index % 4 === channel);
    expect(new Set(at(3))).toEqual(new Set([255]));
    expect(at(0).every((red, index) => red === at(1)[index] && red === at(2)[index])).toBe(grey);
    expect(new Set(at(0)).size).toBeGreaterThan(8);
  });

  test(`${id}: every plan can be chosen, and another after it`, async () => {
    const page = await of(subject);
    for (const plan of plans) {
      await page.locator(`input[name=quality][value=${plan}]`).check({ force: true });
      expect((await drawn(page, subject)).pictures[0]).toMatchObject({ quality: plan });
    }
    const { default: chosen } = await server.get<Info>(`/api/info?model=${id}`);
    await page.locator(`input[name=quality][value=${chosen.quality}]`).check({ force: true });
  });

  test(`${id}: goes on from a picture of its own`, async () => {
    const page = await of(subject);
    const first = await drawn(page, subject);
    await history(page).first().click();
    await page.getByRole("button", { name: "Start from it" }).click();
    const again = await draw(page);
    await finish(page);
    const { request, pictures } = await jobOf(again.id);
    expect(request.model).toBe(id);
    expect(request.image).not.toBeNull();
    expect(pictures[0]?.id).not.toBe(first.pictures[0]?.id);
  });

  test.each([
    ["in the dark", { viewport: DESKTOP, colorScheme: "dark" }],
    ["on a phone", { viewport: PHONE, hasTouch: true, isMobile: true }],
  ] as const)(`${id}: %s`, async (_, options) => {
    const page = await of(subject, options);
    await drawn(page, subject);
    expect(await page.evaluate(() => document.documentElement.scrollWidth > innerWidth)).toBe(
      false,
    );
    expect(await audit(page)).toEqual([]);
    expect(by).toBe((await page.locator("#prompt").count()) ? "prompt" : "label");
  });
});
