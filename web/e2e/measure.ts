/**
 * How quick the page is: the real server, the real model and a real Chromium.
 *
 *     scripts/e2e --measure
 *
 * writes benchmarks/results/server/studio.json. Times are milliseconds as the page's own clock has them, from a key
 * to the frame in which what it asked for was painted. Other programs take their part of that, so
 * what was computed stands beside it: by the server's process, and by the browser.
 */

import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync, renameSync, statSync, writeFileSync } from "node:fs";
import { cpus, loadavg } from "node:os";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Job } from "../src/lib/contract";
import { launch } from "./browser";
import { computed } from "./computed";
import { Server } from "./server";

const RESULT = "../benchmarks/results/server/studio.json";
const STATIC = "../src/asymflow/server/static/assets";
const TARGETS = {
  first_paint_ms: 1000,
  javascript_bytes: 300_000,
  first_preview_ms: 1000,
  preview_percent: 3,
  live_ms: 400,
};
const VISITS = 20;
const PREVIEWS = 20;
const PAIRS = 12;
const LIVE = 24;
const TYPING_MS = 120;
const THINGS = ["apple", "fox", "heart", "car", "leaf", "cat"];
const COLOURS = ["red", "blue", "green", "yellow"];

const server = new Server();
// Only what this run measures: the header says its commit and date of everything in the file.
const result: Record<string, unknown> = {};
let browser: Browser;

interface Spread {
  n: number;
  median: number;
  p90: number;
  least: number;
  most: number;
}

function spread(values: number[]): Spread {
  const sorted = values.toSorted((a, b) => a - b);
  const at = (part: number) => sorted[Math.ceil(part * sorted.length) - 1] ?? NaN;
  const rounded = (value: number) => Math.round(value * 10) / 10;
  return {
    n: sorted.length,
    median: rounded(at(0.5)),
    p90: rounded(at(0.9)),
    least: rounded(at(1 / sorted.length)),
    most: rounded(at(1)),
  };
}

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

const prompts = (count: number) =>
  Array.from(
    { length: count },
    (_, index) => `a ${COLOURS[index % COLOURS.length]} ${THINGS[index % THINGS.length]}`,
  );

async function visit(): Promise<Page> {
  const context = await browser.newContext({
    viewport: { width: 1440, height: 900 },
    locale: "en-US",
  });
  const page = await context.newPage();
  await page.goto(server.url);
  await page.locator("#prompt").waitFor();
  return page;
}

/** Note the page's time of the last key, and of the first frame that shows what a selector finds. */
async function watch(page: Page, selector: string): Promise<() => Promise<number>> {
  await page.evaluate((wanted) => {
    const seen = { key: 0, painted: 0 };
    (window as unknown as { seen: typeof seen }).seen = seen;
    window.addEventListener("keydown", () => (seen.key = performance.now()), true);
    // The page shows nothing that has not arrived.
    const observer = new MutationObserver(() => {
      if (!document.querySelector(wanted)) return;
      observer.disconnect();
      requestAnimationFrame(() => requestAnimationFrame(() => (seen.painted = performance.now())));
    });
    observer.observe(document.body, { subtree: true, childList: true });
  }, selector);
  return async () => {
    const seen = await page.waitForFunction(
      () => {
        const { seen } = window as unknown as { seen: { key: number; painted: number } };
        return seen.painted > 0 && seen.painted - seen.key;
      },
      null,
      { polling: 50 },
    );
    return (await seen.jsonValue()) as number;
  };
}

beforeAll(async () => {
  [browser] = await Promise.all([launch(), server.start()]);
  Object.assign(result, {
    machine: {
      cpu: cpus()[0]?.model ?? "unknown",
      threads: Number(process.env.OMP_NUM_THREADS ?? cpus().length),
      cores: readFileSync("/proc/self/status", "utf8").match(/^Cpus_allowed_list:\s*(.*)$/m)?.[1],
      chromium: browser.version(),
    },
    targets: TARGETS,
  });
});

afterAll(async () => {
  await browser.close();
  await server.remove();
  Object.assign(result, { load: loadavg().map((each) => Math.round(each * 10) / 10) });
  writeFileSync(`${RESULT}.part`, `${JSON.stringify(result, null, 2)}\n`);
  renameSync(`${RESULT}.part`, RESULT);
  const stamp = ["-m", "benchmarks", "stamp", RESULT.slice(3), "scripts/e2e --measure"];
  execFileSync(".venv/bin/python", stamp, { cwd: ".." });
});

