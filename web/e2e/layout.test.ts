/**
 * How the page is laid out: on five screens, in two themes, with words of several scripts. Nothing
 * overflows, nothing covers anything else, every control is large enough for a finger and can be
 * read; and on a small laptop all that matters is seen without scrolling.
 */

import type { BrowserContextOptions, Page } from "playwright-core";
import { beforeAll, describe, expect, test, vi } from "vitest";
import { contrast } from "./axe";
import { draw, finish, finished, history, jobOf, server, stage, visit } from "./drive";
import type { Job } from "../src/lib/contract";

const SCREENS: [number, number, BrowserContextOptions][] = [
  [320, 640, { isMobile: true, hasTouch: true }],
  [390, 844, { isMobile: true, hasTouch: true }],
  [1024, 768, {}],
  [1366, 657, {}],
  [1920, 1080, {}],
];
const WORDS = {
  zh: "一只红色的狐狸坐在绿色的草地上看着蓝色的大海和白色的云",
  ja: "緑の草原にすわって青い海と白い雲をながめている赤いきつね",
  ar: "ثعلب أحمر يجلس على العشب الأخضر وينظر إلى البحر الأزرق والسحب البيضاء",
  long: "Donaudampfschifffahrtsgesellschaftskapitän".repeat(6),
};
/** The least side of a target, in pixels: WCAG 2.2, 2.5.8. */
const TARGET = 24;

/** What is wrong with where things are on the page as it stands. */
const wrongs = (page: Page) =>
  page.evaluate((least) => {
    const found: string[] = [];
    const width = document.documentElement.clientWidth;
    if (document.documentElement.scrollWidth > width)
      found.push(`the page is ${document.documentElement.scrollWidth} wide, of ${width}`);
    const name = (element: Element) =>
      `${element.tagName.toLowerCase()} "${(element.getAttribute("aria-label") ?? element.textContent ?? "").trim().slice(0, 40)}"`;
    const covered = document.querySelector("dialog[open]");
    const root: ParentNode = covered ?? document;
    const controls = [
      ...root.querySelectorAll<HTMLElement>("a[href], button, summary, select, textarea, label"),
    ].filter(
      (each) =>
        each.checkVisibility({ opacityProperty: true, visibilityProperty: true }) &&
        !each.closest(".hidden, [inert]") &&
        (each.tagName !== "LABEL" || each.querySelector("input") !== null),
    );
    /** The part of something that its scrolling and clipping parents show. */
    const seen = (element: Element) => {
      const { left, top, right, bottom } = element.getBoundingClientRect();
      const box = { left, top, right, bottom };
      for (let up = element.parentElement; up; up = up.parentElement) {
        const { overflowX, overflowY } = getComputedStyle(up);
        if (overflowX === "visible" && overflowY === "visible") continue;
        const clip = up.getBoundingClientRect();
        box.left = Math.max(box.left, clip.left);
        box.top = Math.max(box.top, clip.top);
        box.right = Math.min(box.right, clip.right);
        box.bottom = Math.min(box.bottom, clip.bottom);
      }
      return box;
    };
    const layer = (element: Element) => {
      for (let up: Element | null = element; up; up = up.parentElement) {
        const { position } = getComputedStyle(up);
        if (position === "fixed" || position === "sticky") return up;
      }
      return null;
    };
    const boxes = controls.map((each) => ({ each, box: seen(each), layer: layer(each) }));
    for (const { each, box } of boxes) {
      const whole = each.getBoundingClientRect();
      if (box.right - box.left < 1 || box.bottom - box.top < 1) continue;
      if (whole.right > width + 1 && box.right > width + 1) found.push(`${name(each)} sticks out`);
      if (whole.width < least || whole.height < least)
        found.push(`${name(each)} is ${Math.round(whole.width)} x ${Math.round(whole.height)}`);
    }
    boxes.forEach((a, index) => {
      for (const b of boxes.slice(index + 1)) {
        if (a.layer !== b.layer || a.each.contains(b.each) || b.each.contains(a.each)) continue;
        // Tools lie on their pictures on purpose.
        const over = [a.each, b.each].some((each) => each.matches(".open, .pick"));
        if (over && a.each.closest("figure, li, .view") === b.each.closest("figure, li, .view"))
          continue;
        const wide = Math.min(a.box.right, b.box.right) - Math.max(a.box.left, b.box.left);
        const high = Math.min(a.box.bottom, b.box.bottom) - Math.max(a.box.top, b.box.top);
        if (wide > 1 && high > 1) found.push(`${name(a.each)} covers ${name(b.each)}`);
      }
    });
    return found;
  }, TARGET);

async function ask(request: object): Promise<string> {
  const answer = await fetch(`${server.url}/api/jobs`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ quality: "draft", width: 32, height: 32, ...request }),
  });
  const { id } = (await answer.json()) as Job;
  await vi.waitFor(async () => expect((await jobOf(id)).state).toBe("done"), {
    timeout: 60_000,
    interval: 100,
  });
  return id;
}

