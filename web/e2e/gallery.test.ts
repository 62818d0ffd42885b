/** What people do with their pictures, and with their words: none of it is lost by accident. */

import { expect, test, vi } from "vitest";
import type { Page } from "playwright-core";
import type { Gallery, Job, Picture } from "../src/lib/contract";
import {
  choose,
  download,
  draw,
  finish,
  finished,
  forgive,
  gallery,
  history,
  jobOf,
  PHONE,
  pixels,
  server,
  stage,
  visit,
} from "./drive";
import { names } from "./files";

const found = async (query: string) =>
  (await server.get<Gallery>(`/api/pictures?limit=100&${query}`)).pictures;
const kept = async () => (await gallery()).map(({ id }) => id);
const shown = (page: Page) =>
  history(page)
    .locator("img")
    .evaluateAll((images) => images.map((image) => (image as HTMLElement).dataset.id as string));

/** Pictures that are there before anybody comes. */
async function drawn(prompt: string, n: number): Promise<Picture[]> {
  const answer = await fetch(`${server.url}/api/jobs`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ prompt, n, quality: "draft", width: 32, height: 32 }),
  });
  const { id } = (await answer.json()) as Job;
  const wait = { timeout: 60_000, interval: 100 };
  await vi.waitFor(async () => expect((await jobOf(id)).state).toBe("done"), wait);
  return (await jobOf(id)).pictures;
}

test("several are chosen by click, range, keys and finger, and one undo brings all back", async () => {
  await drawn("a red apple", 4);
  await drawn("a blue car", 4);
  const page = await visit();
  const all = await kept();
  expect(all.length).toBeGreaterThanOrEqual(8);
  const count = page.getByRole("group", { name: "Select" }).getByRole("status");

  await history(page)
    .nth(1)
    .click({ modifiers: ["ControlOrMeta"] });
  await history(page)
    .nth(4)
    .click({ modifiers: ["Shift"] });
  await expect.poll(() => count.textContent()).toBe("4 selected");
  await history(page).nth(2).click(); // which takes one away: no picture opens
  await expect.poll(() => count.textContent()).toBe("3 selected");
  await page.keyboard.press("Delete");
  await expect.poll(kept).toEqual([all[0], all[2], ...all.slice(5)]);
  await page.getByText("3 pictures deleted").waitFor();
  await page.keyboard.press("Control+z");
  await expect.poll(kept).toEqual(all);
  expect(await shown(page)).toEqual(all);

  // With keys alone.
  await history(page).first().focus();
  await page.keyboard.press("Space");
  await page.keyboard.press("Shift+ArrowRight");
  await page.keyboard.press("Shift+ArrowRight");
  await expect.poll(() => count.textContent()).toBe("3 selected");
  await page.keyboard.press("Control+a");
  await expect.poll(() => count.textContent()).toBe(`${all.length} selected`);
  await page.keyboard.press("Escape");
  expect(await count.count()).toBe(0);

  const phone = await visit({ viewport: PHONE, hasTouch: true, isMobile: true });
  const first = history(phone).first();
  await first.scrollIntoViewIfNeeded();
  await first.dispatchEvent("pointerdown", { pointerType: "touch" });
  await phone.getByText("1 selected").waitFor();
  await first.dispatchEvent("pointerup", { pointerType: "touch" });
  await first.dispatchEvent("click"); // the end of the same touch
  await history(phone).nth(2).tap();
  await phone.getByText("2 selected").waitFor();
  await phone.getByRole("button", { name: "Delete", exact: true }).tap();
  await expect.poll(kept).toEqual([all[1], ...all.slice(3)]);
  await phone.getByRole("button", { name: "Undo" }).tap();
  await expect.poll(kept).toEqual(all);
});