test("first paint", async () => {
  const painted: number[] = [];
  const usable: number[] = [];
  for (let round = 0; round < VISITS; round++) {
    const context = await browser.newContext({ viewport: { width: 1440, height: 900 } });
    const page = await context.newPage();
    await page.addInitScript(() => {
      new MutationObserver((_, observer) => {
        if (!document.querySelector("#prompt")) return;
        observer.disconnect();
        requestAnimationFrame(() => performance.mark("usable"));
      }).observe(document, { subtree: true, childList: true });
    });
    await page.goto(server.url);
    const entries = await page.waitForFunction(() => {
      const paint = performance.getEntriesByName("first-contentful-paint")[0]?.startTime;
      const mark = performance.getEntriesByName("usable")[0]?.startTime;
      return paint !== undefined && mark !== undefined && [paint, mark];
    });
    const [paint, mark] = (await entries.jsonValue()) as [number, number];
    painted.push(paint);
    usable.push(mark);
    await context.close();
  }
  result.first_paint_ms = spread(painted);
  result.usable_ms = spread(usable);
});

test("bytes of JavaScript", () => {
  const sizes = readdirSync(STATIC)
    .filter((name) => name.endsWith(".js"))
    .map((name) => statSync(`${STATIC}/${name}`).size);
  // In all languages; a visit loads one.
  result.javascript_bytes = sizes.reduce((sum, size) => sum + size, 0);
  expect(result.javascript_bytes).toBeLessThan(TARGETS.javascript_bytes);
});

test("first preview", async () => {
  const page = await visit();
  const took: number[] = [];
  for (const prompt of prompts(PREVIEWS)) {
    await page.locator("#prompt").fill(prompt);
    const painted = await watch(page, "figure .preview img");
    await page.locator("body").press("Control+Enter");
    took.push(await painted());
    await page.locator(".stage .state[data-state=done]").waitFor();
  }
  await page.context().close();
  result.first_preview_ms = spread(took);
});

test("what previews cost", async () => {
  const wanted = { quality: "best", n: 4 };
  const seed = 1;
  const alone = async (prompt: string): Promise<string> => {
    const answer = await fetch(`${server.url}/api/jobs`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ prompt, seed, ...wanted }),
    });
    return ((await answer.json()) as Job).id;
  };
  const pressed = async (page: Page): Promise<string> => {
    const asked = page.waitForResponse(
      (answer) => answer.url().endsWith("/api/jobs") && answer.request().method() === "POST",
    );
    await page.locator("body").press("Control+Enter");
    const answer = await asked;
    expect(answer.request().postDataJSON()).toMatchObject(wanted); // or this compares other things
    return ((await answer.json()) as Job).id;
  };
  const over = async (id: string): Promise<void> => {
    while ((await server.get<Job>(`/api/jobs/${id}`)).finished === null) await pause(500);
  };
  const settled = async (): Promise<Page> => {
    const page = await visit();
    await page.evaluate(
      // A window goes by what it kept itself.
      (settings) => sessionStorage.setItem("asymflow.settings", JSON.stringify(settings)),
      { ...wanted, look: { seed, thumbnail: null } },
    );
    return page;
  };
  const watched = await settled();
  const blind = await settled();
  // The same page, but for what it asks of the stream, and for what it then would load.
  await blind.addInitScript(() => {
    Reflect.deleteProperty(window, "SharedWorker"); // so the page opens its stream itself
    const Own = window.EventSource;
    window.EventSource = class extends Own {
      constructor(url: string | URL) {
        super(String(url).replace("previews=true", "previews=false"));
      }
    };
  });
  await blind.route("**/preview/**", (route) => route.abort());
  const pages = { watched, blind, alone: null };
  const kinds = ["alone", "blind", "watched"] as const;
  const took = { alone: [] as number[], blind: [] as number[], watched: [] as number[] };
  for (const [round, prompt] of prompts(PAIRS).entries()) {
    for (const turn of kinds.keys()) {
      const kind = kinds[(round + turn) % kinds.length] as (typeof kinds)[number];
      const page = pages[kind];
      if (page) {
        await page.goto(server.url);
        await page.locator("#prompt").fill(prompt);
      }
      await pause(1000);
      const before = computed(server.pid, { all: true });
      await over(page ? await pressed(page) : await alone(prompt));
      await pause(300); // the page asks for the pictures
      took[kind].push(computed(server.pid, { all: true }) - before);
      if (page) await page.goto("about:blank");
    }
  }
  for (const page of [watched, blind]) await page.context().close();
  const more = (kind: "blind" | "watched", than: "alone" | "blind") =>
    spread(took[kind].map((ms, round) => 100 * (ms / (took[than][round] as number) - 1)));
  result.preview_percent = more("watched", "blind");
  result.page_percent = more("watched", "alone");
  result.computed_alone_ms = spread(took.alone);
});

