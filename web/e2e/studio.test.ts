import { audit } from "./axe";
import { expect, test } from "vitest";
import type { Info, Job } from "../src/lib/contract";
import {
  choose,
  DESKTOP,
  download,
  draw,
  drop,
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
  state,
  tiles,
  visit,
} from "./drive";
import { dimensions, names, texts } from "./files";

test("words become a picture, with previews on the way and a bar for every step", async () => {
  const page = await visit();
  await choose(page, "Quality", /Best/);
  await page.evaluate(() => {
    const seen = ((window as unknown as { seen: Set<string> }).seen = new Set());
    new MutationObserver(() => {
      const preview = document.querySelector<HTMLImageElement>("figure .preview img");
      if (preview?.complete && preview.naturalWidth > 0) seen.add(preview.src);
    }).observe(document.body, { subtree: true, childList: true, attributes: true });
  });
  const { id } = await draw(page, "a red apple");
  await page.getByRole("button", { name: "Cancel" }).waitFor();
  await page.locator("progress").waitFor();
  await page.getByText(/^Drawing, .+ left$/).waitFor();
  await finish(page);
  const previews = await page.evaluate(() => [
    ...(window as unknown as { seen: Set<string> }).seen,
  ]);
  expect(previews.length).toBeGreaterThan(1);

  const { pictures, forwards } = await jobOf(id);
  expect(forwards).toBeGreaterThan(0);
  const steps = pictures[0]?.steps ?? [];
  expect(steps.length).toBeGreaterThan(3);
  await expect.poll(() => page.locator(".strip li").count()).toBe(steps.length);
  expect(await finished(page).first().getAttribute("data-id")).toBe(pictures[0]?.id);
  const apple = await pixels(page, pictures[0]?.url as string);
  expect(new Set(apple).size).toBeGreaterThan(16);
  await expect.poll(() => history(page).count()).toBe(1);
  expect(await page.getByRole("button", { name: /^Draw/ }).isVisible()).toBe(true);
});

test("cancel stops the work", async () => {
  const page = await visit();
  await choose(page, "Quality", /Best/);
  await choose(page, "Pictures", "4");
  const { id } = await draw(page, "a blue car");
  await page.locator("figure .preview").first().waitFor();
  await page.getByRole("button", { name: "Cancel" }).click();
  await state(page).and(page.locator("[data-state=cancelled]")).waitFor();
  await expect.poll(async () => (await jobOf(id)).state).toBe("cancelled");
  await page.getByRole("button", { name: /^Draw/ }).waitFor();
});

test("a reload in the middle finds words, settings and the running job again", async () => {
  const page = await visit();
  await choose(page, "Quality", /Best/);
  await choose(page, "Size", /96×64/);
  await choose(page, "Pictures", "4");
  const { id } = await draw(page, "a yellow heart");
  await page.locator("figure .preview").first().waitFor();
  await page.reload();
  await page.getByRole("button", { name: "Cancel" }).waitFor();
  expect(await page.locator("#prompt").inputValue()).toBe("a yellow heart");
  expect(await page.getByRole("radio", { name: /Best/ }).isChecked()).toBe(true);
  await finish(page);
  await expect.poll(() => finished(page).count()).toBe(4);
  const { pictures } = await jobOf(id);
  const shown = await history(page)
    .locator("img")
    .evaluateAll((all) => all.slice(0, 4).map((image) => (image as HTMLImageElement).dataset.id));
  expect(shown.sort()).toEqual(pictures.map((picture) => picture.id).sort());
});

test("a second request waits in line and takes the stage in turn", async () => {
  const page = await visit();
  await choose(page, "Quality", /Best/);
  await choose(page, "Pictures", "4");
  const first = await draw(page, "a red apple");
  await choose(page, "Quality", /Fast/);
  await choose(page, "Pictures", "1");
  const second = await draw(page, "a green apple");
  await expect.poll(() => page.locator(".bar li").count()).toBe(1);
  await expect.poll(() => stage(page).locator("h2").textContent()).toBe("a green apple");
  await finish(page);
  expect((await jobOf(first.id)).state).toBe("done");
  expect((await jobOf(second.id)).state).toBe("done");
});

