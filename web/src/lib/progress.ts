/** What is known of a job: its state after every event, and nothing else. */

import type { Job, Picture, Step } from "./contract";
import { isOver, type JobEvent } from "./events";

export interface SlotView {
  label: string | null;
  prompt: string;
  seed: number;
  style: string | null;
  preview: string | null;
  /** One per step so far; a place stays empty when its event was missed. */
  steps: (Step | undefined)[];
  total: number;
  picture: Picture | null;
}

export interface JobView {
  job: Job;
  slots: SlotView[];
}

export function viewOf(job: Job): JobView {
  const pictures = new Map(job.pictures.map((picture) => [picture.slot, picture]));
  return {
    job,
    slots: job.slots.map((slot, index) => {
      const picture = pictures.get(index) ?? null;
      return {
        ...slot,
        preview: null,
        steps: picture?.steps ?? [],
        total: picture?.steps.length ?? 0,
        picture,
      };
    }),
  };
}

/** A newer record of the same job, without losing the previews and steps that were seen. */
export function refreshed(view: JobView | undefined, job: Job): JobView {
  const fresh = viewOf(job);
  if (!view) return fresh;
  // Events of one job may overtake its record: what is over stays over.
  const newest = isOver(view.job.state) && !isOver(job.state) ? view.job : job;
  return {
    job: newest,
    slots: fresh.slots.map((slot, index) =>
      slot.picture ? slot : { ...slot, ...(view.slots[index] ?? {}) },
    ),
  };
}

export function reduce(view: JobView, event: JobEvent): JobView {
  const { job, slots } = view;
  // What is told again to those who come late does not turn back what is further.
  const stale = event.type === "queued" && job.state === "running";
  const step = event.type === "queued" || event.type === "started" || event.type === "step";
  if (stale || (step && isOver(job.state))) return view;
  switch (event.type) {
    case "queued":
      return { job: { ...job, state: "queued", ...event.data }, slots };
    case "started":
      return { job: { ...job, state: "running", position: null }, slots };
    case "step": {
      const { slot, step, steps, progress, eta_seconds, preview, t, tier, shrink } = event.data;
      const { guided, ms } = event.data;
      return {
        job: { ...job, state: "running", progress, eta_seconds },
        slots: slots.map((old, index) => {
          if (index !== slot) return old;
          const taken = old.steps.slice();
          taken[step] = { t, tier, shrink, guided, ms };
          return { ...old, steps: taken, total: steps, preview: preview ?? old.preview };
        }),
      };
    }
    case "picture": {
      const { slot, picture } = event.data;
      return {
        job: { ...job, pictures: [...job.pictures.filter((p) => p.slot !== slot), picture] },
        slots: slots.map((old, index) =>
          index === slot
            ? { ...old, picture, steps: picture.steps, total: picture.steps.length }
            : old,
        ),
      };
    }
    case "done":
      return { job: { ...job, state: "done", progress: 1, eta_seconds: 0, ...event.data }, slots };
    case "failed":
      return { job: { ...job, state: "failed", error: event.data.error }, slots };
    case "cancelled":
      return { job: { ...job, state: "cancelled" }, slots };
  }
}

/** One line of a compute strip in numbers. */
export interface Spent {
  ms: number;
  steps: number;
  small: number;
  guided: number;
}

export function spent(steps: readonly (Step | undefined)[]): Spent {
  const known = steps.filter((step) => step !== undefined);
  return {
    ms: known.reduce((sum, step) => sum + step.ms, 0),
    steps: known.length,
    small: known.filter((step) => step.shrink > 1).length,
    guided: known.filter((step) => step.guided).length,
  };
}
