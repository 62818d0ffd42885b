/**
 * What the page promises whoever uses it: that it can be read and reached, that every click shows,
 * and that nothing is lost. Each on a laptop, and with E2E_SCREENS=all on a phone, too.
 */

import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { BrowserContextOptions, Locator, Page, Route } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import type { Job, Picture, Upload } from "../src/lib/contract";
import { contrast } from "./axe";
import {
  another,
  choose,
  draw,
  drop,
  finish,
  forgive,
  gallery,
  history,
  jobOf,
  PHONE,
  pixels,
  server,
  stage,
  state,
  visit,
} from "./drive";

const LAPTOP: [string, BrowserContextOptions] = [
  "a laptop",
  { viewport: { width: 1366, height: 657 } },
];
const SCREENS: [string, BrowserContextOptions][] =
  process.env.E2E_SCREENS === "all"
    ? [LAPTOP, ["a phone", { viewport: PHONE, hasTouch: true, isMobile: true }]]
    : [LAPTOP];
const FILES = mkdtempSync(join(tmpdir(), "asymflow-files-"));
/** Photos as phones make them, and files that a server of ours does not read. */
const MAKE = `
import sys
from pathlib import Path
from PIL import Image
to = Path(sys.argv[1])
turned = Image.Exif()
turned[0x0112] = 6
for name, size in ("24.jpg", (6000, 4000)), ("48.jpg", (8000, 6000)):
    photo = Image.new("RGB", size, "#2a6")
    photo.paste("#c41", (0, 0, size[0] // 2, size[1]))
    photo.save(to / name, quality=60, exif=turned)
badge = Image.new("RGBA", (1600, 800))
badge.paste("#06c", (400, 200, 1200, 600))
badge.resize((160, 80)).save(to / "plain.png")
badge.save(to / "badge.avif")
badge.save(to / "badge.gif")
badge.convert("RGB").save(to / "badge.bmp")
(to / "photo.heic").write_bytes(b"\\0\\0\\0\\x18ftypheic\\0\\0\\0\\0mif1heic" + bytes(2000))
(to / "letter.pdf").write_bytes(b"%PDF-1.7\\n" + bytes(200))
(to / "broken.png").write_bytes((to / "badge.gif").read_bytes()[:3])
`;
const TYPES: Record<string, string> = {
  jpg: "image/jpeg",
  avif: "image/avif",
  gif: "image/gif",
  bmp: "image/bmp",
  heic: "image/heic",
  pdf: "application/pdf",
  png: "image/png",
};
const PATIENCE = { timeout: 60_000, interval: 100 };
/** Words for machines, which no beginner should have to read. */
const TECHNICAL = /content-type|image\/|octet|http|\d{3} |415|400/i;

const file = (name: string) => readFileSync(join(FILES, name));
const given = (name: string) => ({
  name,
  mimeType: TYPES[name.split(".")[1] as string] as string,
  buffer: file(name),
});
const message = (page: Page) => page.getByRole("list", { name: "Messages" });
const dialog = (page: Page) => page.getByRole("dialog", { name: "Picture" });
const bar = (page: Page) => page.locator(".bar");
const draws = (page: Page) => bar(page).getByRole("button", { name: /^Draw/ });
const jobs = async () => (await server.get<{ jobs: Job[] }>("/api/jobs?limit=100")).jobs;

async function ask(request: object): Promise<Job> {
  const answer = await fetch(`${server.url}/api/jobs`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ quality: "draft", ...request }),
  });
  return (await answer.json()) as Job;
}

/** Pictures that are there before anybody comes. */
async function drawn(count: number): Promise<void> {
  const { id } = await ask({
    prompt: "a {red|blue} {heart|car|leaf}",
    width: 32,
    height: 32,
    n: 1,
  });
  await vi.waitFor(async () => expect((await jobOf(id)).state).toBe("done"), PATIENCE);
  expect((await gallery()).length).toBeGreaterThanOrEqual(count);
}

/** Work for a long while. */
const busy = () => ask({ prompt: "a {red|green|blue} {apple|car|heart}", quality: "best", n: 4 });