test("a long queue leaves the page its connections", async () => {
  const page = await visit();
  await choose(page, "Quality", /Best/);
  await choose(page, "Pictures", "4");
  await draw(page, "a {red|green|blue|pink} {apple|car|heart|leaf}");
  await choose(page, "Quality", /Draft/);
  await choose(page, "Pictures", "1");
  const waiting: Job[] = [];
  for (const colour of ["red", "green", "blue", "pink", "white", "black", "grey"])
    waiting.push(await draw(page, `a ${colour} car`));
  // A browser opens six connections to a server, and every one of these could keep one.
  expect(await page.evaluate(async () => (await fetch("/health")).ok)).toBe(true);
  const { id } = waiting.at(-1) as Job;
  await page.getByRole("button", { name: "Cancel: a grey car" }).click();
  await expect.poll(async () => (await jobOf(id)).state).toBe("cancelled");
  await page.getByRole("button", { name: "Cancel", exact: true }).click();
  await expect.poll(() => stage(page).locator("h2").textContent()).toBe("a black car");
  await finish(page);
  for (const job of waiting.slice(0, -1)) expect((await jobOf(job.id)).state).toBe("done");
});

test("a page outlives the server, waits for its model, and finds the history again", async () => {
  const before = (await gallery()).map((picture) => picture.id);
  expect(before.length).toBeGreaterThan(0);
  const open = await visit();
  await history(open).first().waitFor(); // it has heard all that it asked for
  await server.stop();
  await open.getByText(/No connection to the studio/).waitFor();
  await open.locator("#prompt").fill("a red apple");
  await open.locator("body").press("Control+Enter");
  await open.getByText(/does not answer/).waitFor();
  forgive(); // the browser notes that nobody answers
  await server.start("health");
  const page = await visit();
  await expect.poll(() => history(page).count()).toBe(before.length);
  expect((await gallery()).map((picture) => picture.id)).toEqual(before);
  await finished(page).first().waitFor();
  await draw(open);
  await finish(open);
  forgive();
});

test("a style card decides the style, and a size chip the size", async () => {
  const page = await visit();
  await choose(page, "Style", /Outlined|streamline/i);
  await choose(page, "Size", /128×64/);
  const job = await draw(page, "a red heart");
  expect(job.request.style).toBe("streamline");
  await finish(page);
  const [picture] = (await jobOf(job.id)).pictures;
  const file = await server.bytes(`/api/pictures/${picture?.id}/file?format=png`);
  expect(dimensions(file)).toEqual({ width: job.request.width, height: job.request.height });
  expect(Math.max(job.request.width, job.request.height)).toBe(128);
});

test("every style card shows a picture", async () => {
  const page = await visit();
  const cards = page.getByRole("group", { name: "Style" }).locator("img");
  expect(await cards.count()).toBeGreaterThan(5);
  const widths = () =>
    cards.evaluateAll((all) => all.map((image) => (image as HTMLImageElement).naturalWidth));
  await expect.poll(async () => Math.min(...(await widths()))).toBeGreaterThan(32);
});

test("a picture to start from is followed, closely or less", async () => {
  const page = await visit();
  const source = (await gallery()).find(({ width, height }) => width === height);
  const file = await server.bytes(
    `/api/pictures/${source?.id}/file?format=png&background=%23ffffff`,
  );
  await drop(page, page.locator("[data-drop=start]").first(), file, "image/png");
  const follow = page.getByRole("slider", { name: /How closely/ });
  await follow.waitFor();
  await page.getByRole("switch", { name: /Match my image/ }).uncheck({ force: true });
  const far: number[] = [];
  for (const closeness of ["95", "5"]) {
    await follow.fill(closeness);
    const job = await draw(page, "a blue car");
    expect(job.request.image).not.toBeNull();
    expect(job.request.strength).toBeCloseTo(1 - Number(closeness) / 100);
    await finish(page);
    const [picture] = (await jobOf(job.id)).pictures;
    const [got, want] = await Promise.all([
      pixels(page, `/api/pictures/${picture?.id}/file?format=png&background=%23ffffff`),
      pixels(page, `/api/pictures/${source?.id}/file?format=png&background=%23ffffff`),
    ]);
    expect(got.length).toBe(want.length);
    far.push(got.reduce((sum, value, at) => sum + Math.abs(value - (want[at] ?? 0)), 0));
  }
  expect(far).toHaveLength(2);
  expect(far[0]).toBeLessThan((far[1] ?? 0) / 2);
  await page.getByRole("button", { name: "Remove" }).click();
  await page.getByRole("button", { name: "Use a picture" }).waitFor();
});