test("live mode", async () => {
  const page = await visit();
  await page.getByRole("switch", { name: "Live" }).check({ force: true });
  const parts: Record<string, number[]> = {
    total: [],
    until_sent: [],
    until_taken: [],
    until_begun: [],
    until_drawn: [],
    of_that_model: [],
    until_painted: [],
    computed_by_server: [],
    computed_by_browser: [],
  };
  for (const prompt of prompts(LIVE)) {
    await page.locator("#prompt").fill("");
    await page.evaluate((wanted) => {
      const seen = { key: 0, painted: 0, job: "" };
      (window as unknown as { seen: typeof seen }).seen = seen;
      performance.clearResourceTimings();
      window.addEventListener("keydown", () => (seen.key = performance.now()), true);
      const observer = new MutationObserver(() => {
        const image = document.querySelector<HTMLImageElement>(".stage figure .open img");
        const said = document.querySelector(".stage h2")?.textContent;
        const id = image?.dataset.id;
        // Until the picture has arrived, the last look at it stands in its place.
        if (said !== wanted || !id || !image.src.includes(id)) return;
        observer.disconnect();
        seen.job = id;
        requestAnimationFrame(() =>
          requestAnimationFrame(() => (seen.painted = performance.now())),
        );
      });
      observer.observe(document.body, { subtree: true, childList: true, characterData: true });
    }, prompt);
    await page.locator("#prompt").pressSequentially(prompt.slice(0, -1), { delay: TYPING_MS });
    await pause(TYPING_MS);
    const [all, own] = [computed(process.pid, { all: true }), computed(process.pid)];
    const before = computed(server.pid, { all: true });
    await page.locator("#prompt").pressSequentially(prompt.slice(-1));
    await page.waitForFunction(
      () => (window as unknown as { seen: { painted: number } }).seen.painted > 0,
      null,
      { polling: 50 },
    );
    const byServer = computed(server.pid, { all: true }) - before;
    const byAll = computed(process.pid, { all: true }) - all - (computed(process.pid) - own);
    const seen = await page.evaluate(() => ({
      ...(window as unknown as { seen: { key: number; painted: number; job: string } }).seen,
      sent: performance
        .getEntriesByType("resource")
        .filter(({ name }) => name.endsWith("/api/jobs"))
        .at(-1)?.startTime,
      origin: performance.timeOrigin,
    }));
    const picture = await server.get<{ job: string; seconds: number }>(`/api/pictures/${seen.job}`);
    const job = await server.get<Job>(`/api/jobs/${picture.job}`);
    const at = (seconds: number | null) => (seconds ?? NaN) * 1000 - seen.origin - seen.key;
    const sent = (seen.sent ?? NaN) - seen.key;
    parts.total?.push(seen.painted - seen.key);
    parts.until_sent?.push(sent);
    parts.until_taken?.push(at(job.created) - sent);
    parts.until_begun?.push(at(job.started) - at(job.created));
    parts.until_drawn?.push(at(job.finished) - at(job.started));
    parts.of_that_model?.push(1000 * picture.seconds);
    parts.computed_by_server?.push(byServer);
    parts.computed_by_browser?.push(byAll - byServer);
    parts.until_painted?.push(seen.painted - seen.key - at(job.finished));
  }
  await page.context().close();
  result.live_ms = Object.fromEntries(
    Object.entries(parts).map(([name, values]) => [name, spread(values)]),
  );
});
