/** Calls of the server. Every failure is an `ApiError` with a sentence for people. */

import type { ApiProblem, Info, Job, JobRequest, Picture, Upload } from "./contract";

export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly problem: ApiProblem,
  ) {
    super(problem.message);
  }
}

/** Thrown where the server cannot be reached at all. */
export class Unreachable extends Error {}

async function call<T>(path: string, init: RequestInit = {}): Promise<T> {
  let response: Response;
  try {
    response = await fetch(path, { credentials: "same-origin", ...init });
  } catch (cause) {
    throw new Unreachable("the server does not answer", { cause });
  }
  const body: unknown = response.status === 204 ? null : await response.json().catch(() => null);
  if (!response.ok) {
    const problem = (body as { error?: ApiProblem } | null)?.error;
    throw new ApiError(
      response.status,
      problem ?? { message: response.statusText, type: "error", param: null, code: null },
    );
  }
  return body as T;
}

function post<T>(path: string, body: unknown, headers: Record<string, string> = {}): Promise<T> {
  return call(path, {
    method: "POST",
    headers: { "Content-Type": "application/json", ...headers },
    body: JSON.stringify(body),
  });
}

/** Tells the live pictures of this page from those of another. */
const CLIENT = crypto.randomUUID?.() ?? String(Math.random());

export const info = () => call<Info>("/api/info");

export const createJob = (request: JobRequest, key: string) =>
  post<Job>("/api/jobs", request, { "Idempotency-Key": key, "X-Client": CLIENT });

export const recentJobs = async (limit: number) =>
  (await call<{ jobs: Job[] }>(`/api/jobs?limit=${limit}`)).jobs;

export const job = (id: string) => call<Job>(`/api/jobs/${id}`);

export const cancelJob = (id: string) => call<unknown>(`/api/jobs/${id}`, { method: "DELETE" });

export const upload = (data: Blob) =>
  call<Upload>("/api/uploads", {
    method: "POST",
    headers: { "Content-Type": data.type },
    body: data,
  });

export const settingsOf = (data: Blob) =>
  call<{ request: JobRequest; exact_model: boolean; differs: string[] }>("/api/settings", {
    method: "POST",
    headers: { "Content-Type": data.type || "image/png" },
    body: data,
  });

export const pictures = (before: string | null, limit: number) =>
  call<{ pictures: Picture[]; next: string | null }>(
    `/api/pictures?limit=${limit}${before === null ? "" : `&before=${encodeURIComponent(before)}`}`,
  );

export const deletePicture = (id: string) =>
  call<unknown>(`/api/pictures/${id}`, { method: "DELETE" });

export const restorePicture = (id: string) => post<unknown>(`/api/pictures/${id}/restore`, {});

export interface FileChoice {
  format: "png" | "webp" | "jpeg";
  scale: number;
  background: string;
  clean: boolean;
}

export function fileUrl(id: string, choice: Partial<FileChoice>, download = false): string {
  const query = new URLSearchParams({ format: choice.format ?? "png" });
  if (choice.scale && choice.scale > 1) query.set("scale", String(choice.scale));
  if (choice.background) query.set("background", choice.background);
  if (choice.clean) query.set("clean", "1");
  if (download) query.set("download", "1");
  return `/api/pictures/${id}/file?${query}`;
}

export const zipUrl = (ids: readonly string[]) =>
  `/api/pictures/zip?ids=${ids.map(encodeURIComponent).join(",")}`;