test("pictures are found by words and by stars, and a zip holds all that are found", async () => {
  await drawn("a green leaf", 2);
  const page = await visit();
  await page.getByRole("textbox", { name: "Search" }).fill("leaf GREEN");
  const leaves = (await found("q=green leaf")).map(({ id }) => id);
  expect(leaves.length).toBeGreaterThanOrEqual(2);
  await expect.poll(() => shown(page)).toEqual(leaves);
  await history(page).first().focus();
  await page.keyboard.press("f");
  await expect.poll(async () => (await found("favourites=true")).length).toBe(1);
  const { data } = await download(page, page.getByRole("link", { name: "Download all" }));
  expect(names(data).filter((name) => name.endsWith(".png"))).toHaveLength(leaves.length);
  await page.getByRole("button", { name: "Clear the search" }).click();
  await expect.poll(async () => (await shown(page)).length).toBe((await gallery()).length);
  await page.getByRole("button", { name: "Only favourites" }).click();
  await expect.poll(() => shown(page)).toEqual([leaves[0]]);
  await page.reload();
  await expect.poll(() => page.locator(".history .star").count()).toBe(1);
  await page.getByRole("textbox", { name: "Search" }).fill("nothing of the kind");
  await page.getByText("No picture has all of these words").waitFor();
});

test("what is deleted can be found again, and goes for good only when asked twice", async () => {
  const pictures = await drawn("a yellow star", 3);
  const page = await visit();
  const all = await kept();
  for (let n = 0; n < 3; n++) {
    await history(page).first().focus();
    await page.keyboard.press("Delete");
    await expect.poll(async () => (await kept()).length).toBe(all.length - n - 1);
  }
  await page.reload(); // no undo any more
  const trash = page.getByRole("button", { name: "Deleted pictures" });
  await trash.click();
  await expect
    .poll(async () => (await shown(page)).sort())
    .toEqual((await found("trash=true")).map(({ id }) => id).sort());
  await page.locator(`.history img[data-id="${pictures[0]?.id}"]`).click();
  await page.getByRole("button", { name: "Bring back" }).click();
  await expect.poll(kept).toContain(pictures[0]?.id);
  await expect.poll(() => shown(page)).not.toContain(pictures[0]?.id);

  await page.locator(`.history img[data-id="${pictures[1]?.id}"]`).click();
  await page.getByRole("button", { name: "Delete for good", exact: true }).click();
  await expect
    .poll(async () => (await fetch(`${server.url}/api/pictures/${pictures[1]?.id}`)).status)
    .toBe(404);
  await page.getByRole("button", { name: "Delete all for good" }).click();
  expect((await found("trash=true")).length).toBeGreaterThan(0);
  await page.getByRole("button", { name: "Really?" }).click();
  await expect.poll(() => found("trash=true")).toEqual([]);
  await trash.click();
  await expect.poll(async () => (await shown(page)).length).toBe((await kept()).length);
});

test("Enter draws, and Shift with Enter breaks the line", async () => {
  const page = await visit();
  const box = page.locator("#prompt");
  await box.fill("a red");
  await box.press("Shift+Enter");
  await box.pressSequentially("heart");
  expect(await box.inputValue()).toBe("a red\nheart");
  const posted = page.waitForResponse((answer) => answer.url().endsWith("/api/jobs"));
  await box.press("Enter");
  expect(((await (await posted).json()) as Job).request.prompt).toMatch(/^a red\s+heart$/);
  expect(await box.inputValue()).toBe("a red\nheart");
  await finish(page);
});

test("words of other languages are drawn as what they say, and the page says so", async () => {
  const page = await visit({ locale: "de-DE" });
  await page.locator("#prompt").fill("ein roter Fuchs");
  const said = page.locator(".reading");
  await said.getByText("Als Deutsch gelesen").waitFor();
  const english = said.getByRole("button", { name: /a red fox/ });
  await english.click();
  expect(await page.locator("#prompt").inputValue()).toBe("a red fox");
  await said.getByText("Diese Worte kennt es").waitFor();

  await page.locator("#prompt").fill("a red foxx");
  await said.getByText("„foxx“ kennt es nicht").waitFor();
  await said.getByRole("button", { name: "fox", exact: true }).click();
  expect(await page.locator("#prompt").inputValue()).toBe("a red fox");
});

test("whoever opens the page reads what it draws", async () => {
  for (const [locale, words] of [
    ["en-US", /emoji-like/],
    ["de-DE", /Stil von Emojis/],
    ["zh-CN", /表情符号/],
  ] as const) {
    const page = await visit({ locale });
    await page.locator(".reading").getByText(words).waitFor();
  }
});