test("a wide picture is matched in shape, never stretched", async () => {
  const page = await visit();
  const wide = await page.evaluate(async () => {
    const canvas = new OffscreenCanvas(300, 150);
    const context = canvas.getContext("2d") as OffscreenCanvasRenderingContext2D;
    context.fillStyle = "#2a6";
    context.fillRect(0, 0, 300, 150);
    const data = await (await canvas.convertToBlob({ type: "image/png" })).arrayBuffer();
    return [...new Uint8Array(data)];
  });
  await page
    .getByTestId("upload")
    .setInputFiles({ name: "wide.png", mimeType: "image/png", buffer: Buffer.from(wide) });
  await page.getByText(/Matches your picture/).waitFor();
  const matched = await draw(page, "a green car");
  expect(matched.request.width / matched.request.height).toBe(2);
  await finish(page);
  await page.getByRole("switch", { name: /Match my image/ }).uncheck({ force: true });
  await choose(page, "What does not fit", "Add a border");
  const padded = await draw(page);
  expect(padded.request).toMatchObject({ width: 64, height: 64, fit: "pad" });
  await finish(page);
});

test("a picture can be pasted", async () => {
  const page = await visit();
  const [picture] = await gallery();
  const file = await server.bytes(`/api/pictures/${picture?.id}/file?format=png`);
  await page.evaluate((base64) => {
    const bytes = Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
    const clipboardData = new DataTransfer();
    clipboardData.items.add(new File([bytes], "picture.png", { type: "image/png" }));
    document.body.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true }));
  }, file.toString("base64"));
  await page.getByRole("slider", { name: /How closely/ }).waitFor();
});

test("what stands under advanced is what is asked for", async () => {
  const page = await visit();
  await page.getByText("Advanced").click();
  await page.getByRole("textbox", { name: "Leave out" }).fill("text");
  await page.getByRole("slider", { name: /Guidance/ }).fill("5");
  await page.getByRole("textbox", { name: "Seed" }).fill("42");
  await choose(page, "Quality", /Draft/);
  const job = await draw(page, "a red heart");
  await finish(page);
  const [picture] = (await jobOf(job.id)).pictures;
  expect(picture).toMatchObject({ negative_prompt: "text", guidance_scale: 5, seed: 42 });
});

test("only what the brush painted is made anew", async () => {
  const page = await visit();
  const source = (await gallery()).find(({ width, height }) => width === 64 && height === 64);
  const url = `/api/pictures/${source?.id}/file?format=png`;
  await page.getByTestId("upload").setInputFiles({
    name: "source.png",
    mimeType: "image/png",
    buffer: await server.bytes(url),
  });
  await page.getByRole("switch", { name: /Match my image/ }).uncheck({ force: true });
  await page.getByRole("button", { name: "Repaint a part" }).click();
  const sheet = page.getByRole("application");
  await sheet.scrollIntoViewIfNeeded();
  const box = await sheet.boundingBox();
  if (!box) throw new Error("there is no sheet to paint on");
  // A broad line across the upper third.
  await page.getByRole("slider", { name: "Brush size" }).fill("0.3");
  await page.mouse.move(box.x + box.width * 0.2, box.y + box.height * 0.2);
  await page.mouse.down();
  await page.mouse.move(box.x + box.width * 0.8, box.y + box.height * 0.2, { steps: 5 });
  await page.mouse.up();
  await page.getByRole("button", { name: "Ready" }).click();
  // What is painted over is drawn anew, whatever was there.
  expect(await page.getByRole("slider", { name: /How closely/ }).inputValue()).toBe("0");
  const job = await draw(page, "a green leaf");
  expect(job.request.mask).not.toBeNull();
  await finish(page);
  const [picture] = (await jobOf(job.id)).pictures;
  const [before, after] = await Promise.all([
    pixels(page, url),
    pixels(page, `/api/pictures/${picture?.id}/file?format=png`),
  ]);
  const changed = (from: number, to: number) => {
    let most = 0;
    for (let at = from * 64 * 4; at < to * 64 * 4; at++)
      most = Math.max(most, Math.abs((before[at] ?? 0) - (after[at] ?? 0)));
    return most;
  };
  expect(changed(6, 20)).toBeGreaterThan(20);
  // Of what is transparent only the alpha counts; elsewhere rounding may move a level.
  expect(changed(34, 64)).toBeLessThanOrEqual(2);
});

