/** The state of the page, and everything that changes it. */

import * as api from "./api";
import type { Asked } from "./api";
import type { Info, Job, Picture, Upload } from "./contract";
import { isOver, type JobEvent } from "./events";
import { t } from "./i18n.svelte";
import { connect } from "./link";
import { maskFile, type Stroke } from "./mask";
import { combinations, escaped } from "./matrix";
import { reduce, refreshed, type JobView } from "./progress";
import {
  fitted,
  fromRequest,
  INITIAL,
  load,
  save,
  storedModel,
  VARIATION,
  type Settings,
  type Variation,
} from "./settings";
import { matching } from "./shown";
import type { Told } from "./stream";
import { toasts } from "./toasts.svelte";
import { namesUs, prepared, Unreadable } from "./upload";

const PAGE = 48;
const RECENT_JOBS = 20;
/** "The same picture" still takes its last step. */
const LEAST = 0.02;
/** What a live picture may take, in seconds. */
const LIVE_S = 1.5;
/** Between two looks whether the model is loaded. */
const PATIENCE_MS = 500;
/** Between two looks whether a server that did not answer is back, and what one may take. */
const RETRY_MS = 2000;
const LOOK_MS = 8000;
/** Jobs whose events came before the job itself, and that are kept for it. */
const EARLY = 8;
/** What toasts of deleted pictures are about. */
const DELETED = "deleted";

const newSeed = () => (crypto.getRandomValues(new Uint32Array(1))[0] as number) >>> 1;
const newKey = () => Array.from(crypto.getRandomValues(new Uint32Array(4)), String).join("-");

/** What a click asks for: a second one for the same waits until the first is answered. */
type Intent = "draw" | `vary ${Variation} ${string}`;

interface Deleted {
  picture: Picture;
  deletion: Promise<unknown>;
}