test("what the server refuses is told in the language of the page", async () => {
  const page = await visit({ locale: "fr-FR" });
  await page.route("**/api/jobs", (route) =>
    route.fulfill({
      status: 503,
      json: {
        error: {
          message: "The queue is full.",
          type: "x",
          param: null,
          code: "queue_full",
          values: {},
        },
      },
    }),
  );
  await page.locator("#prompt").fill("a red heart");
  await page.locator("#prompt").press("Enter");
  await page.getByText("Trop d’images attendent").waitFor();
  forgive();
});

test("a reload keeps the picture to start from and what was painted over it", async () => {
  const page = await visit();
  const [picture] = await gallery();
  await page.getByTestId("upload").setInputFiles({
    name: "source.png",
    mimeType: "image/png",
    buffer: await server.bytes(`/api/pictures/${picture?.id}/file?format=png`),
  });
  await page.getByRole("button", { name: "Repaint a part" }).click();
  await page.getByRole("application").focus();
  await page.keyboard.press("Space");
  await page.getByRole("button", { name: "Ready" }).click();
  const first = await draw(page, "a red heart");
  await page.reload();
  await page.getByRole("button", { name: "Change the painted part" }).waitFor();
  await finish(page);
  const second = await draw(page, "a blue heart");
  expect(second.request.image).toBe(first.request.image);
  expect(second.request.mask).not.toBeNull();
  await page.getByRole("button", { name: "Remove" }).click();
  await page.reload();
  await page.getByRole("button", { name: "Use a picture" }).waitFor();
});

test("what is painted into a picture comes back in that picture, at its own size", async () => {
  const page = await visit();
  const made = await page.evaluate(async () => {
    const canvas = new OffscreenCanvas(2600, 1300);
    const context = canvas.getContext("2d") as OffscreenCanvasRenderingContext2D;
    const shade = context.createLinearGradient(0, 0, 2600, 1300);
    shade.addColorStop(0, "#124");
    shade.addColorStop(1, "#fd9");
    context.fillStyle = shade;
    context.fillRect(0, 0, 2600, 1300);
    const data = await (await canvas.convertToBlob({ type: "image/png" })).arrayBuffer();
    return [...new Uint8Array(data)];
  });
  const file = Buffer.from(made);
  await page
    .getByTestId("upload")
    .setInputFiles({ name: "wide.png", mimeType: "image/png", buffer: file });
  await page.getByRole("button", { name: "Repaint a part" }).click();
  await page.getByRole("application").focus();
  await page.keyboard.press("Space"); // a spot in the middle
  await page.getByRole("button", { name: "Ready" }).click();
  await draw(page, "a red heart");
  await finish(page);
  await finished(page).first().waitFor();
  await page.reload(); // the original is still there
  await finished(page).first().waitFor();
  const { data } = await download(page, stage(page).getByRole("button", { name: "Download" }));
  const blank = await page.context().newPage(); // whose policy lets it read what is given
  const [size, ...changed] = await blank.evaluate(
    async ([before, after]) => {
      const read = async (base64: string) => {
        const data = await (await fetch(`data:image/png;base64,${base64}`)).blob();
        const bitmap = await createImageBitmap(data);
        const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
        const context = canvas.getContext("2d") as OffscreenCanvasRenderingContext2D;
        context.drawImage(bitmap, 0, 0);
        return context.getImageData(0, 0, bitmap.width, bitmap.height);
      };
      const [a, b] = [await read(before as string), await read(after as string)];
      // Far from the painted spot, from top to bottom, and in its middle.
      const strips = [
        [0, 900],
        [1700, 2600],
        [1290, 1310],
      ] as const;
      const differs = strips.map(([from, to]) => {
        for (let y = 0; y < a.height; y++)
          for (let x = 4 * from; x < 4 * to; x++)
            if (a.data[4 * a.width * y + x] !== b.data[4 * a.width * y + x]) return true;
        return false;
      });
      return [`${b.width}x${b.height}`, ...differs];
    },
    [file.toString("base64"), data.toString("base64")],
  );
  expect(size).toBe("2600x1300");
  expect(changed).toEqual([false, false, true]);
});