/** Hold calls back until they are let go, and count them. */
async function held(page: Page, url: string | RegExp, method: string) {
  const waiting: Route[] = [];
  let open = false;
  let seen = 0;
  await page.route(url, async (route) => {
    if (route.request().method() !== method) return route.fallback();
    seen++;
    if (open) return route.continue();
    waiting.push(route);
  });
  return {
    count: () => seen,
    release: async () => {
      open = true;
      await Promise.all(waiting.splice(0).map((route) => route.continue()));
    },
  };
}

/** Whether what lies in the middle of something is that itself, so that a finger can reach it. */
const reachable = (element: Locator) =>
  element.evaluate((node) => {
    const box = node.getBoundingClientRect();
    const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
    return node.contains(document.elementFromPoint(x, y));
  });

const overflow = (page: Page) =>
  page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);

async function settings(page: Page): Promise<void> {
  const options = page.locator("details.options");
  if (!(await options.evaluate((details) => (details as HTMLDetailsElement).open)))
    await options.locator("summary").first().click();
}

beforeAll(async () => {
  execFileSync("../.venv/bin/python", ["-c", MAKE, FILES]);
  await drawn(6);
});

afterAll(() => rmSync(FILES, { recursive: true, force: true }));

describe.each(SCREENS)("on %s", (name, screen) => {
  const phone = name === "a phone";

  test.each(["light", "dark"] as const)(
    "every control can be read in every state, in the %s",
    async (colorScheme) => {
      const page = await visit({ ...screen, colorScheme, reducedMotion: "reduce" });
      const check = async (what: string) => {
        for (const states of [["hover"], ["focus", "focus-visible", "active"]])
          expect(await contrast(page, states), `${what}, ${states.join(" and ")}`).toEqual([]);
      };
      await settings(page);
      await page.getByText("Advanced").click();
      await page.locator("#prompt").fill("a red heart");
      await check("settings");
      await choose(page, "Look", "Same look");
      await page.locator("#prompt").fill("");
      await check("disabled");
      await page.getByTestId("upload").setInputFiles(given("plain.png"));
      await page.getByRole("button", { name: "Repaint a part" }).click();
      await page.getByTestId("upload").setInputFiles(given("photo.heic"));
      await page.getByTestId("restore").setInputFiles(given("letter.pdf"));
      await history(page).first().focus();
      await page.keyboard.press("Delete");
      await message(page).getByRole("button", { name: "Undo" }).waitFor();
      await check("a mask, and messages");
      await page.keyboard.press("Control+z");
      await busy();
      await ask({ prompt: "a green leaf" });
      await bar(page).getByRole("listitem").waitFor();
      await page.locator("#prompt").fill("a red heart");
      await check("a queue");
      await history(page).first().click();
      await dialog(page).waitFor();
      await check("a picture");
    },
  );

  test("the settings stay open while somebody chooses", async () => {
    const page = await visit(screen);
    await settings(page);
    const options = page.locator("details.options");
    const open = () => options.evaluate((details) => (details as HTMLDetailsElement).open);
    for (const [group, choice] of [
      ["Quality", /Draft/],
      ["Size", /96×64/],
      ["Pictures", "2"],
      ["Look", "Same look"],
      ["Look", "Surprise me"],
      ["Quality", /Fast/],
    ] as const) {
      await choose(page, group, choice);
      await expect.poll(open, { message: `${group}, ${choice}` }).toBe(true);
    }
    await page.locator("#prompt").fill("a {red|blue} car");
    await page.getByRole("switch", { name: "Live" }).check({ force: true });
    await page.getByTestId("upload").setInputFiles(given("plain.png"));
    await page.getByRole("slider", { name: /How closely/ }).waitFor();
    expect(await open()).toBe(true);
    if (!phone) return;
    // And closed, where somebody closed them.
    await options.locator("summary").first().click();
    await page.locator("#prompt").fill("a car");
    expect(await open()).toBe(false);
  });

  test.each(
    phone
      ? [[390, 844] as const, [360, 640] as const]
      : [
          [1366, 657],
          [1093, 614],
          [1024, 768],
        ],
  )(
    "the picture to start from is at hand at %i x %i, however many pictures there are",
    async (width, height) => {
      const page = await visit({ ...screen, viewport: { width, height } });
      const [picture] = await gallery();
      await page.route("**/api/pictures?limit=*", (route) =>
        route.fulfill({
          json: {
            pictures: Array.from({ length: 48 }, (_, at) => ({ ...picture, id: `${at}` })),
            next: "1",
          },
        }),
      );
      await page.reload();
      await expect.poll(() => history(page).count()).toBeGreaterThanOrEqual(48);
      const panel = page.locator(".panel[data-drop=start]");
      expect(await panel.count()).toBe(1);
      expect(await reachable(panel.getByRole("button"))).toBe(true);
      expect(await overflow(page)).toBe(0);
      await page.getByTestId("upload").setInputFiles(given("plain.png"));
      await page.getByRole("button", { name: "Repaint a part" }).waitFor();
      expect(await overflow(page)).toBe(0);
    },
  );

  test("every deleted picture can come back, together or one by one", async () => {
    const page = await visit(screen);
    const all = (await gallery()).map(({ id }) => id);
    const shown = () =>
      history(page)
        .locator("img")
        .evaluateAll((images) => images.map((image) => (image as HTMLElement).dataset.id));
    const kept = async () => (await gallery()).map(({ id }) => id);
    const remove = async () => {
      await history(page).nth(1).focus();
      for (let n = 1; n <= 3; n++) {
        await page.keyboard.press("Delete");
        await page
          .getByText(n === 1 ? "Picture deleted" : `${n} pictures deleted`)
          .first()
          .waitFor();
      }
      await expect.poll(kept).toEqual([all[0], ...all.slice(4)]);
    };
    await remove();
    await message(page).getByRole("button", { name: "Undo" }).click();
    await expect.poll(kept).toEqual(all);
    expect(await shown()).toEqual(all);
    await page.getByText("3 pictures are back").waitFor();
    await remove();
    for (const left of [3, 2, 1]) {
      await page.keyboard.press("Control+z");
      await expect.poll(kept).toEqual([all[0], ...all.slice(left)]);
      expect(await shown()).toEqual(await kept());
    }
    await page.getByText("The picture is back").waitFor();
  });

  test("windows side by side leave each other their connections", async () => {
    await busy();
    await ask({ prompt: "a green car", quality: "best" });
    const last = await ask({ prompt: "a blue car", quality: "best" });
    const first = await visit(screen);
    const windows = [first];
    while (windows.length < (phone ? 2 : 6)) windows.push(await another(first.context()));
    for (const page of windows) {
      await page.getByText(/^Drawing, .+ left$/).waitFor();
      await page.locator("figure .preview").first().waitFor();
      const answers = page.evaluate(async () => {
        const signal = AbortSignal.timeout(20_000);
        return (await fetch("/health", { signal })).ok;
      });
      expect(await answers).toBe(true);
    }
    await first.getByRole("button", { name: "Cancel: a blue car" }).click();
    await expect.poll(async () => (await jobOf(last.id)).state).toBe("cancelled");
    for (const page of windows)
      await expect.poll(() => bar(page).getByRole("listitem").count()).toBe(1);
  });

  test("a window that is opened later sees what was drawn before", async () => {
    const first = await visit(screen);
    await settings(first);
    await choose(first, "Quality", /Best/);
    await choose(first, "Pictures", "4");
    await draw(first, "a yellow heart");
    const bars = (page: Page) => page.locator(".strip li i:not(.ahead)").count();
    await expect.poll(() => bars(first)).toBeGreaterThan(2);
    // Some phones have no workers to share.
    if (phone)
      await first.context().addInitScript(() => Reflect.deleteProperty(window, "SharedWorker"));
    const second = await another(first.context());
    await expect.poll(() => bars(second)).toBeGreaterThan(2);
    await second.reload();
    await expect.poll(() => bars(second)).toBeGreaterThan(2);
  });

  test("a click shows at once, and clicking again makes no second job", async () => {
    const page = await visit(screen);
    const before = (await jobs()).length;
    const posts = await held(page, "**/api/jobs", "POST");
    await page.locator("#prompt").fill("a red apple");
    await draws(page).click();
    const sending = bar(page).getByRole("button", { name: "Sending" });
    await sending.waitFor();
    expect(await sending.getAttribute("aria-busy")).toBe("true");
    await sending.click();
    await sending.click();
    await page.keyboard.press("Control+Enter");
    expect(posts.count()).toBe(1);
    await posts.release();
    await bar(page).getByRole("button", { name: "Cancel" }).waitFor();
    await finish(page);
    expect((await jobs()).length).toBe(before + 1);
    expect(posts.count()).toBe(1);

    // The pictures of a job, too.
    const again = await held(page, "**/api/jobs", "POST");
    await history(page).first().click();
    await dialog(page).getByRole("button", { name: "Vary strongly" }).click();
    await sending.waitFor();
    await history(page).first().click();
    await dialog(page).getByRole("button", { name: "Vary strongly" }).click();
    await expect.poll(again.count).toBe(1);
    await again.release();
    await bar(page).getByRole("button", { name: "Cancel" }).waitFor();
    const stops = await held(page, /\/api\/jobs\/[^/]+$/, "DELETE");
    await bar(page).getByRole("button", { name: "Cancel" }).click();
    const stopping = bar(page).getByRole("button", { name: "Cancelling" });
    await stopping.click();
    await stopping.click();
    expect(stops.count()).toBe(1);
    await stops.release();
    await draws(page).waitFor();
    expect((await jobs()).length).toBe(before + 2);
  });

  test("a double click is one click, whatever comes under the pointer", async () => {
    const page = await visit(screen);
    const before = (await jobs()).length;
    await settings(page);
    await choose(page, "Quality", /Best/);
    await page.locator("#prompt").fill("a red apple");
    await draws(page).dblclick();
    await bar(page).getByRole("button", { name: "Cancel" }).waitFor();
    await finish(page);
    expect((await jobs()).length).toBe(before + 1);

    await busy();
    const second = await ask({ prompt: "a green car", quality: "best" });
    await expect.poll(() => bar(page).getByRole("listitem").count()).toBe(1);
    await bar(page).getByRole("button", { name: "Cancel", exact: true }).dblclick();
    await expect.poll(() => bar(page).getByRole("listitem").count()).toBe(0);
    await expect.poll(async () => (await jobOf(second.id)).state).toBe("done");

    const count = (await gallery()).length;
    await history(page).first().click();
    await dialog(page).getByRole("button", { name: "Delete" }).dblclick();
    await page.getByText("Picture deleted").first().waitFor();
    await expect.poll(async () => (await gallery()).length).toBe(count - 1);
    await page.keyboard.press("Control+z");
    await expect.poll(async () => (await gallery()).length).toBe(count);
  });

  test("what is sent again after the line was cut makes no second job", async () => {
    const page = await visit(screen);
    const before = (await jobs()).length;
    let cut = false;
    await page.route("**/api/jobs", async (route) => {
      if (cut || route.request().method() !== "POST") return route.fallback();
      cut = true;
      await route.fetch(); // it arrives, and the answer does not
      await route.abort();
    });
    await page.locator("#prompt").fill("a blue apple");
    await draws(page).click();
    await page.getByText(/does not answer/).waitFor();
    expect((await jobs()).length).toBe(before + 1);
    const posted = page.waitForResponse(
      (answer) => answer.url().endsWith("/api/jobs") && answer.request().method() === "POST",
    );
    await bar(page)
      .getByRole("button", { name: /^(Draw|Queue)/ })
      .click();
    await posted;
    expect((await jobs()).length).toBe(before + 1);
    await finish(page);
    await draw(page); // a new click is a new job
    expect((await jobs()).length).toBe(before + 2);
    forgive();
  });

  test("a picture of any size and kind arrives, and shows that it is on its way", async () => {
    const page = await visit(screen);
    const sent = () =>
      page.waitForResponse(
        (answer) => answer.url().endsWith("/api/uploads") && answer.status() === 201,
      );
    for (const [name, width, height] of [
      ["24.jpg", 1365, 2048],
      ["badge.avif", 1600, 800],
      ["badge.gif", 1600, 800],
      ["badge.bmp", 1600, 800],
      ["48.jpg", 1536, 2048],
    ] as const) {
      const upload = sent();
      await page.getByTestId("upload").setInputFiles(given(name));
      const made = (await (await upload).json()) as Upload;
      expect([name, made.width, made.height]).toEqual([name, width, height]);
      if (name === "badge.gif" || name === "badge.avif") {
        const all = await pixels(page, made.url);
        expect([all[3], all.at((400 * 1600 + 800) * 4 + 3)]).toEqual([0, 255]);
      }
    }
    // The mask lies on what was sent.
    await page.getByRole("button", { name: "Repaint a part" }).click();
    await page.getByRole("application").focus();
    await page.keyboard.press("Space");
    await page.getByRole("button", { name: "Ready" }).click();
    const job = await draw(page, "a red heart");
    expect(job.request.mask).not.toBeNull();
    await expect.poll(async () => (await jobOf(job.id)).state).toBe("done");

    const uploads = await held(page, "**/api/uploads", "POST");
    await page.getByTestId("upload").setInputFiles(given("badge.gif"));
    await page.getByText("Getting your picture ready").waitFor();
    // What is asked for meanwhile waits for it.
    await draws(page).click();
    await bar(page).getByRole("button", { name: "Sending" }).waitFor();
    const posted = page.waitForResponse(
      (answer) => answer.url().endsWith("/api/jobs") && answer.request().method() === "POST",
    );
    await uploads.release();
    const begun = (await (await posted).json()) as Job;
    expect(begun.request.image).not.toBeNull();
    expect(begun.request.image).not.toBe(job.request.image);
    await page.getByRole("button", { name: "Repaint a part" }).waitFor();

    await page.getByTestId("upload").setInputFiles(given("photo.heic"));
    await page.getByText(/cannot read that as a picture/).waitFor();
  });

  test("a dead server is said, and when it is back the page goes on by itself", async () => {
    const { id } = await busy();
    const page = await visit(screen);
    // Pictures that do not arrive, either.
    const files = "**/api/pictures/*/file*";
    await page.route(files, (route) => route.abort());
    await page.reload();
    const thumbnail = history(page).first().locator("img");
    const width = () => thumbnail.evaluate((image) => (image as HTMLImageElement).naturalWidth);
    await thumbnail.scrollIntoViewIfNeeded();
    await expect
      .poll(() => thumbnail.evaluate((image) => (image as HTMLImageElement).complete))
      .toBe(true);
    expect(await width()).toBe(0);
    await page.getByText(/^Drawing, .+ left$/).waitFor();
    await server.kill();
    await page.unroute(files);
    await page.getByText("No connection to the studio").waitFor();
    await stage(page).getByText("No connection").waitFor();
    expect(await page.getByText(/ left$/).count()).toBe(0);
    expect(await stage(page).locator("progress").count()).toBe(0);
    expect(await page.title()).not.toContain("%");
    await message(page).getByRole("button", { name: "Try now" }).click();
    await server.start();
    await expect.poll(() => page.getByText("No connection").count()).toBe(0);
    await page.getByText(/^Drawing, .+ left$/).waitFor();
    await expect.poll(width).toBeGreaterThan(0);
    await bar(page).getByRole("button", { name: "Cancel" }).click();
    await state(page).and(page.locator("[data-state=cancelled]")).waitFor();
    expect((await jobOf(id)).state).toBe("cancelled");
    forgive();
  });

  test("a page whose server goes while it starts says so, and goes on when it is back", async () => {
    const page = await visit(screen);
    // All that the page asks for arrives, but for what its link to the server is made of.
    await page.route("**/api/pictures?*", async (route) => {
      const response = await route.fetch();
      await server.stop();
      await route.fulfill({ response });
    });
    await page.reload();
    await page.getByText(/No connection to the studio/).waitFor();
    await page.unrouteAll();
    await server.start();
    await page.getByText(/No connection to the studio/).waitFor({ state: "hidden" });
    await draw(page, "a red apple");
    await finish(page);
    forgive();
  });

  test("a page that could not start does so when the server answers", async () => {
    const page = await visit(screen);
    await page.route("**/api/info*", (route) => route.abort());
    await page.reload();
    await page.getByRole("heading", { name: "The studio cannot start" }).waitFor();
    await page.unroute("**/api/info*");
    await page.locator("#prompt").waitFor();
    forgive();
  });

  test("variations differ from their picture and from each other, a little or a lot", async () => {
    const page = await visit(screen);
    const asked = await ask({
      prompt: "a penguin",
      quality: phone ? "draft" : "balanced",
      seed: 7,
    });
    await expect.poll(async () => (await jobOf(asked.id)).state).toBe("done");
    const [parent] = (await jobOf(asked.id)).pictures as [Picture];
    const look = (picture: Picture) =>
      pixels(page, `/api/pictures/${picture.id}/file?background=%23ffffff`);
    const between = (a: number[], b: number[]) =>
      a.reduce((sum, value, at) => sum + Math.abs(value - (b[at] ?? 0)), 0) / (0.75 * a.length);
    const original = await look(parent);
    const far: number[] = [];
    for (const how of ["Vary subtly", "Vary strongly"]) {
      await history(page).locator(`img[data-id="${parent.id}"]`).click();
      const posted = page.waitForResponse((answer) => answer.url().endsWith("/api/jobs"));
      await dialog(page).getByRole("button", { name: how }).click();
      const { id } = (await (await posted).json()) as Job;
      await expect.poll(async () => (await jobOf(id)).state).toBe("done");
      const four = await Promise.all((await jobOf(id)).pictures.map(look));
      expect(four).toHaveLength(4);
      const mean = (all: number[]) => all.reduce((sum, each) => sum + each) / all.length;
      const pairs = four.flatMap((a, at) => four.slice(at + 1).map((b) => between(a, b)));
      far.push(Math.min(mean(pairs), mean(four.map((each) => between(each, original)))));
    }
    // Levels. Four that nobody could tell apart lay 7 apart at most, and these do 9 at least.
    expect(far[0]).toBeGreaterThan(8);
    expect(far[1]).toBeGreaterThan(1.2 * (far[0] as number));
  });

  test("keys work as soon as a picture is open, and none behind it", async () => {
    // As many as the page shows at once, so that it comes to the last one.
    for (const { id } of (await gallery()).slice(9))
      await fetch(`${server.url}/api/pictures/${id}`, { method: "DELETE" });
    const page = await visit(screen);
    const all = await gallery();
    const shown = () => dialog(page).locator(".view img").getAttribute("data-id");
    await history(page).first().click();
    await dialog(page).waitFor();
    await page.keyboard.press("ArrowRight");
    await expect.poll(shown).toBe(all[1]?.id);
    // What was clicked on takes none of the keys.
    await dialog(page).getByRole("radio", { name: "WEBP" }).check({ force: true });
    await dialog(page).getByRole("checkbox", { name: "Pixels" }).click();
    await page.keyboard.press("ArrowRight");
    await expect.poll(shown).toBe(all[2]?.id);
    expect(await dialog(page).getByRole("radio", { name: "WEBP" }).isChecked()).toBe(true);
    await page.keyboard.press("ArrowLeft");
    await page.keyboard.press("ArrowLeft");
    await expect.poll(shown).toBe(all[0]?.id);
    const next = dialog(page).getByRole("button", { name: "Next picture" });
    for (let at = 1; at < all.length; at++) await next.click();
    await expect.poll(shown).toBe(all.at(-1)?.id);
    // The button that had the focus is gone.
    await page.keyboard.press("ArrowLeft");
    await expect.poll(shown).toBe(all.at(-2)?.id);

    await page.locator("#prompt").evaluate((box: HTMLTextAreaElement) => {
      box.value = "a red apple";
      box.dispatchEvent(new InputEvent("input"));
    });
    const before = (await jobs()).length;
    await page.keyboard.press("Control+Enter");
    await page.keyboard.press("Delete");
    await page.getByText("Picture deleted").first().waitFor();
    await expect.poll(async () => (await gallery()).length).toBe(all.length - 1);
    await page.keyboard.press("Control+z");
    await expect.poll(async () => (await gallery()).length).toBe(all.length);
    const file = page.waitForEvent("download");
    await page.keyboard.press("d");
    await file;
    expect((await jobs()).length).toBe(before);
    await page.keyboard.press("v");
    await expect.poll(async () => (await jobs()).length).toBe(before + 1);
    await expect.poll(() => dialog(page).isVisible()).toBe(false);

    // A single picture.
    await finish(page);
    await draw(page, "a red leaf");
    await finish(page);
    await stage(page).locator("figure .open").first().click();
    await dialog(page).waitFor();
    const count = (await gallery()).length;
    await page.keyboard.press("Delete");
    await expect.poll(async () => (await gallery()).length).toBe(count - 1);
  });

  test.each([
    ["one word", "x".repeat(1000)],
    ["many words", "many words ".repeat(90)],
  ])("a long prompt of %s pushes nothing out of reach", async (_, words) => {
    await busy();
    const page = await visit(screen);
    await settings(page);
    await choose(page, "Quality", /Draft/);
    await draw(page, words);
    const cancel = bar(page)
      .getByRole("listitem")
      .getByRole("button", { name: /^Cancel/ });
    await cancel.waitFor();
    expect(await reachable(cancel)).toBe(true);
    expect(await overflow(page)).toBe(0);
    await bar(page).getByRole("button", { name: "Cancel", exact: true }).click();
    await expect.poll(() => stage(page).locator("h2").textContent()).toContain(words.slice(0, 20));
    const height = async (element: Locator) => (await element.boundingBox())?.height ?? Infinity;
    expect(await height(stage(page).locator("h2"))).toBeLessThan(100);
    await finish(page);
    await stage(page).locator("figure .open").click();
    const heading = dialog(page).getByRole("heading", { level: 2 });
    expect(await heading.textContent()).toBe(words.trim());
    expect(await height(heading)).toBeLessThan(260);
    if (!phone)
      expect(await reachable(dialog(page).getByRole("button", { name: "Vary strongly" }))).toBe(
        true,
      );
    await page.keyboard.press("Escape");
    await page.route("**/api/jobs", (route) =>
      route.fulfill({ status: 400, json: { error: { message: words, code: null } } }),
    );
    await draw(page, "a car").catch(() => undefined);
    const toast = message(page).getByRole("alert");
    await toast.waitFor();
    expect(await height(toast)).toBeLessThan(160);
    expect(await reachable(toast.getByRole("button", { name: "Close" }))).toBe(true);
    expect(await overflow(page)).toBe(0);
    forgive();
  });

  test("what is no picture is answered in plain words, however it comes", async () => {
    const page = await visit(screen);
    const told = async (how: string) => {
      const alert = message(page).getByRole("alert");
      await alert.first().waitFor();
      for (const text of await alert.allInnerTexts()) expect(text, how).not.toMatch(TECHNICAL);
      await alert.first().getByRole("button", { name: "Close" }).click();
      await expect.poll(() => alert.count(), { message: how }).toBe(0);
    };
    for (const [what, type] of [
      ["letter.pdf", "application/pdf"],
      ["photo.heic", "image/heic"],
      ["broken.png", "image/png"],
      ["letter.pdf", ""],
      ["letter.pdf", "image/jpeg"],
    ] as const) {
      await drop(page, page.locator(".middle"), file(what), type);
      await told(`${what} as ${type} dropped on the page`);
      await drop(page, page.locator(".panel[data-drop=start]"), file(what), type);
      await told(`${what} as ${type} dropped on the panel`);
      await page.evaluate(
        ([base64, mime]) => {
          const bytes = Uint8Array.from(atob(base64 as string), (char) => char.charCodeAt(0));
          const clipboardData = new DataTransfer();
          clipboardData.items.add(new File([bytes], "file", { type: mime as string }));
          document.body.dispatchEvent(
            new ClipboardEvent("paste", { clipboardData, bubbles: true }),
          );
        },
        [file(what).toString("base64"), type],
      );
      await told(`${what} as ${type} pasted`);
      const chosen = { name: what, mimeType: type, buffer: file(what) };
      await page.getByTestId("upload").setInputFiles(chosen);
      await told(`${what} as ${type} chosen`);
      await page.getByTestId("restore").setInputFiles(chosen);
      await told(`${what} as ${type} to take settings from`);
    }
    // A picture without settings is one to start from, of whatever kind.
    await drop(page, page.locator(".middle"), file("badge.gif"), "image/gif");
    await page.getByRole("button", { name: "Repaint a part" }).waitFor();
    await page.getByTestId("restore").setInputFiles(given("badge.gif"));
    await page.getByText(/carries no settings. Only/).waitFor();
  });
});
