/** The state of the page, and everything that changes it. */

import * as api from "./api";
import {
  isOver,
  JOB_EVENTS,
  type Info,
  type Job,
  type JobEvent,
  type JobRequest,
  type Picture,
  type Upload,
} from "./contract";
import { t } from "./i18n.svelte";
import { maskFile, type Stroke } from "./mask";
import { combinations, escaped } from "./matrix";
import { reduce, refreshed, type JobView } from "./progress";
import { fromRequest, INITIAL, load, save, VARIATION, type Settings } from "./settings";
import { matching } from "./shown";
import { toasts } from "./toasts.svelte";

const PAGE = 48;
const RECENT_JOBS = 20;
/** "The same picture" still takes its last step. */
const LEAST = 0.02;
const LIVE_QUALITY = "draft";
/** Jobs whose every step is told: a browser opens six connections, and pictures need some too. */
const STREAMS = 2;
/** Between two looks whether the model is loaded. */
const PATIENCE_MS = 500;
const READABLE = ["image/png", "image/jpeg", "image/webp"];

const newSeed = () => (crypto.getRandomValues(new Uint32Array(1))[0] as number) >>> 1;
const newKey = () => Array.from(crypto.getRandomValues(new Uint32Array(4)), String).join("-");

class Studio {
  info = $state.raw<Info | null>(null);
  /** Why the page cannot start, as a sentence. */
  failure = $state<string | null>(null);
  settings = $state<Settings>(INITIAL);

  source = $state.raw<Upload | null>(null);
  strokes = $state.raw<Stroke[]>([]);
  /** The mask of a restored picture, until somebody paints another one. */
  #mask: string | null = null;
  /** The strokes that were sent last, and the mask that they became. */
  #sent: { strokes: Stroke[]; id: string } | null = null;

  views = $state.raw<Record<string, JobView>>({});
  /** The job on the stage. */
  current = $state<string | null>(null);
  /** The newest live job, which takes the stage while live mode is on. */
  liveJob = $state<string | null>(null);
  liveSeed = $state(newSeed());

  history = $state.raw<Picture[]>([]);
  #next = $state<string | null>(null);
  #streams = new Map<string, EventSource>();
  #everything: EventSource | null = null;
  #submitting = $state(false);
  /** Jobs that take the stage one after the other when the one on it is over. */
  #line: string[] = [];
  #liveRound = 0;

  // What follows from the rest.

