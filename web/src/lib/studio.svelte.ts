/** The state of the page, and everything that changes it. */

import * as api from "./api";
import type { Asked } from "./api";
import type { Info, Job, Picture, Restored, Upload } from "./contract";
import { isOver, type JobEvent } from "./events";
import { fileName, save as saveBlob, savedUrl } from "./downloads";
import { gallery } from "./gallery.svelte";
import { t, translator } from "./i18n.svelte";
import { connect } from "./link";
import { keepOriginal, original } from "./originals";
import { maskFile, type Stroke } from "./mask";
import { combinations, escaped, hasWords } from "./matrix";
import { report, sentence, told } from "./problems";
import { reduce, refreshed, type JobView } from "./progress";
import {
  fitted,
  fromRequest,
  INITIAL,
  load,
  loadingTook,
  noteLoading,
  redraws,
  save,
  saveBegin,
  storedBegin,
  storedModel,
  storedPrompt,
  VARIATION,
  type Settings,
  type Variation,
} from "./settings";
import { matching } from "./shown";
import type { Told } from "./stream";
import { toasts } from "./toasts.svelte";
import { namesUs, prepared, whole } from "./upload";

const RECENT_JOBS = 20;
/** "The same picture" still takes its last step. */
const LEAST = 0.02;
/** What a live picture may take, in seconds. */
const LIVE_S = 1.5;
/** An answer that takes longer waits for the model. */
const QUICK_MS = 400;
/** Between two looks whether the model is loaded. */
const PATIENCE_MS = 500;
/** Between two looks whether a server that did not answer is back, and what one may take. */
const RETRY_MS = 2000;
const LOOK_MS = 8000;
/** What the server says of files that are too large for it. */
const LARGE = new Set(["picture_too_large", "too_long"]);
/** Jobs whose events came before the job itself, and that are kept for it. */
const EARLY = 8;

const newSeed = () => (crypto.getRandomValues(new Uint32Array(1))[0] as number) >>> 1;
const newKey = () => Array.from(crypto.getRandomValues(new Uint32Array(4)), String).join("-");

/** What a click asks for: a second one for the same waits until the first is answered. */
type Intent = "draw" | "keep" | `vary ${Variation} ${string}`;

class Studio {
  info = $state.raw<Info | null>(null);
  /** A model is being loaded: since when, and how many seconds it took the last time. */
  loading = $state.raw<{ since: number; usual: number | null } | null>(null);
  /** Somebody asked for pictures before the model was there. */
  eager = $state(false);
  /** Another model is being loaded: what will be asked of it then. */
  switching = $state<string | null>(null);
  #switches = 0;
  /** Why the page cannot start, as a sentence. */
  failure = $state<string | null>(null);
  /** Why nothing is heard of the server at the moment, as a sentence. */
  lost = $state<string | null>(null);
  settings = $state<Settings>({ ...INITIAL, prompt: storedPrompt() });

  source = $state.raw<Upload | null>(null);
  strokes = $state.raw<Stroke[]>([]);
  /** The mask of a restored picture, until somebody paints another one. */
  mask = $state.raw<string | null>(null);
  /** Whether what a reload interrupted was looked for: before, there is nothing to remember. */
  #resumed = false;
  /** The size was taken from a picture: whoever brings another one wants its own. */
  #unmatched = false;
  /** The strokes that were sent last, and the mask that they became. */
  #sent: { strokes: Stroke[]; id: string } | null = null;

  views = $state.raw<Record<string, JobView>>({});
  /** How the pictures of older jobs were asked for. */
  #requests = $state.raw<Record<string, Asked>>({});
  /** The job on the stage. */
  current = $state<string | null>(null);
  /** The newest live job, which takes the stage while live mode is on. */
  liveJob = $state<string | null>(null);
  liveSeed = $state(newSeed());

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
  /** Whether the model can do something with a picture that somebody brings. */
  takes = $derived(this.card !== null && (this.card.image || this.card.references));
  /** Whether everything is there that the model asks for. */
  complete = $derived.by(() => {
    if (!this.card || this.switching !== null) return false;
    if (this.card.asks === "class") return this.settings.label !== null;
    return this.card.asks === "nothing" || hasWords(this.settings.prompt);
  });
  /** Whether the picture that somebody brought is drawn again, instead of started from. */
  restyling = $derived(
    this.source !== null &&
      this.card !== null &&
      this.card.references &&
      (this.settings.purpose === "restyle" || !this.card.image),
  );
  /** The styles in which it is drawn again, one picture each. */
  styles = $derived.by(() => {
    if (!this.restyling) return [];
    const { styles } = this.settings;
    const all = (this.info?.styles ?? []).map(({ id }) => id);
    return styles.length > 0 ? all.filter((id) => styles.includes(id)) : all;
  });
  pictureCount = $derived(
    (this.card?.asks === "prompt" ? combinations(this.settings.prompt) : 1) *
      Math.max(1, this.styles.length) *
      this.settings.n,
  );
  /** The quickest plan. */
  quickest = $derived.by(() =>
    this.info?.qualities.reduce((best, each) => (each.seconds < best.seconds ? each : best)),
  );
  canLive = $derived(this.quickest !== undefined && this.quickest.seconds < LIVE_S);
  /** Whether only a part of the picture is to be drawn anew. */
  masked = $derived(this.strokes.some((stroke) => !stroke.erase) || this.mask !== null);
  size = $derived(
    this.source && !this.restyling && this.settings.match && this.card
      ? matching(this.source.width, this.source.height, this.card.sizes)
      : { width: this.settings.width, height: this.settings.height },
  );
  /** The picture of live mode that is on the stage, as soon as it is finished. */
  live = $derived.by(() => {
    const job = this.stage?.job;
    return job?.request.live && job.state === "done" ? job : null;
  });