test("the brush works with keys, and a stroke can be taken back", async () => {
  const page = await visit();
  const [source] = await gallery();
  await page.getByTestId("upload").setInputFiles({
    name: "source.png",
    mimeType: "image/png",
    buffer: await server.bytes(`/api/pictures/${source?.id}/file?format=png`),
  });
  await page.getByRole("button", { name: "Repaint a part" }).click();
  const painted = () =>
    page.locator("canvas").evaluate((canvas) => {
      const { width, height } = canvas as HTMLCanvasElement;
      const context = (canvas as HTMLCanvasElement).getContext("2d") as CanvasRenderingContext2D;
      return context
        .getImageData(0, 0, width, height)
        .data.filter((_, at) => at % 4 === 3)
        .reduce((sum, alpha) => sum + Number(alpha > 0), 0);
    });
  expect(await painted()).toBe(0);
  await page.getByRole("application").focus();
  await page.keyboard.press("ArrowLeft");
  await page.keyboard.press("Space");
  await expect.poll(painted).toBeGreaterThan(0);
  const dot = await painted();
  await page.keyboard.press("Shift+ArrowRight");
  await page.keyboard.press("Shift+ArrowRight");
  await expect.poll(painted).toBeGreaterThan(dot);
  await page.getByRole("button", { name: "Clear" }).click();
  await expect.poll(painted).toBe(0);
});

test("downloads hold the very picture, its settings, and the mark that a model made it", async () => {
  const page = await visit();
  await draw(page, "a red heart");
  await finish(page);
  const [picture] = await gallery();
  if (!picture) throw new Error("there is no picture");
  await history(page).first().click();
  const dialog = page.getByRole("dialog", { name: "Picture" });
  const link = dialog.locator("a[data-download]");

  const large = await download(page, link);
  expect(large.name).toMatch(/^[\w-]+-\d+\.png$/);
  expect(Math.max(...Object.values(dimensions(large.data)))).toBe(1024);
  await dialog.getByRole("radio", { name: "SVG" }).check({ force: true });
  const traced = await download(page, link);
  expect(traced.name).toMatch(/\.svg$/);
  expect(traced.data.toString("utf8")).toMatch(/<svg[^]+lgorithmicMedia/);
  await dialog.getByRole("radio", { name: "PNG" }).check({ force: true });
  const own = Math.max(picture.width, picture.height);
  await dialog.getByRole("radio", { name: `${own} px` }).check({ force: true });
  const png = await download(page, link);
  expect(png.name).toMatch(/\.png$/);
  expect(png.data).toEqual(await server.bytes(`/api/pictures/${picture.id}/file?format=png`));
  const said = texts(png.data);
  expect(said.get("asymflow")).toContain(picture.prompt);
  expect(said.get("parameters")).toContain(picture.prompt);
  expect(said.get("XML:com.adobe.xmp")).toContain("lgorithmicMedia");

  const least = async () => {
    const all = await pixels(page, (await link.getAttribute("href")) as string);
    return Math.min(...all.filter((_, at) => at % 4 === 3));
  };
  expect(await least()).toBe(0);
  await dialog.getByRole("radio", { name: "Background" }).check({ force: true });
  expect(await least()).toBe(255);
  await dialog.getByRole("radio", { name: "Transparent" }).check({ force: true });

  await dialog.getByRole("checkbox", { name: /Without prompt/ }).check();
  await dialog.getByRole("radio", { name: "512 px" }).check({ force: true });
  const clean = await download(page, link);
  expect(dimensions(clean.data)).toEqual({
    width: (picture.width * 512) / own,
    height: (picture.height * 512) / own,
  });
  expect(clean.name).toBe("asymflow.png");
  expect(clean.data.includes(picture.prompt)).toBe(false);
  expect(texts(clean.data).get("XML:com.adobe.xmp")).toContain("lgorithmicMedia");

  await dialog.getByRole("radio", { name: "WEBP" }).check({ force: true });
  const webp = await download(page, link);
  expect(webp.name).toMatch(/\.webp$/);
  expect(webp.data.toString("latin1", 8, 12)).toBe("WEBP");

  await dialog.getByRole("radio", { name: "JPEG" }).check({ force: true });
  const jpeg = await download(page, link);
  expect(jpeg.data.subarray(0, 3)).toEqual(Buffer.from([0xff, 0xd8, 0xff]));
});