  stage = $derived.by(() => {
    const id = this.settings.live && this.liveJob !== null ? this.liveJob : this.current;
    return id === null ? null : (this.views[id] ?? null);
  });
  /** Jobs that wait or run, oldest first; live ones come and go too fast to list. */
  queue = $derived(
    Object.values(this.views)
      .filter(({ job }) => !isOver(job.state) && !job.request.live)
      .sort((a, b) => a.job.created - b.job.created),
  );
  busy = $derived(this.queue.length > 0 || this.#submitting);
  pictureCount = $derived(combinations(this.settings.prompt) * this.settings.n);
  size = $derived(
    this.source && this.settings.match
      ? matching(this.source.width, this.source.height)
      : { width: this.settings.width, height: this.settings.height },
  );
  hasMore = $derived(this.#next !== null);

  // Starting up.

  async start(): Promise<void> {
    try {
      const info = await this.#loaded();
      this.settings = load(info);
      this.info = info;
      const [jobs, page] = await Promise.all([
        api.recentJobs(RECENT_JOBS),
        api.pictures(null, PAGE),
      ]);
      this.history = page.pictures;
      this.#next = page.next;
      for (const job of jobs) this.#put(job);
      const shown = jobs.filter((job) => !job.request.live);
      const running = shown.findLast((job) => !isOver(job.state));
      this.current = (running ?? shown.find((job) => job.pictures.length > 0))?.id ?? null;
      this.connect();
    } catch (error) {
      this.failure = this.#sentence(error);
    }
  }

  /** Follow what happens; a page that nobody sees lets go of its connections. */
  connect(): void {
    if (this.#everything !== null) return;
    this.#everything = new EventSource("/api/events");
    this.#everything.addEventListener("job", (event) => {
      const { job } = JSON.parse((event as MessageEvent<string>).data) as { job: Job };
      // Live jobs of other pages, and those that have made way, are nothing to remember.
      if (!job.request.live || job.id === this.liveJob) this.#put(job);
    });
    this.#attend();
  }

  /** Connect again, and learn what happened meanwhile. */
  async resume(): Promise<void> {
    this.connect();
    try {
      for (const job of await api.recentJobs(RECENT_JOBS)) this.#put(job);
    } catch (error) {
      this.#problem(error);
    }
  }

  disconnect(): void {
    this.#everything?.close();
    this.#everything = null;
    for (const stream of this.#streams.values()) stream.close();
    this.#streams.clear();
  }

  // Making pictures.

  request(): JobRequest {
    const { settings } = this;
    const seed = settings.look?.seed ?? (settings.live ? this.liveSeed : null);
    return {
      prompt: settings.prompt.trim(),
      negative_prompt: settings.negative.trim(),
      style: settings.style,
      ...this.size,
      quality: settings.quality,
      n: settings.n,
      seed,
      guidance_scale: settings.guidance,
      image: this.source?.id ?? null,
      strength: this.source ? Math.max(LEAST, settings.strength) : null,
      fit: settings.fit,
      mask: null,
      parent: null,
      live: false,
      exact: settings.exact,
    };
  }

  async generate(): Promise<void> {
    if (!this.info || this.settings.prompt.trim() === "") return;
    await this.#submit(this.request(), true);
  }

  /** Draw what stands there now, quickly; an older live picture makes way. */
  async drawLive(): Promise<void> {
    if (!this.info || this.settings.prompt.trim() === "") return;
    const round = ++this.#liveRound;
    const request = { ...this.request(), quality: LIVE_QUALITY, n: 1, live: true };
    if (combinations(request.prompt) > 1) return;
    try {
      const job = await api.createJob(await this.#withMask(request), newKey());
      this.#put(job);
      if (round !== this.#liveRound) return;
      const old = this.liveJob;
      this.liveJob = job.id;
      if (old !== null && old !== job.id) this.#forget(old);
      else this.#attend();
    } catch (error) {
      if (round === this.#liveRound) this.#problem(error);
    }
  }

  async vary(picture: Picture): Promise<void> {
    await this.#submit({
      ...this.#requestOf(picture),
      seed: null,
      n: Math.min(4, this.info?.limits.pictures ?? 4),
      parent: picture.id,
      strength: VARIATION,
    });
  }

  async cancel(id: string): Promise<void> {
    try {
      await api.cancelJob(id);
    } catch (error) {
      this.#problem(error);
    }
  }

  show(id: string): void {
    this.#line = this.#line.filter((each) => each !== id);
    this.current = id;
    this.settings.live = false;
    this.#attend();
  }

  // Looks.

  lock(picture: Picture): void {
    this.settings = fromRequest(this.settings, {
      ...this.#requestOf(picture),
      prompt: this.settings.prompt.trim() === "" ? escaped(picture.prompt) : this.settings.prompt,
      n: this.settings.n,
    });
    this.settings.look = { seed: picture.seed, thumbnail: picture.thumbnail };
    toasts.show(t("look.locked"));
  }

  /** Lock the look of what is on the stage, or of the next picture where there is none. */
  lockShown(): void {
    const picture = this.stage?.slots.find((slot) => slot.picture)?.picture ?? this.history[0];
    if (picture) this.lock(picture);
    else this.settings.look = { seed: newSeed(), thumbnail: null };
  }

  surprise(): void {
    this.settings.look = null;
    this.liveSeed = newSeed();
  }

  async reuse(picture: Picture): Promise<void> {
    this.settings = fromRequest(this.settings, this.#requestOf(picture));
    this.settings.look = { seed: picture.seed, thumbnail: picture.thumbnail };
    this.settings.match = false;
  }

  // Pictures to start from.

  async useFile(file: Blob): Promise<void> {
    if (!READABLE.includes(file.type)) {
      toasts.show(t("source.unreadable"), "problem");
      return;
    }
    if (this.info && file.size > this.info.limits.upload_bytes) {
      const megabytes = Math.floor(this.info.limits.upload_bytes / 1e6);
      toasts.show(t("source.large", { megabytes }), "problem");
      return;
    }
    try {
      this.source = await api.upload(file);
      this.strokes = [];
      this.#mask = null;
    } catch (error) {
      this.#problem(error);
    }
  }

  async usePicture(picture: Picture): Promise<void> {
    try {
      const answer = await fetch(api.fileUrl(picture.id, {}));
      await this.useFile(await answer.blob());
    } catch (error) {
      this.#problem(error);
    }
  }

  dropSource(): void {
    this.source = null;
    this.strokes = [];
    this.#mask = null;
  }

  /** Take the settings out of a picture; one without settings becomes the one to start from. */
  async restore(file: Blob, otherwise: "start" | "tell"): Promise<void> {
    try {
      const { request, exact_model, differs } = await api.settingsOf(file);
      this.settings = fromRequest(this.settings, request);
      this.settings.match = false;
      await this.#restoreSource(request);
      const lost = differs.includes("image") || differs.includes("mask");
      toasts.show(t(lost ? "restore.lost" : exact_model ? "restore.done" : "restore.other_model"));
    } catch (error) {
      if (error instanceof api.ApiError && otherwise === "start" && READABLE.includes(file.type)) {
        await this.useFile(file);
        if (this.source) toasts.show(t("restore.none"));
      } else this.#problem(error);
    }
  }

  // The gallery.

  async more(): Promise<void> {
    if (this.#next === null) return;
    try {
      const page = await api.pictures(this.#next, PAGE);
      this.#next = page.next;
      const known = new Set(this.history.map((picture) => picture.id));
      this.history = [...this.history, ...page.pictures.filter(({ id }) => !known.has(id))];
    } catch (error) {
      this.#problem(error);
    }
  }

  async remove(picture: Picture): Promise<void> {
    const place = this.history.findIndex(({ id }) => id === picture.id);
    this.history = this.history.filter(({ id }) => id !== picture.id);
    this.#mark(picture, true);
    const deletion = api.deletePicture(picture.id);
    // The way back is there at once, and waits until there is something to go back from.
    toasts.show(t("history.deleted"), "info", {
      label: t("history.undo"),
      run: () => void deletion.then(() => this.#bringBack(picture, place)),
    });
    try {
      await deletion;
    } catch (error) {
      this.#insert(picture, place);
      this.#problem(error);
    }
  }

  // Inside.

  /** What the server can do, as soon as it has loaded its model. */
  async #loaded(): Promise<Info> {
    for (;;) {
      try {
        return await api.info();
      } catch (error) {
        if (!(error instanceof api.ApiError) || error.problem.code !== "loading") throw error;
        await new Promise((resolve) => setTimeout(resolve, PATIENCE_MS));
      }
    }
  }

  async #restoreSource(request: JobRequest): Promise<void> {
    this.dropSource();
    const url =
      request.image !== null
        ? `/api/uploads/${request.image}`
        : request.parent !== null
          ? api.fileUrl(request.parent, {})
          : null;
    if (url === null) return;
    const file = await (await fetch(url)).blob();
    // A picture of the gallery becomes an upload, which holds the same pixels.
    if (request.image === null) await this.useFile(file);
    else {
      const { width, height } = await createImageBitmap(file);
      this.source = { id: request.image, width, height, url };
    }
    this.#mask = request.mask;
  }

  async #bringBack(picture: Picture, place: number): Promise<void> {
    try {
      await api.restorePicture(picture.id);
      this.#insert(picture, place);
    } catch (error) {
      this.#problem(error);
    }
  }

  #insert(picture: Picture, place: number): void {
    this.#mark(picture, false);
    if (this.history.some(({ id }) => id === picture.id)) return;
    this.history = this.history.toSpliced(Math.max(0, place), 0, { ...picture, deleted: false });
  }

  #mark(picture: Picture, deleted: boolean): void {
    const view = this.views[picture.job];
    if (!view) return;
    const slots = view.slots.map((slot) =>
      slot.picture?.id === picture.id ? { ...slot, picture: { ...slot.picture, deleted } } : slot,
    );
    this.views = { ...this.views, [picture.job]: { ...view, slots } };
  }

  async #submit(request: JobRequest, withMask = false): Promise<void> {
    this.#submitting = true;
    try {
      const whole = withMask ? await this.#withMask(request) : request;
      const job = await api.createJob(whole, newKey());
      this.#put(job);
      // Nothing that is being drawn leaves the stage before it is done.
      const shown = this.current === null ? undefined : this.views[this.current];
      if (!shown || isOver(shown.job.state)) this.current = job.id;
      else this.#line.push(job.id);
      this.settings.live = false;
      this.#attend();
    } catch (error) {
      this.#problem(error);
    } finally {
      this.#submitting = false;
    }
  }

  async #withMask(request: JobRequest): Promise<JobRequest> {
    if (!this.source) return request;
    if (!this.strokes.some((stroke) => !stroke.erase)) return { ...request, mask: this.#mask };
    const { strokes } = this;
    if (this.#sent?.strokes !== strokes) {
      const file = await maskFile(strokes, this.source.width, this.source.height);
      this.#sent = { strokes, id: (await api.upload(file)).id };
    }
    return { ...request, mask: this.#sent.id };
  }

  #requestOf(picture: Picture): JobRequest {
    return {
      prompt: escaped(picture.prompt),
      negative_prompt: picture.negative_prompt,
      style: picture.style,
      width: picture.width,
      height: picture.height,
      quality: picture.quality,
      n: 1,
      seed: picture.seed,
      guidance_scale: picture.guidance_scale,
      image: null,
      strength: null,
      fit: "crop",
      mask: null,
      parent: null,
      live: false,
      exact: false,
    };
  }

  #put(job: Job): void {
    this.#take(refreshed(this.views[job.id], job));
  }

