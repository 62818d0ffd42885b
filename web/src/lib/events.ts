/** What is told of a job, by the names of its events. */

import type { Job, JobEvents } from "./contract";

export type JobEvent = {
  [Name in keyof JobEvents]: { type: Name; data: JobEvents[Name] };
}[keyof JobEvents];

const NAMES: Record<keyof JobEvents, true> = {
  queued: true,
  started: true,
  step: true,
  picture: true,
  done: true,
  failed: true,
  cancelled: true,
};

export const JOB_EVENTS = Object.keys(NAMES) as (keyof JobEvents)[];

export const isOver = (state: Job["state"]): boolean =>
  state === "done" || state === "failed" || state === "cancelled";