beforeAll(async () => {
  await ask({ prompt: "a {red|blue} {heart|car|leaf}", n: 2 });
  await ask({ prompt: WORDS.ar, language: "ar" });
  await ask({ prompt: WORDS.long });
});

describe.each(SCREENS)("at %i x %i", (width, height, screen) => {
  test.each(["light", "dark"] as const)(
    "nothing overflows, covers or shrinks, and all can be read, in the %s",
    async (colorScheme) => {
      const options = { ...screen, colorScheme, reducedMotion: "reduce" as const };
      const page = await visit({ ...options, viewport: { width, height } });
      const check = async (what: string) => {
        expect(await wrongs(page), what).toEqual([]);
        expect(await contrast(page, []), what).toEqual([]);
      };
      await history(page).first().waitFor();
      await check("at rest");
      for (const words of Object.values(WORDS)) {
        await page.locator("#prompt").fill(words);
        await page.waitForTimeout(400);
        expect(await wrongs(page), words).toEqual([]);
      }
      await page.getByRole("button", { name: "Select", exact: true }).click();
      await history(page).nth(1).click();
      await check("a selection");
      await page.getByRole("button", { name: "Delete", exact: true }).click();
      await page.getByRole("button", { name: "Deleted pictures" }).click();
      await expect.poll(() => history(page).count()).toBeGreaterThan(0);
      await check("the trash");
      await page.getByRole("button", { name: "Undo" }).click();
      await page.getByRole("button", { name: "Deleted pictures" }).click();
      await history(page).first().click();
      await page.getByRole("dialog", { name: "Picture" }).waitFor();
      await check("a picture");
    },
  );

  test.each(["de", "fr", "es", "ja", "zh"])("every text has its room in %s", async (locale) => {
    const page = await visit({ ...screen, viewport: { width, height }, locale });
    await history(page).first().waitFor();
    expect(await wrongs(page)).toEqual([]);
    const options = page.locator("details.options");
    if (!(await options.evaluate((each) => (each as HTMLDetailsElement).open)))
      await options.locator("summary").first().click();
    await options.locator(".advanced summary").click();
    expect(await wrongs(page), "settings").toEqual([]);
    await history(page).first().click();
    await page.locator("dialog[open]").waitFor();
    expect(await wrongs(page), "a picture").toEqual([]);
  });
});

test("on a small laptop everything that matters is seen without scrolling", async () => {
  const page = await visit({ viewport: { width: 1366, height: 657 } });
  await draw(page, "a red heart");
  await finish(page);
  const bottom = async (selector: string) => {
    const box = await page.locator(selector).first().boundingBox();
    return box ? box.y + box.height : Infinity;
  };
  for (const part of [
    "#prompt",
    ".panel .drop",
    ".styles .style",
    ".options > summary",
    ".bar .go",
    ".stage figure .open",
    ".stage .actions .button",
    ".stage .more summary",
    ".history li",
  ])
    expect(await bottom(part), part).toBeLessThanOrEqual(657);
  const side = (await page.locator(".stage figure .frame").first().boundingBox())?.height ?? 0;
  expect(side).toBeGreaterThan(0.5 * 657);
});

test("nothing moves while a picture is drawn, nor when it is finished", async () => {
  const page = await visit({ viewport: { width: 1366, height: 657 } });
  await draw(page, "a red heart");
  await finish(page);
  await page.evaluate(() => {
    const seen = window as unknown as { shifts: string[] };
    seen.shifts = [];
    // In the gallery a new picture comes first, and the others make room; and what is said of the
    // time that is left ends at the edge, however long it is.
    new PerformanceObserver((list) => {
      for (const entry of list.getEntries()) {
        const { sources } = entry as unknown as { sources: { node: Node | null }[] };
        for (const { node } of sources) {
          const element = node instanceof Element ? node : node?.parentElement;
          if (element?.isConnected && !element.closest(".history, .state"))
            seen.shifts.push(element.outerHTML.slice(0, 120));
        }
      }
    }).observe({ type: "layout-shift" });
  });
  // By the clock of the page, a click that was long ago excuses nothing.
  await page.waitForTimeout(600);
  const { id } = await draw(page);
  await page.waitForTimeout(600);
  await finish(page);
  await expect.poll(async () => (await jobOf(id)).state).toBe("done");
  await finished(page).first().waitFor();
  await page.waitForTimeout(800);
  const shifts = await page.evaluate(() => (window as unknown as { shifts: string[] }).shifts);
  expect(shifts).toEqual([]);
});

test("a long prompt folds, and unfolds for whoever wants to read it", async () => {
  const page = await visit({ viewport: { width: 1366, height: 657 } });
  await draw(page, "a red heart and ".repeat(40));
  const heading = stage(page).locator("h2");
  const height = async () => (await heading.boundingBox())?.height ?? 0;
  await page.getByRole("button", { name: "Show all of it" }).waitFor();
  const folded = await height();
  await page.getByRole("button", { name: "Show all of it" }).click();
  expect(await height()).toBeGreaterThan(2 * folded);
  await page.getByRole("button", { name: "Show less" }).click();
  expect(await height()).toBe(folded);
});