  /** Take in what is now known of a job. */
  #take(view: JobView): void {
    const { id } = view.job;
    const before = this.views[id]?.job.state;
    this.views = { ...this.views, [id]: view };
    for (const { picture } of view.slots) if (picture) this.#collect(picture);
    if (before && !isOver(before) && isOver(view.job.state)) this.#ended(view.job);
    this.#attend();
  }

  #ended(job: Job): void {
    if (job.state === "failed" && !job.request.live)
      toasts.show(job.error?.message ?? t("state.failed"), "problem");
    if (job.state !== "done") this.#line = this.#line.filter((id) => id !== job.id);
    while (this.stage && isOver(this.stage.job.state) && this.current === this.stage.job.id) {
      const next = this.#line.shift();
      if (next === undefined) break;
      this.current = next;
    }
  }

  #collect(picture: Picture): void {
    const live = this.views[picture.job]?.job.request.live ?? false;
    if (live || picture.deleted || this.history.some(({ id }) => id === picture.id)) return;
    const newest = this.history[0];
    // Older pictures come in pages.
    if (newest && picture.created < newest.created) return;
    this.history = [picture, ...this.history];
  }

  /** Hear every step of what is on the stage and of what runs; the rest tells when it changes. */
  #attend(): void {
    if (this.#everything === null) return;
    const shown = this.stage?.job;
    const running = this.queue.toSorted(
      (a, b) => Number(b.job.state === "running") - Number(a.job.state === "running"),
    );
    const wanted = new Set([
      ...(shown && !isOver(shown.state) ? [shown.id] : []),
      ...running.map(({ job }) => job.id),
    ]);
    const heard = [...wanted].slice(0, STREAMS);
    for (const id of this.#streams.keys()) if (!heard.includes(id)) this.#unfollow(id);
    for (const id of heard) if (!this.#streams.has(id)) this.#follow(id);
  }

  #follow(id: string): void {
    const stream = new EventSource(`/api/jobs/${id}/events?previews=true`);
    this.#streams.set(id, stream);
    for (const type of JOB_EVENTS) {
      stream.addEventListener(type, (event) => {
        const data: unknown = JSON.parse((event as MessageEvent<string>).data);
        const view = this.views[id];
        if (view) this.#take(reduce(view, { type, data } as JobEvent));
      });
    }
    stream.addEventListener("error", () => {
      if (stream.readyState !== EventSource.CLOSED) return; // it tries again by itself
      this.#streams.delete(id);
      void api.job(id).then(
        (job) => this.#put(job),
        () => this.#forget(id),
      );
    });
  }

  #unfollow(id: string): void {
    this.#streams.get(id)?.close();
    this.#streams.delete(id);
  }

  #forget(id: string): void {
    const { [id]: _, ...rest } = this.views;
    this.views = rest;
    if (this.current === id) this.current = null;
    this.#attend();
  }

  #sentence(error: unknown): string {
    if (error instanceof api.Unreachable) return t("problem.unreachable");
    if (error instanceof api.ApiError && error.status === 401) return t("problem.token");
    if (error instanceof api.ApiError) return error.message;
    throw error;
  }

  #problem(error: unknown): void {
    toasts.show(this.#sentence(error), "problem");
  }
}

export const studio = new Studio();

export function remember(): void {
  if (studio.info) save($state.snapshot(studio.settings) as Settings);
}