test("everything of a picture comes back with its settings, the picture it began with too", async () => {
  const page = await visit();
  const [picture] = await gallery();
  await page.getByTestId("upload").setInputFiles({
    name: "source.png",
    mimeType: "image/png",
    buffer: await server.bytes(`/api/pictures/${picture?.id}/file?format=png`),
  });
  await page.getByRole("slider", { name: /How closely/ }).fill("30");
  const job = await draw(page, "a red heart");
  await finish(page);
  await page.getByRole("button", { name: "Remove" }).click();
  await page.locator("#prompt").fill("something else");
  await finished(page).first().click();
  await page.getByRole("dialog").getByRole("button", { name: "Use settings" }).click();
  await page.getByRole("slider", { name: /How closely/ }).waitFor();
  const again = await draw(page);
  expect(again.request).toMatchObject({
    image: job.request.image,
    strength: job.request.strength,
    prompt: "a red heart",
  });
  await finish(page);
});

test("a live picture can be opened, and kept as it is", async () => {
  const page = await visit();
  const before = await kept();
  await page.getByRole("switch", { name: "Live" }).check({ force: true });
  await page.locator("#prompt").fill("a red heart");
  // What was on the stage before is there until the first live picture comes.
  await page.getByRole("button", { name: "Keep this picture" }).waitFor();
  await finished(page).first().click();
  const dialog = page.getByRole("dialog", { name: "Picture" });
  await dialog.waitFor();
  const seen = await dialog.locator(".view img").getAttribute("src");
  const live = await pixels(page, seen as string);
  await page.keyboard.press("Escape");
  await page.getByRole("button", { name: "Keep this picture" }).click();
  await expect.poll(async () => (await kept()).length).toBe(before.length + 1);
  const [saved] = await gallery();
  expect(await pixels(page, saved?.url as string)).toEqual(live);
});

test("while the model is loaded one can write, and what was asked for is drawn", async () => {
  const page = await visit();
  let release: () => void = () => undefined;
  const gate = new Promise<void>((resolve) => (release = resolve));
  await page.route("**/api/info*", async (route) => {
    await gate;
    await route.continue();
  });
  await page.reload();
  await page.getByRole("heading", { name: "Loading the model" }).waitFor();
  await page.locator("#early").fill("a green heart");
  await page.locator("#early").press("Enter");
  await page.getByRole("button", { name: "Draws as soon as" }).waitFor();
  release();
  await expect.poll(() => stage(page).locator("h2").textContent()).toBe("a green heart");
  await finish(page);
  expect(await page.locator("#prompt").inputValue()).toBe("a green heart");
});

test("two windows keep their own words and settings", async () => {
  const page = await visit();
  const other = await page.context().newPage();
  await other.goto(server.url);
  await page.locator("#prompt").fill("a red heart");
  await choose(page, "Quality", /Draft/);
  await other.locator("#prompt").fill("a blue car");
  await choose(other, "Quality", /Best/);
  await page.reload();
  await other.reload();
  expect(await page.locator("#prompt").inputValue()).toBe("a red heart");
  expect(await page.getByRole("radio", { name: /Draft/ }).isChecked()).toBe(true);
  expect(await other.locator("#prompt").inputValue()).toBe("a blue car");
  expect(await other.getByRole("radio", { name: /Best/ }).isChecked()).toBe(true);
});

test("a seed that is none is said, and too many letters are told", async () => {
  const page = await visit();
  await page.getByText("Advanced").click();
  const seed = page.getByRole("textbox", { name: "Seed" });
  for (const wrong of ["abc", "12345678901234567890", "-1"]) {
    await seed.fill(wrong);
    await seed.blur();
    await page.getByText("A seed is a whole number").waitFor();
  }
  await seed.fill("9007199254740991");
  await seed.blur();
  await expect.poll(() => page.getByText("A seed is a whole number").count()).toBe(0);
  await page.locator("#prompt").focus();
  await page.evaluate(() => {
    const clipboardData = new DataTransfer();
    clipboardData.setData("text/plain", "a ".repeat(5000));
    document
      .querySelector("#prompt")
      ?.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true }));
  });
  await page.getByText(/Only the first 1,000 characters/).waitFor();
});