test("everything comes as one zip", async () => {
  const page = await visit();
  const { name, data } = await download(page, page.getByRole("link", { name: "Download all" }));
  expect(name).toMatch(/\.zip$/);
  const pictures = names(data).filter((entry) => entry.endsWith(".png"));
  expect(pictures).toHaveLength((await gallery()).length);
});

test("a picture can be copied", async () => {
  const page = await visit({ permissions: ["clipboard-read", "clipboard-write"] });
  await history(page).first().click();
  await page.getByRole("dialog").getByRole("button", { name: "Copy" }).click();
  await page.getByText("Picture copied").waitFor();
  const types = await page.evaluate(async () => (await navigator.clipboard.read())[0]?.types);
  expect(types).toContain("image/png");
});

test("a picture that is dropped back in brings its settings, and makes itself again", async () => {
  const page = await visit();
  await choose(page, "Style", /Noto$/);
  await choose(page, "Quality", /Fast/);
  const job = await draw(page, "a red heart");
  await finish(page);
  const [made] = (await jobOf(job.id)).pictures;
  const file = await server.bytes(`/api/pictures/${made?.id}/file?format=png`);

  const other = await visit();
  await other.locator("#prompt").fill("something else");
  await drop(other, other.locator(".middle"), file, "image/png");
  await other.getByText("Settings restored").waitFor();
  expect(await other.locator("#prompt").inputValue()).toBe("a red heart");
  expect(await other.getByRole("radio", { name: /Fast/ }).isChecked()).toBe(true);
  const again = await draw(other);
  expect(again.request).toMatchObject({ style: "noto", quality: "fast", seed: made?.seed });
  await finish(other);
  const [copy] = (await jobOf(again.id)).pictures;
  expect(await pixels(other, copy?.url ?? "")).toEqual(await pixels(other, made?.url ?? ""));
});

test("a picture without settings becomes the one to start from", async () => {
  const page = await visit();
  const [picture] = await gallery();
  const bare = await server.bytes(`/api/pictures/${picture?.id}/file?format=png&clean=1`);
  await drop(page, page.locator(".middle"), bare, "image/png");
  await page.getByText(/carries no settings/).waitFor();
  await page.getByRole("slider", { name: /How closely/ }).waitFor();
  forgive(); // the browser notes that the server found no settings
});

test("the same look keeps seed, style and quality", async () => {
  const page = await visit();
  await choose(page, "Style", /Twemoji/);
  const first = await draw(page, "a red heart");
  await finish(page);
  await choose(page, "Look", "Same look");
  expect(await page.getByRole("radio", { name: /Twemoji/ }).isDisabled()).toBe(true);
  const second = await draw(page, "a green heart");
  await finish(page);
  const [one, two] = [await jobOf(first.id), await jobOf(second.id)];
  expect(two.pictures[0]?.seed).toBe(one.pictures[0]?.seed);
  expect(second.request).toMatchObject({ style: "twemoji", quality: first.request.quality });
  await choose(page, "Look", "Surprise me");
  const third = await draw(page, "a green heart");
  await finish(page);
  expect((await jobOf(third.id)).pictures[0]?.seed).not.toBe(one.pictures[0]?.seed);
});

test("vary makes relatives of a picture", async () => {
  const page = await visit();
  const [parent] = await gallery();
  await history(page).first().click();
  const answer = page.waitForResponse((response) => response.url().endsWith("/api/jobs"));
  await page.getByRole("dialog").getByRole("button", { name: "Vary strongly" }).click();
  const job = (await (await answer).json()) as Job;
  expect(job.request.parent).toBe(parent?.id);
  await expect.poll(async () => (await jobOf(job.id)).state).toBe("done");
  const { pictures } = await jobOf(job.id);
  const all = await Promise.all(pictures.map((picture) => pixels(page, picture.url)));
  expect(new Set(all.map(String)).size).toBe(4);
});