  // Starting up.

  async start(): Promise<void> {
    try {
      const info = await this.#first();
      const { prompt } = this.settings; // somebody may have written while the model was loaded
      this.settings = { ...load(info), prompt };
      this.info = info;
      const [jobs] = await Promise.all([
        api.recentJobs(RECENT_JOBS),
        gallery.load(),
        this.#resume().finally(() => (this.#resumed = true)),
      ]);
      for (const job of jobs) this.#put(job);
      const shown = jobs.filter((job) => !job.request.live);
      const running = shown.findLast((job) => !isOver(job.state));
      this.current = (running ?? shown.find((job) => job.pictures.length > 0))?.id ?? null;
      this.failure = null;
      if (!document.hidden) this.connect();
      if (this.eager) await this.generate();
      this.eager = false;
    } catch (error) {
      this.failure = sentence(error);
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
      if (!this.takes) this.dropSource();
      if (!info.card.inpaint) this.strokes = [];
      return true;
    } catch (error) {
      if (number === this.#switches) report(error);
      return false;
    } finally {
      if (number === this.#switches) this.switching = null;
    }
  }

  /** Go on with the picture to start from that a reload interrupted. */
  async #resume(): Promise<void> {
    const begin = storedBegin();
    if (begin === null || !this.card || !this.takes) return;
    try {
      await api.file(begin.source.url);
    } catch (error) {
      if (!(error instanceof api.ApiError)) throw error;
      return; // the server keeps uploads for a while only
    }
    this.source = begin.source;
    this.strokes = this.card.inpaint ? begin.strokes : [];
    this.mask = this.card.inpaint ? begin.mask : null;
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

  /** Whether a picture can be drawn anew in any size. */
  flat(picture: Picture): boolean {
    return this.#ours(picture) && (this.card?.flat ?? false) && !this.#isLive(picture);
  }

  #isLive(picture: Picture): boolean {
    return this.views[picture.job]?.job.request.live ?? false;
  }

  /** Whether a picture was painted into another one, as far as its job is known. */
  inpainted(picture: Picture): boolean {
    const request = this.views[picture.job]?.job.request ?? this.#requests[picture.job];
    return request?.mask != null && (request.image ?? request.parent) != null;
  }

  /** Learn how an older picture was asked for. */
  async learn({ job: id }: Picture): Promise<void> {
    if (id in this.views || id in this.#requests) return;
    try {
      const { request } = await api.job(id);
      this.#requests = { ...this.#requests, [id]: request };
    } catch (error) {
      if (!(error instanceof api.ApiError || error instanceof api.Unreachable)) throw error;
    }
  }

  /** A picture at its best: drawn anew where it is flat, or in the one that it was painted into. */
  best(picture: Picture): string {
    if (this.inpainted(picture)) return api.restoredUrl(picture.id, "webp", false);
    return this.flat(picture)
      ? savedUrl(picture, true, { format: "svg", side: null, background: "", clean: false })
      : picture.url;
  }

  /** Save the original that a picture was painted into, with the painted part. */
  async saveWhole(picture: Picture, format: api.FileChoice["format"], clean: boolean) {
    const url = api.restoredUrl(picture.id, format, clean);
    const request = this.views[picture.job]?.job.request ?? this.#requests[picture.job];
    try {
      const file = request?.image ? await original(request.image) : null;
      const data = (file && (await this.#whole(url, file))) ?? (await api.file(url));
      saveBlob(data, fileName(picture, { format, side: null, background: "", clean }));
    } catch (error) {
      report(error);
    }
  }

  /** Null where the original is more than the server takes: what it keeps is smaller. */
  async #whole(url: string, file: Blob): Promise<Blob | null> {
    try {
      return await api.restoredOriginal(url, await whole(file));
    } catch (error) {
      if (error instanceof api.ApiError && LARGE.has(error.problem.code ?? "")) return null;
      throw error;
    }
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
      this.lost = error instanceof api.Unreachable ? t("problem.lost") : sentence(error);
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
    const { source, restyling } = this;
    const hidden = this.card?.references ? (settings.look?.reference ?? null) : null;
    return {
      model: this.info?.model.id ?? null,
      prompt: asks === "prompt" ? settings.prompt.trim() : "",
      label: asks === "class" ? settings.label : null,
      language: translator.language,
      negative_prompt: negative ? settings.negative.trim() : "",
      style: restyling ? null : settings.style,
      styles: this.styles,
      ...this.size,
      quality: settings.quality,
      n: settings.n,
      seed,
      guidance_scale: settings.guidance,
      image: restyling ? null : (source?.id ?? null),
      strength:
        source && !restyling
          ? Math.max(LEAST, this.masked ? settings.repaint : settings.strength)
          : null,
      fit: settings.fit,
      mask: null,
      parent: null,
      reference: restyling && source ? source.id : hidden,
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
    request.styles = request.styles.slice(0, 1);
    try {
      const job = await api.createJob(await this.#withMask(request), newKey());
      this.#put(job);
      if (round !== this.#liveRound) return;
      const old = this.liveJob;
      this.liveJob = job.id;
      if (old !== null && old !== job.id) this.#forget(old);
    } catch (error) {
      if (round === this.#liveRound) report(error);
    }
  }

  /** Draw the live picture once more for the gallery: what was seen, to the last pixel. */
  async keep(): Promise<void> {
    const { live } = this;
    if (live === null) return;
    await this.#submit("keep", async () => ({
      ...live.request,
      seed: live.slots[0]?.seed ?? live.request.seed,
      live: false,
    }));
  }

  async vary(picture: Picture, how: Variation): Promise<void> {
    await this.#submit(`vary ${how} ${picture.id}`, async () => ({
      ...this.#requestOf(picture),
      seed: null,
      n: Math.min(4, this.info?.limits.pictures ?? 4),
      parent: picture.id,
      reference: await this.#still(picture.reference),
      strength: VARIATION[how],
    }));
  }

  /** A reference as long as the server keeps the upload; then it looks at its own drawings. */
  async #still(reference: string | null): Promise<string | null> {
    if (!this.card?.references || reference === null || reference === "none") return reference;
    try {
      await api.file(`/api/uploads/${encodeURIComponent(reference)}`);
    } catch (error) {
      if (!(error instanceof api.ApiError)) throw error;
      return null;
    }
    return reference;
  }

