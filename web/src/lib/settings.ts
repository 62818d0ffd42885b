/** What somebody has chosen, kept in the browser so that a reload changes nothing. */

import type { Asked } from "./api";
import type { Info, Upload } from "./contract";
import type { Stroke } from "./mask";
import { possible } from "./shown";

/** The seed that later pictures start from too, and a picture to recognise it by. */
export interface Look {
  seed: number;
  thumbnail: string | null;
  /** What a picture was drawn from whose settings came back, where the page does not show it. */
  reference?: string | null;
}

/** What a picture that somebody brings is for, with models that can draw it again. */
export type Purpose = "start" | "restyle";

export interface Settings {
  /** The first one of the server, if none was chosen. */
  model: string | null;
  prompt: string;
  label: number | null;
  negative: string;
  style: string | null;
  purpose: Purpose;
  /** In which a picture is drawn again; all of them if there is none. */
  styles: string[];
  width: number;
  height: number;
  quality: string;
  n: number;
  guidance: number | null;
  look: Look | null;
  live: boolean;
  fit: Asked["fit"];
  match: boolean;
  strength: number;
  /** The same for a part that is painted over: nothing of what was there has to stay. */
  repaint: number;
}

/** How far to leave a picture: at 0.6 it stays what it was, and at 0.9 its layout is lost. */
export const STRENGTH = 0.8;
/** How far a variation leaves its picture: at 0.5 all look the same, and at 0.9 drafts fall apart. */
export const VARIATION = { subtle: 0.7, strong: 0.85 };
export type Variation = keyof typeof VARIATION;

const STORED = "asymflow.settings";

export const INITIAL: Settings = {
  model: null,
  prompt: "",
  label: null,
  negative: "",
  style: null,
  purpose: "start",
  styles: [],
  width: 64,
  height: 64,
  quality: "balanced",
  n: 1,
  guidance: null,
  look: null,
  live: false,
  fit: "crop",
  match: true,
  strength: STRENGTH,
  repaint: 1,
};

/** Settings as they were stored, without what this server or version does not know. */
export function stored(text: string | null, info: Info): Settings {
  const [width, height] = info.default.size.split("x").map(Number);
  const initial: Settings = {
    ...INITIAL,
    quality: info.default.quality,
    width: width ?? INITIAL.width,
    height: height ?? INITIAL.height,
  };
  let found: Partial<Settings> = {};
  try {
    const parsed: unknown = JSON.parse(text ?? "{}");
    if (typeof parsed === "object" && parsed !== null) found = parsed;
  } catch {
    // Damaged: begin anew.
  }
  const known = Object.fromEntries(
    Object.entries(found).filter(
      ([key, value]) =>
        key in initial &&
        (value === null || initial[key as keyof Settings] === null
          ? ["model", "label", "style", "guidance", "look"].includes(key)
          : typeof value === typeof initial[key as keyof Settings] &&
            Array.isArray(value) === Array.isArray(initial[key as keyof Settings])),
    ),
  );
  return fitted({ ...initial, ...known }, info);
}

/** Settings without what the model does not know or cannot do. */
export function fitted(chosen: Settings, info: Info): Settings {
  const settings = { ...chosen, model: info.model.id };
  const { card } = info;
  if (!possible(card.sizes, settings)) Object.assign(settings, card.sizes.native);
  if (settings.label !== null && settings.label >= card.classes.length) settings.label = null;
  if (!card.guided) settings.guidance = null;
  if (!info.styles.some((style) => style.id === settings.style)) settings.style = null;
  settings.styles = info.styles.map(({ id }) => id).filter((id) => chosen.styles.includes(id));
  if (!info.qualities.some((quality) => quality.id === settings.quality))
    settings.quality = info.default.quality;
  settings.n = Math.min(Math.max(1, Math.round(settings.n)), info.limits.pictures);
  return settings;
}

/** What this window kept, or else the last one that kept something: two do not disturb each other. */
const kept = (name: string) => sessionStorage.getItem(name) ?? localStorage.getItem(name);

export const load = (info: Info) => stored(kept(STORED), info);

function parsed(): Partial<Settings> {
  try {
    const found: unknown = JSON.parse(kept(STORED) ?? "{}");
    return typeof found === "object" && found !== null ? found : {};
  } catch {
    return {};
  }
}

/** The model that was chosen last. */
export function storedModel(): string | null {
  const { model } = parsed();
  return typeof model === "string" ? model : null;
}

/** The words that stood there last. */
export function storedPrompt(): string {
  const { prompt } = parsed();
  return typeof prompt === "string" ? prompt : "";
}

export function save(settings: Settings): void {
  const text = JSON.stringify(settings);
  sessionStorage.setItem(STORED, text);
  localStorage.setItem(STORED, text);
}

/** A picture to start from, with what was painted over it. */
export interface Begin {
  source: Upload;
  strokes: Stroke[];
  mask: string | null;
}

const BEGIN = "asymflow.source";

/** Of this window alone: it belongs to what is being done there, and lasts as long. */
export function saveBegin(begin: Begin | null): void {
  if (begin === null) return sessionStorage.removeItem(BEGIN);
  try {
    sessionStorage.setItem(BEGIN, JSON.stringify(begin));
  } catch {
    sessionStorage.removeItem(BEGIN); // more strokes than there is room for
  }
}

export function storedBegin(): Begin | null {
  try {
    const found = JSON.parse(sessionStorage.getItem(BEGIN) ?? "null") as Begin | null;
    return found !== null && typeof found.source?.id === "string" && Array.isArray(found.strokes)
      ? found
      : null;
  } catch {
    return null;
  }
}

const LOADING = "asymflow.loading";

/** How many seconds the model took to load here the last time. */
export function loadingTook(model: string | null): number | null {
  const seconds = Number(localStorage.getItem(`${LOADING}.${model ?? ""}`));
  return seconds > 0 ? seconds : null;
}

export const noteLoading = (model: string | null, seconds: number) =>
  localStorage.setItem(`${LOADING}.${model ?? ""}`, seconds.toFixed(1));

/** Whether all that a request is drawn from is an upload, in one style: so the page asks for it. */
export const redraws = (request: Partial<Asked>): boolean =>
  request.reference != null &&
  request.reference !== "none" &&
  request.image == null &&
  request.parent == null &&
  request.style != null;

/** The settings that a request came from; those it does not name stay as they are. */
export function fromRequest(settings: Settings, request: Partial<Asked>): Settings {
  const again = redraws(request);
  const starts = request.image != null || request.parent != null;
  return {
    ...settings,
    model: request.model ?? settings.model,
    prompt: request.prompt ?? settings.prompt,
    label: request.label ?? settings.label,
    negative: request.negative_prompt ?? "",
    style: request.style ?? null,
    purpose: again ? "restyle" : starts ? "start" : settings.purpose,
    styles: again ? [request.style as string] : settings.styles,
    width: request.width ?? settings.width,
    height: request.height ?? settings.height,
    quality: request.quality ?? settings.quality,
    n: request.n ?? 1,
    guidance: request.guidance_scale ?? null,
    look:
      request.seed == null
        ? null
        : {
            seed: request.seed,
            thumbnail: null,
            reference: again ? null : (request.reference ?? null),
          },
    ...(request.strength == null
      ? {}
      : request.mask == null
        ? { strength: request.strength }
        : { repaint: request.strength }),
    fit: request.fit ?? settings.fit,
    live: false,
  };
}