test("alternatives in braces become a table with names", async () => {
  const page = await visit();
  await page.locator("#prompt").fill("a {red|blue} {heart|car}");
  await page.getByRole("button", { name: /Draw 4/ }).waitFor();
  await choose(page, "Quality", /Draft/);
  const job = await draw(page);
  expect(job.slots).toHaveLength(4);
  await finish(page);
  expect(await finished(page).count()).toBe(4);
  expect(await page.locator(".pictures .head").allTextContents()).toEqual([
    "heart",
    "car",
    "red",
    "blue",
  ]);
  const alts = await finished(page).evaluateAll((all) =>
    all.map((each) => (each as HTMLImageElement).alt),
  );
  expect(alts[1]).toContain("a red car");
  expect(alts[2]).toContain("a blue heart");
});

test("a brace behind a backslash is a brace", async () => {
  const page = await visit();
  await choose(page, "Quality", /Draft/);
  const job = await draw(page, String.raw`a \{red|blue} car`);
  expect(job.slots.map(({ prompt }) => prompt)).toEqual(["a {red|blue} car"]);
  await finish(page);
  expect(await stage(page).locator("h2").textContent()).toBe("a {red|blue} car");
  await finished(page).first().click();
  const answer = page.waitForResponse((response) => response.url().endsWith("/api/jobs"));
  await page.getByRole("dialog").getByRole("button", { name: "Vary strongly" }).click();
  const varied = (await (await answer).json()) as Job;
  expect(new Set(varied.slots.map(({ prompt }) => prompt))).toEqual(new Set(["a {red|blue} car"]));
});

test("in live mode pictures follow the typing, and stay out of the history", async () => {
  const page = await visit();
  const before = (await gallery()).length;
  await page.getByRole("switch", { name: "Live" }).check({ force: true });
  await page.locator("#prompt").pressSequentially("a red hea", { delay: 20 });
  await page.getByRole("button", { name: "Keep this picture" }).waitFor();
  await page.locator("#prompt").pressSequentially("rt", { delay: 20 });
  await expect.poll(() => stage(page).locator("h2").textContent()).toBe("a red heart");
  await finish(page);
  expect(await tiles(page).count()).toBe(1);
  expect((await gallery()).length).toBe(before);
});

test("the keyboard is enough", async () => {
  const page = await visit();
  const before = await gallery();
  await history(page).first().focus();
  await page.keyboard.press("ArrowRight");
  const focused = () =>
    page.evaluate(() => document.activeElement?.querySelector("img")?.dataset.id);
  expect(await focused()).toBe(before[1]?.id);
  await page.keyboard.press("Delete");
  await page.getByRole("button", { name: "Undo", exact: true }).waitFor();
  // Focus stays where it was: on what comes next.
  await expect.poll(focused).toBe(before[2]?.id);
  await expect.poll(async () => (await gallery()).length).toBe(before.length - 1);
  await page.keyboard.press("Control+z");
  await expect.poll(async () => (await gallery()).length).toBe(before.length);
  await expect
    .poll(() => history(page).nth(1).locator("img").getAttribute("data-id"))
    .toBe(before[1]?.id);

  await page.keyboard.press("Home");
  await page.keyboard.press("Enter");
  const dialog = page.getByRole("dialog", { name: "Picture" });
  const heading = dialog.getByRole("heading", { level: 2 });
  await heading.waitFor();
  const shown = () => dialog.locator(".view img").getAttribute("data-id");
  expect(await shown()).toBe(before[0]?.id);
  await page.keyboard.press("ArrowRight");
  await expect.poll(shown).toBe(before[1]?.id);
  await page.keyboard.press("ArrowLeft");
  await expect.poll(shown).toBe(before[0]?.id);
  await page.keyboard.press("Escape");
  await expect.poll(() => dialog.isVisible()).toBe(false);
  expect(await focused()).toBe(before[0]?.id);

  await page.keyboard.press("?");
  await page.getByRole("dialog", { name: "Keyboard" }).waitFor();
});