  async cancel(id: string): Promise<void> {
    if (this.cancelling.has(id)) return;
    this.cancelling = new Set([...this.cancelling, id]);
    try {
      this.#put(await api.cancelJob(id));
    } catch (error) {
      report(error);
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
    if (this.restyling && picture.style !== null) this.settings.styles = [picture.style];
    this.settings.look = { seed: picture.seed, thumbnail: picture.thumbnail };
    toasts.show(t("look.locked"));
  }

  /** Lock the look of what is on the stage, or of the next picture where there is none. */
  lockShown(): void {
    const picture = this.stage?.slots.find((slot) => slot.picture)?.picture ?? gallery.pictures[0];
    if (picture) void this.lock(picture);
    else this.settings.look = { seed: newSeed(), thumbnail: null };
  }

  surprise(): void {
    this.settings.look = null;
    this.liveSeed = newSeed();
  }

  /** Everything that made a picture, with the picture that it began with. */
  async reuse(picture: Picture): Promise<void> {
    try {
      await this.#restored(await api.settingsOf(await api.file(api.fileUrl(picture.id, {}))));
    } catch (error) {
      return report(error);
    }
    if (this.settings.look) this.settings.look.thumbnail = picture.thumbnail;
  }

  // Pictures to start from.

  /** Note the picture to start from, so that a reload does not lose it. */
  rememberBegin(): void {
    const { source, strokes, mask } = this;
    if (this.#resumed) saveBegin(source && { source, strokes, mask });
  }

  /** Start from a file; whether that worked. */
  useFile(file: Blob): Promise<boolean> {
    return this.#receive(async () => file);
  }

  /** Start from a picture of the gallery. */
  startFrom(picture: Picture): Promise<boolean> {
    this.settings.purpose = "start";
    return this.usePicture(picture);
  }

  usePicture(picture: Picture): Promise<boolean> {
    return this.#receive(() => api.file(api.fileUrl(picture.id, {})));
  }

  dropSource(): void {
    this.#receipts++;
    this.receiving = false;
    this.source = null;
    this.strokes = [];
    this.mask = null;
  }

  #receive(get: () => Promise<Blob>): Promise<boolean> {
    const number = ++this.#receipts;
    this.receiving = true;
    this.#receipt = this.#received(number, get);
    return this.#receipt;
  }

  async #received(number: number, get: () => Promise<Blob>): Promise<boolean> {
    try {
      const brought = await get();
      const file = await prepared(brought, this.info?.limits.upload_bytes ?? 0);
      if (number !== this.#receipts) return false;
      const source = await api.upload(file);
      await keepOriginal(source.id, brought);
      if (number !== this.#receipts) return false; // another one was chosen meanwhile
      this.source = source;
      this.strokes = [];
      this.mask = null;
      if (this.#unmatched) this.settings.match = true;
      this.#unmatched = false;
      return true;
    } catch (error) {
      if (number === this.#receipts) report(error);
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
        await this.#restored(found);
      } else if (otherwise === "tell") toasts.show(t("restore.nothing"), "problem");
      else if (await this.useFile(file))
        toasts.show(t(this.restyling ? "restore.again" : "restore.none"));
    } catch (error) {
      report(error);
    } finally {
      toasts.close(busy);
    }
  }

  async #restored(found: Restored): Promise<void> {
    const { model } = found.request;
    if (model !== null && model !== this.info?.model.id) await this.chooseModel(model);
    this.#adopt(found.request);
    await this.#restoreSource(found.request);
    if (this.source && !this.restyling) {
      const { width, height } = this.settings;
      this.settings.match = true;
      this.settings.match = this.size.width === width && this.size.height === height;
      this.#unmatched = !this.settings.match;
    }
    const lost = found.differs.includes("image") || found.differs.includes("mask");
    const known = found.exact_model
      ? found.differs.includes("reference")
        ? "restore.reference"
        : "restore.done"
      : "restore.other_model";
    toasts.show(t(lost ? "restore.lost" : known));
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
    const since = Date.now();
    // The server answers when the model is there.
    const waiting = setTimeout(() => {
      this.loading = { since, usual: loadingTook(model) };
    }, QUICK_MS);
    try {
      for (;;) {
        try {
          const info = await api.info(model);
          if (this.loading !== null) noteLoading(model, (Date.now() - since) / 1000);
          return info;
        } catch (error) {
          if (!(error instanceof api.ApiError) || error.problem.code !== "loading") throw error;
          await new Promise((resolve) => setTimeout(resolve, PATIENCE_MS));
        }
      }
    } finally {
      clearTimeout(waiting);
      this.loading = null;
    }
  }

  async #restoreSource(request: Asked): Promise<void> {
    this.dropSource();
    const id = redraws(request) ? request.reference : request.image;
    if (id !== null) {
      const url = `/api/uploads/${id}`;
      const { width, height } = await createImageBitmap(await api.file(url));
      this.source = { id, width, height, url };
    } else if (request.parent !== null) {
      // A picture of the gallery becomes an upload, which holds the same pixels.
      const url = api.fileUrl(request.parent, {});
      if (!(await this.#receive(() => api.file(url)))) return;
    }
    this.mask = request.mask;
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
      report(error);
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
    if (!this.source || this.restyling) return request;
    if (!this.strokes.some((stroke) => !stroke.erase)) return { ...request, mask: this.mask };
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
      language: null,
      negative_prompt: picture.negative_prompt,
      style: picture.style,
      styles: [],
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
      reference: null,
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
    if (!view.job.request.live)
      for (const { picture } of view.slots) if (picture) gallery.collect(picture);
    if (before && !isOver(before) && isOver(view.job.state)) this.#ended(view.job);
  }

  #ended(job: Job): void {
    if (job.state === "failed" && !job.request.live)
      toasts.show(job.error ? told(job.error) : t("state.failed"), "problem");
    if (job.state !== "done") this.#line = this.#line.filter((id) => id !== job.id);
    while (this.stage && isOver(this.stage.job.state) && this.current === this.stage.job.id) {
      const next = this.#line.shift();
      if (next === undefined) break;
      this.current = next;
    }
  }

  #forget(id: string): void {
    const { [id]: _, ...rest } = this.views;
    this.views = rest;
    if (this.current === id) this.current = null;
  }
}

export const studio = new Studio();

export function remember(): void {
  if (studio.info) save($state.snapshot(studio.settings) as Settings);
}