class Studio {
  info = $state.raw<Info | null>(null);
  /** Another model is being loaded: what will be asked of it then. */
  switching = $state<string | null>(null);
  #switches = 0;
  /** Why the page cannot start, as a sentence. */
  failure = $state<string | null>(null);
  /** Why nothing is heard of the server at the moment, as a sentence. */
  lost = $state<string | null>(null);
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
  #disconnect: (() => void) | null = null;
  #early = new Map<string, JobEvent[]>();
  #looks = 0;
  #lookAgain: ReturnType<typeof setTimeout> | undefined;
  /** What is on its way to the server. */
  sending = $state.raw<ReadonlySet<Intent>>(new Set());
  /** Jobs that are asked to stop. */
  cancelling = $state.raw<ReadonlySet<string>>(new Set());
  /** Requests that may or may not have reached the server, with the keys that they went with. */
  #unanswered = new Map<string, string>();
  /** A picture to start from is on its way. */
  receiving = $state(false);
  #receipts = 0;
  #receipt: Promise<boolean> = Promise.resolve(true);
  /** What was deleted here and can come back, oldest first. */
  #deleted: Deleted[] = [];
  /** So many of these are what the message offers to bring back. */
  #offered = 0;
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
  card = $derived(this.info?.card ?? null);
  /** Whether everything is there that the model asks for. */
  complete = $derived.by(() => {
    if (!this.card || this.switching !== null) return false;
    if (this.card.asks === "class") return this.settings.label !== null;
    return this.card.asks === "nothing" || this.settings.prompt.trim() !== "";
  });
  pictureCount = $derived(
    (this.card?.asks === "prompt" ? combinations(this.settings.prompt) : 1) * this.settings.n,
  );
  /** The quickest plan. */
  quickest = $derived.by(() =>
    this.info?.qualities.reduce((best, each) => (each.seconds < best.seconds ? each : best)),
  );
  canLive = $derived(this.quickest !== undefined && this.quickest.seconds < LIVE_S);
  size = $derived(
    this.source && this.settings.match && this.card
      ? matching(this.source.width, this.source.height, this.card.sizes)
      : { width: this.settings.width, height: this.settings.height },
  );
  hasMore = $derived(this.#next !== null);

  // Starting up.

  async start(): Promise<void> {
    try {
      const info = await this.#first();
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
      this.failure = null;
      if (!document.hidden) this.connect();
    } catch (error) {
      this.failure = this.#sentence(error);
      if (error instanceof api.Unreachable) setTimeout(() => void this.start(), RETRY_MS);
    }
  }

  /** Go over to another model; its card decides what stays of the settings. */
  async chooseModel(id: string): Promise<boolean> {
    const number = ++this.#switches;
    this.switching = id;
    try {
      const info = await this.#loaded(id);
      if (number !== this.#switches) return false;
      const usual = this.settings.quality === this.info?.default.quality;
      this.info = info;
      this.settings = fitted(this.settings, info);
      if (usual) this.settings.quality = info.default.quality;
      const { width, height } = this.settings;
      if (!info.sizes.some((each) => each.width === width && each.height === height))
        Object.assign(this.settings, info.card.sizes.native);
      this.settings.live &&= this.canLive;
      if (!info.card.image) this.dropSource();
      if (!info.card.inpaint) this.strokes = [];
      return true;
    } catch (error) {
      if (number === this.#switches) this.#problem(error);
      return false;
    } finally {
      if (number === this.#switches) this.switching = null;
    }
  }

  /** Learn what the model can do now, such as after it was measured. */
  async renew(): Promise<void> {
    if (!this.info) return;
    const info = await api.info(this.info.model.id);
    if (info.model.id !== this.info.model.id) return;
    const usual = this.settings.quality === this.info.default.quality;
    this.info = info;
    if (usual) this.settings.quality = info.default.quality;
  }

  /** Whether a picture may have transparent parts, as far as its model is known. */
  alpha(picture: Picture): boolean {
    return this.card === null || this.card.alpha || !this.#ours(picture);
  }

  /** Whether the model can begin with a picture. */
  begins(picture: Picture): boolean {
    return this.#ours(picture) && (this.card?.image ?? false);
  }

  /** What was asked for, or the model where it asks nothing. */
  named(words: string, model: string | null): string {
    if (words !== "") return words;
    const models = this.info?.models ?? [];
    return (models.find(({ id }) => id === model) ?? models[0])?.title ?? "";
  }

  #ours(picture: Picture): boolean {
    return picture.model === null || picture.model === this.info?.model.id;
  }

  /** Go over to the model that made a picture, if this server has it. */
  async #follow(picture: Picture): Promise<void> {
    const { model } = picture;
    if (!this.#ours(picture) && model !== null && this.#has(model)) await this.chooseModel(model);
  }

  #has = (model: string) => this.info?.models.some(({ id }) => id === model) ?? false;

  /** Follow what happens; a page that nobody sees lets go of its connection. */
  connect(): void {
    this.#disconnect ??= connect((told) => this.#hear(told));
  }

  disconnect(): void {
    this.#disconnect?.();
    this.#disconnect = null;
    this.#looks++;
    clearTimeout(this.#lookAgain);
  }

  /** Learn what happened while nothing was heard; again and again until somebody answers. */
  async catchUp(): Promise<void> {
    const look = ++this.#looks;
    clearTimeout(this.#lookAgain);
    try {
      const jobs = await api.recentJobs(RECENT_JOBS, LOOK_MS);
      if (look !== this.#looks) return;
      for (const job of jobs) this.#put(job);
      const listed = new Set(jobs.map(({ id }) => id));
      const others = Object.values(this.views).filter(
        ({ job }) => !isOver(job.state) && !listed.has(job.id),
      );
      await Promise.all(others.map(({ job }) => this.#lookAt(job.id)));
      if (look === this.#looks) this.lost = null;
    } catch (error) {
      if (look !== this.#looks) return;
      this.lost = error instanceof api.Unreachable ? t("problem.lost") : this.#sentence(error);
      this.#lookAgain = setTimeout(() => void this.catchUp(), RETRY_MS);
    }
  }

  async #lookAt(id: string): Promise<void> {
    try {
      this.#put(await api.job(id));
    } catch (error) {
      if (!(error instanceof api.ApiError && error.status === 404)) throw error;
      this.#forget(id);
    }
  }

  #hear(told: Told): void {
    switch (told.kind) {
      case "open":
      case "lost":
        void this.catchUp();
        break;
      case "job":
        // Live jobs of other pages, and those that have made way, are nothing to remember.
        if (!told.job.request.live || told.job.id in this.views) this.#put(told.job);
        break;
      case "event": {
        const view = this.views[told.id];
        if (view) this.#take(reduce(view, told.event));
        else this.#keep(told.id, told.event);
      }
    }
  }

  /** The answer that names a job may come after what is told of it. */
  #keep(id: string, event: JobEvent): void {
    const kept = this.#early.get(id) ?? [];
    this.#early.delete(id);
    this.#early.set(id, [...kept, event]);
    const [oldest] = this.#early.keys();
    if (this.#early.size > EARLY && oldest !== undefined) this.#early.delete(oldest);
  }

  // Making pictures.

  request(): Asked {
    const { settings } = this;
    const seed = settings.look?.seed ?? (settings.live ? this.liveSeed : null);
    const { asks, negative } = this.card ?? { asks: "prompt", negative: true };
    return {
      model: this.info?.model.id ?? null,
      prompt: asks === "prompt" ? settings.prompt.trim() : "",
      label: asks === "class" ? settings.label : null,
      negative_prompt: negative ? settings.negative.trim() : "",
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
    };
  }

  async generate(): Promise<void> {
    if (!this.complete) return;
    await this.#submit("draw", async () => {
      // A picture that is still on its way belongs to what was asked for.
      let arrived = true;
      while (this.receiving) arrived = await this.#receipt;
      return arrived ? this.#withMask(this.request()) : null;
    });
  }

  /** Draw what stands there now, quickly; an older live picture makes way. */
  async drawLive(): Promise<void> {
    if (!this.complete || !this.canLive || !this.quickest) return;
    const round = ++this.#liveRound;
    const request = { ...this.request(), quality: this.quickest.id, n: 1, live: true };
    if (combinations(request.prompt) > 1) return;
    try {
      const job = await api.createJob(await this.#withMask(request), newKey());
      this.#put(job);
      if (round !== this.#liveRound) return;
      const old = this.liveJob;
      this.liveJob = job.id;
      if (old !== null && old !== job.id) this.#forget(old);
    } catch (error) {
      if (round === this.#liveRound) this.#problem(error);
    }
  }

  async vary(picture: Picture, how: Variation): Promise<void> {
    await this.#submit(`vary ${how} ${picture.id}`, async () => ({
      ...this.#requestOf(picture),
      seed: null,
      n: Math.min(4, this.info?.limits.pictures ?? 4),
      parent: picture.id,
      strength: VARIATION[how],
    }));
  }

  async cancel(id: string): Promise<void> {
    if (this.cancelling.has(id)) return;
    this.cancelling = new Set([...this.cancelling, id]);
    try {
      this.#put(await api.cancelJob(id));
    } catch (error) {
      this.#problem(error);
    } finally {
      this.cancelling = new Set([...this.cancelling].filter((each) => each !== id));
    }
  }

  show(id: string): void {
    this.#line = this.#line.filter((each) => each !== id);
    this.current = id;
    this.settings.live = false;
  }

  // Looks.

  async lock(picture: Picture): Promise<void> {
    await this.#follow(picture);
    const { prompt, label, ...look } = this.#requestOf(picture);
    this.#adopt({
      ...look,
      prompt: this.settings.prompt.trim() === "" ? prompt : this.settings.prompt,
      label: this.settings.label ?? label,
      n: this.settings.n,
    });
    this.settings.look = { seed: picture.seed, thumbnail: picture.thumbnail };
    toasts.show(t("look.locked"));
  }

  /** Lock the look of what is on the stage, or of the next picture where there is none. */
  lockShown(): void {
    const picture = this.stage?.slots.find((slot) => slot.picture)?.picture ?? this.history[0];
    if (picture) void this.lock(picture);
    else this.settings.look = { seed: newSeed(), thumbnail: null };
  }

  surprise(): void {
    this.settings.look = null;
    this.liveSeed = newSeed();
  }

  async reuse(picture: Picture): Promise<void> {
    await this.#follow(picture);
    this.#adopt(this.#requestOf(picture));
    this.settings.look = { seed: picture.seed, thumbnail: picture.thumbnail };
    this.settings.match = false;
  }

  // Pictures to start from.

  /** Start from a file; whether that worked. */
  useFile(file: Blob): Promise<boolean> {
    return this.#receive(async () => file);
  }

  usePicture(picture: Picture): Promise<boolean> {
    return this.#receive(() => api.file(api.fileUrl(picture.id, {})));
  }

  dropSource(): void {
    this.#receipts++;
    this.receiving = false;
    this.source = null;
    this.strokes = [];
    this.#mask = null;
  }

  #receive(get: () => Promise<Blob>): Promise<boolean> {
    const number = ++this.#receipts;
    this.receiving = true;
    this.#receipt = this.#received(number, get);
    return this.#receipt;
  }

  async #received(number: number, get: () => Promise<Blob>): Promise<boolean> {
    try {
      const file = await prepared(await get(), this.info?.limits.upload_bytes ?? 0);
      if (number !== this.#receipts) return false;
      const source = await api.upload(file);
      if (number !== this.#receipts) return false; // another one was chosen meanwhile
      this.source = source;
      this.strokes = [];
      this.#mask = null;
      return true;
    } catch (error) {
      if (number === this.#receipts) this.#problem(error);
      return false;
    } finally {
      if (number === this.#receipts) this.receiving = false;
    }
  }

  /** Take the settings out of a picture; one without settings becomes the one to start from. */
  async restore(file: Blob, otherwise: "start" | "tell"): Promise<void> {
    const busy = toasts.show(t("restore.busy"), "busy");
    try {
      const found = await this.#settingsIn(file);
      if (found !== null) {
        const { model } = found.request;
        if (model !== null && model !== this.info?.model.id) await this.chooseModel(model);
        this.#adopt(found.request);
        this.settings.match = false;
        await this.#restoreSource(found.request);
        const lost = found.differs.includes("image") || found.differs.includes("mask");
        toasts.show(
          t(lost ? "restore.lost" : found.exact_model ? "restore.done" : "restore.other_model"),
        );
      } else if (otherwise === "tell") toasts.show(t("restore.nothing"), "problem");
      else if (await this.useFile(file)) toasts.show(t("restore.none"));
    } catch (error) {
      this.#problem(error);
    } finally {
      toasts.close(busy);
    }
  }

  /** The settings that a file carries, or null. */
  async #settingsIn(file: Blob) {
    if (!(await namesUs(file))) return null;
    try {
      return await api.settingsOf(file);
    } catch (error) {
      const none = error instanceof api.ApiError && error.status < 500 && error.status !== 401;
      if (none && error.status !== 429) return null;
      throw error;
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
    if (this.#deleted.some((each) => each.picture.id === picture.id)) return;
    const entry: Deleted = { picture, deletion: api.deletePictures([picture.id]) };
    this.#hide(picture);
    this.#deleted.push(entry);
    this.#offered = toasts.shows(DELETED) ? this.#offered + 1 : 1;
    this.#offer();
    try {
      await entry.deletion;
    } catch (error) {
      if (!this.#deleted.includes(entry)) return; // it is being brought back already
      this.#deleted = this.#deleted.filter((each) => each !== entry);
      this.#offered = Math.max(0, this.#offered - 1);
      this.#offer();
      this.#insert(picture);
      this.#problem(error);
    }
  }

  /** Bring back what was deleted last; whether there was something. */
  undo(): boolean {
    if (this.#deleted.length === 0) return false;
    void this.#bringBack(1);
    return true;
  }

  /** Say how many pictures were deleted, with the way back for all of them. */
  #offer(): void {
    if (this.#offered === 0) toasts.closeAbout(DELETED);
    else
      toasts.show(t("history.deleted", { n: this.#offered }), "info", {
        about: DELETED,
        action: { label: t("history.undo"), run: () => void this.#bringBack(this.#offered) },
      });
  }

  async #bringBack(count: number): Promise<void> {
    const back = this.#deleted.splice(-count);
    this.#offered = toasts.shows(DELETED) ? Math.max(0, this.#offered - count) : 0;
    for (const { picture } of back) this.#insert(picture);
    if (this.#offered > 0) this.#offer();
    else toasts.show(t("history.restored", { n: back.length }), "info", { about: DELETED });
    try {
      // Where they were never deleted, to restore them changes nothing.
      await Promise.allSettled(back.map(({ deletion }) => deletion));
      const { missing } = await api.restorePictures(back.map(({ picture }) => picture.id));
      const gone = new Set(missing); // for good, meanwhile
      for (const { picture } of back) if (gone.has(picture.id)) this.#hide(picture);
    } catch (error) {
      for (const { picture } of back) this.#hide(picture);
      this.#deleted.push(...back);
      this.#problem(error);
    }
  }

  // Inside.

  /** The settings of a request, as far as the model can follow them. */
  #adopt(request: Partial<Asked>): void {
    const settings = fromRequest(this.settings, request);
    this.settings = this.info ? fitted(settings, this.info) : settings;
  }

  /** What the model can do that was chosen last, or the first one of this server. */
  async #first(): Promise<Info> {
    const model = storedModel();
    if (model === null) return this.#loaded(null);
    try {
      return await this.#loaded(model);
    } catch (error) {
      if (!(error instanceof api.ApiError) || error.status === 401) throw error;
      return this.#loaded(null);
    }
  }

  /** What a model can do, as soon as the server has loaded it. */
  async #loaded(model: string | null): Promise<Info> {
    for (;;) {
      try {
        return await api.info(model);
      } catch (error) {
        if (!(error instanceof api.ApiError) || error.problem.code !== "loading") throw error;
        await new Promise((resolve) => setTimeout(resolve, PATIENCE_MS));
      }
    }
  }

  async #restoreSource(request: Asked): Promise<void> {
    this.dropSource();
    if (request.image !== null) {
      const url = `/api/uploads/${request.image}`;
      const { width, height } = await createImageBitmap(await api.file(url));
      this.source = { id: request.image, width, height, url };
    } else if (request.parent !== null) {
      // A picture of the gallery becomes an upload, which holds the same pixels.
      const url = api.fileUrl(request.parent, {});
      if (!(await this.#receive(() => api.file(url)))) return;
    }
    this.#mask = request.mask;
  }

  #hide(picture: Picture): void {
    this.history = this.history.filter(({ id }) => id !== picture.id);
    this.#mark(picture, true);
  }

  #insert(picture: Picture): void {
    this.#mark(picture, false);
    if (this.history.some(({ id }) => id === picture.id)) return;
    const older = this.history.findIndex(({ created }) => created < picture.created);
    const place = older < 0 ? this.history.length : older;
    this.history = this.history.toSpliced(place, 0, { ...picture, deleted: false });
  }

  #mark(picture: Picture, deleted: boolean): void {
    const view = this.views[picture.job];
    if (!view) return;
    const slots = view.slots.map((slot) =>
      slot.picture?.id === picture.id ? { ...slot, picture: { ...slot.picture, deleted } } : slot,
    );
    this.views = { ...this.views, [picture.job]: { ...view, slots } };
  }

  /** Ask for a job, once for each click however often it is repeated meanwhile. */
  async #submit(intent: Intent, make: () => Promise<Asked | null>): Promise<void> {
    if (this.sending.has(intent)) return;
    this.sending = new Set([...this.sending, intent]);
    try {
      const request = await make();
      if (request === null) return;
      const job = await this.#create(request);
      this.#put(job);
      // Nothing that is being drawn leaves the stage before it is done.
      const shown = this.current === null ? undefined : this.views[this.current];
      if (!shown || isOver(shown.job.state)) this.current = job.id;
      else this.#line.push(job.id);
      this.settings.live = false;
    } catch (error) {
      this.#problem(error);
    } finally {
      this.sending = new Set([...this.sending].filter((each) => each !== intent));
    }
  }

  /** A call that was cut off may have arrived: repeated with its key, it makes no second job. */
  async #create(request: Asked): Promise<Job> {
    const body = JSON.stringify(request);
    const key = this.#unanswered.get(body) ?? newKey();
    this.#unanswered.set(body, key);
    try {
      const job = await api.createJob(request, key);
      this.#unanswered.delete(body);
      return job;
    } catch (error) {
      if (!(error instanceof api.Unreachable)) this.#unanswered.delete(body);
      throw error;
    }
  }

  async #withMask(request: Asked): Promise<Asked> {
    if (!this.source) return request;
    if (!this.strokes.some((stroke) => !stroke.erase)) return { ...request, mask: this.#mask };
    const { strokes } = this;
    if (this.#sent?.strokes !== strokes) {
      const file = await maskFile(strokes, this.source.width, this.source.height);
      this.#sent = { strokes, id: (await api.upload(file)).id };
    }
    return { ...request, mask: this.#sent.id };
  }

  #requestOf(picture: Picture): Asked {
    const classed = picture.class_label !== null;
    return {
      model: this.#ours(picture) ? (this.info?.model.id ?? null) : picture.model,
      prompt: classed ? "" : escaped(picture.prompt),
      label: picture.class_label,
      negative_prompt: picture.negative_prompt,
      style: picture.style,
      width: picture.width,
      height: picture.height,
      quality: picture.quality,
      n: 1,
      seed: picture.seed,
      guidance_scale: this.card?.guided === false ? null : picture.guidance_scale,
      image: null,
      strength: null,
      fit: "crop",
      mask: null,
      parent: null,
      live: false,
    };
  }

  #put(job: Job): void {
    const early = this.#early.get(job.id) ?? [];
    this.#early.delete(job.id);
    this.#take(early.reduce(reduce, refreshed(this.views[job.id], job)));
  }

  /** Take in what is now known of a job. */
  #take(view: JobView): void {
    const { id } = view.job;
    const before = this.views[id]?.job.state;
    this.views = { ...this.views, [id]: view };
    for (const { picture } of view.slots) if (picture) this.#collect(picture);
    if (before && !isOver(before) && isOver(view.job.state)) this.#ended(view.job);
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

  #forget(id: string): void {
    const { [id]: _, ...rest } = this.views;
    this.views = rest;
    if (this.current === id) this.current = null;
  }

  #sentence(error: unknown): string {
    if (error instanceof api.Unreachable) return t("problem.unreachable");
    if (error instanceof Unreadable) return t("source.unreadable");
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