test("a phone shows everything in one column", async () => {
  const page = await visit({ viewport: PHONE, hasTouch: true, isMobile: true });
  const overflow = () =>
    page.evaluate(
      () => document.documentElement.scrollWidth - document.documentElement.clientWidth,
    );
  expect(await overflow()).toBe(0);
  await page.locator("#prompt").fill("a red apple");
  await page.getByRole("button", { name: /^Draw/ }).tap();
  await finish(page);
  await expect
    .poll(async () => (await finished(page).first().boundingBox())?.y ?? -1)
    .toBeLessThan(PHONE.height);
  await finished(page).first().tap();
  await page
    .getByRole("dialog", { name: "Picture" })
    .getByRole("button", { name: "Vary strongly" })
    .waitFor();
  expect(await overflow()).toBe(0);
});

test("the page speaks the language of the browser, and any other that is chosen", async () => {
  const french = await visit({ locale: "fr-FR" });
  await french.getByRole("button", { name: /^Dessiner/ }).waitFor();
  expect(await french.locator("html").getAttribute("lang")).toBe("fr");
  for (const [language, draws] of [
    ["de", /^Zeichnen/],
    ["es", /^Dibujar/],
    ["ja", /^描く/],
    ["zh", /^开始画/],
  ] as const) {
    await french.locator("header select").selectOption(language);
    await french.getByRole("button", { name: draws }).waitFor();
  }
  await french.reload();
  await french.getByRole("button", { name: /^开始画/ }).waitFor();
});

test("ideas are in the language of the page, change with it, and are words that it knows", async () => {
  const page = await visit({ locale: "ja-JP" });
  const { idea_names } = await server.get<Info>("/api/info");
  for (const language of ["ja", "de", "zh"] as const) {
    await page.locator("header select").selectOption(language);
    const first = page.locator(".idea").first();
    const names = Object.values(idea_names[language] ?? {});
    await expect.poll(async () => names.includes((await first.textContent()) ?? "")).toBe(true);
    const name = (await first.textContent()) as string;
    await first.click();
    await expect.poll(() => page.locator("#prompt").inputValue()).toBe(name);
    await page.locator(".reading .drawn, .reading .fine").waitFor();
    expect(await page.locator(".unknown").count()).toBe(0);
    await page.locator("#prompt").fill("");
    await page.locator(".reading .draws").waitFor();
  }
});

test("light and dark follow the system, or a choice that is kept", async () => {
  const page = await visit({ colorScheme: "dark" });
  const ground = () =>
    page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);
  const dark = await ground();
  await page.emulateMedia({ colorScheme: "light" });
  const light = await ground();
  expect(light).not.toBe(dark);
  const button = page.getByRole("button", { name: /Appearance/ });
  await button.click();
  await button.click();
  expect(await ground()).toBe(dark);
  await page.reload();
  await page.locator("#prompt").waitFor();
  expect(await ground()).toBe(dark);
});

test.each([
  ["light", DESKTOP],
  ["dark", DESKTOP],
  ["light", PHONE],
  ["dark", PHONE],
] as const)("nothing keeps people out, in the %s at %o", async (colorScheme, viewport) => {
  const page = await visit({ colorScheme, viewport, reducedMotion: "reduce" });
  const check = async () => {
    const violations = await audit(page);
    const grave = violations.filter(({ impact }) => impact === "serious" || impact === "critical");
    expect(
      grave.map(({ id, nodes }) => [
        id,
        nodes.map(({ html, failureSummary }) => [html, failureSummary]),
      ]),
    ).toEqual([]);
  };
  await page.locator("#prompt").fill("a {red|blue} heart");
  if (viewport === PHONE) await page.locator("summary").first().click();
  await page.getByText("Advanced").click();
  await check();
  await history(page).first().click();
  await page.getByRole("dialog", { name: "Picture" }).waitFor();
  await check();
  await page.keyboard.press("Escape");
  const [picture] = await gallery();
  await page.getByTestId("upload").setInputFiles({
    name: "source.png",
    mimeType: "image/png",
    buffer: await server.bytes(`/api/pictures/${picture?.id}/file?format=png`),
  });
  await page.getByRole("button", { name: "Repaint a part" }).click();
  await check();
  await page.locator("body").press("?");
  await page.getByRole("dialog", { name: "Keyboard" }).waitFor();
  await check();
});
