/** The HTTP contract of the studio, as the server documents it at /docs. */

export interface Style {
  id: string;
  name: string;
  /** None for styles that are words added to the prompt. */
  thumbnail: string | null;
}

export interface Size {
  id: string;
  width: number;
  height: number;
  label: string;
}

export interface Quality {
  id: string;
  steps: number;
  forwards: number;
  seconds: number;
}

export type Asks = "prompt" | "class" | "nothing";

/** The sizes that a model can draw; only `native` where it is fixed. */
export interface Sizes {
  native: { width: number; height: number };
  smallest: number;
  largest: number;
  multiple: number;
  /** Smallest and largest side that it was trained on. */
  trained: [number, number];
  fixed: boolean;
}

/** What a model is asked with, and what it can make. */
export interface Card {
  title: string;
  asks: Asks;
  /** Names by number. */
  classes: string[];
  negative: boolean;
  image: boolean;
  inpaint: boolean;
  alpha: boolean;
  guided: boolean;
  guidance: number;
  sizes: Sizes;
  notes: string[];
}

export interface ModelState {
  id: string;
  title: string;
  state: "away" | "loading" | "ready" | "leaving" | "failed";
}

export interface Measurement {
  state: "running" | "done" | "failed" | "cancelled";
  progress: number;
  eta_seconds: number | null;
  plans: string[];
  error: string | null;
}

export interface Info {
  version: string;
  model: { id: string; name: string; hash: string };
  /** All that this server has; the first is the default. */
  models: ModelState[];
  card: Card;
  styles: Style[];
  sizes: Size[];
  qualities: Quality[];
  /** Whether there are plans besides the one of the family. */
  measured: boolean;
  can_measure: boolean;
  /** The one that runs, or the last one. */
  measurement: Measurement | null;
  default: { quality: string; guidance_scale: number; size: string };
  limits: {
    prompt_characters: number;
    pictures: number;
    combinations: number;
    upload_bytes: number;
    upload_pixels: number;
  };
  ideas: string[];
  has_token: boolean;
}

export type Fit = "crop" | "pad";

export interface JobRequest {
  model: string | null;
  prompt: string;
  /** The number of a class. */
  label: number | null;
  negative_prompt: string;
  style: string | null;
  width: number;
  height: number;
  quality: string;
  n: number;
  seed: number | null;
  guidance_scale: number | null;
  image: string | null;
  strength: number | null;
  fit: Fit;
  mask: string | null;
  parent: string | null;
  live: boolean;
}

/** What one step of a plan did: how big, guided or not, and how long it took. */
export interface Step {
  t: number;
  tier: string;
  shrink: number;
  guided: boolean;
  ms: number;
}

export interface Picture {
  id: string;
  job: string;
  slot: number;
  model: string | null;
  label: string | null;
  class_label: number | null;
  prompt: string;
  negative_prompt: string;
  style: string | null;
  width: number;
  height: number;
  seed: number;
  quality: string;
  guidance_scale: number;
  /** Seconds since 1970. */
  created: number;
  seconds: number;
  forwards: number;
  steps: Step[];
  url: string;
  thumbnail: string;
  deleted: boolean;
}

export interface ApiProblem {
  message: string;
  type: string;
  param: string | null;
  code: string | null;
}

export type JobState = "queued" | "running" | "done" | "failed" | "cancelled";

export interface Job {
  id: string;
  state: JobState;
  /** Seconds since 1970. */
  created: number;
  started: number | null;
  finished: number | null;
  request: JobRequest;
  position: number | null;
  /** Its model is being loaded. */
  loading: boolean;
  eta_seconds: number | null;
  progress: number;
  pictures: Picture[];
  slots: { label: string | null; prompt: string; seed: number }[];
  error: ApiProblem | null;
  seconds: number | null;
  forwards: number | null;
}

export interface Upload {
  id: string;
  width: number;
  height: number;
  url: string;
}

export type JobEvent =
  | { type: "queued"; data: { position: number; eta_seconds: number | null } }
  | { type: "started"; data: object }
  | {
      type: "step";
      data: Step & {
        slot: number;
        step: number;
        steps: number;
        forwards: number;
        progress: number;
        eta_seconds: number | null;
        preview: string | null;
      };
    }
  | { type: "picture"; data: { slot: number; picture: Picture } }
  | { type: "done"; data: { seconds: number; forwards: number } }
  | { type: "failed"; data: { error: ApiProblem } }
  | { type: "cancelled"; data: object };

export const JOB_EVENTS = [
  "queued",
  "started",
  "step",
  "picture",
  "done",
  "failed",
  "cancelled",
] as const satisfies readonly JobEvent["type"][];

export const isOver = (state: JobState): boolean =>
  state === "done" || state === "failed" || state === "cancelled";
