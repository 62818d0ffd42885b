/** Calls of the server. Every failure is an `ApiError` with a sentence for people. */

import type {
  ChangedPictures,
  CompletedRequest,
  Emptied,
  Gallery,
  Jobs,
  Restored,
  ProblemDetail,
  Info,
  Job,
  JobRequest,
  Measurement,
  Picture,
  ReadPrompt,
  Upload,
} from "./contract";

/** What the page asks for: it leaves nothing out. */
export type Asked = Omit<CompletedRequest, "exact">;

export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly problem: ProblemDetail,
  ) {
    super(problem.message);
  }
}

/** Thrown where the server cannot be reached at all, or says nothing. */
export class Unreachable extends Error {}

/** What a call may take before the server counts as dead: nothing waits for ever. */
const PATIENCE_MS = 30_000;
const UPLOAD_PATIENCE_MS = 300_000;

async function answer<T>(
  path: string,
  read: (response: Response) => Promise<T>,
  init: RequestInit = {},
  patience = PATIENCE_MS,
): Promise<T> {
  const signal = AbortSignal.timeout(patience);
  try {
    const response = await fetch(path, { credentials: "same-origin", signal, ...init });
    if (response.ok) return await read(response);
    throw new ApiError(response.status, await problemOf(response));
  } catch (cause) {
    if (cause instanceof ApiError) throw cause;
    throw new Unreachable("the server does not answer", { cause });
  }
}

async function problemOf(response: Response): Promise<ProblemDetail> {
  const body = (await response.json().catch(() => null)) as { error?: ProblemDetail } | null;
  return (
    body?.error ?? {
      message: response.statusText,
      type: "error",
      param: null,
      code: null,
      values: {},
    }
  );
}

const call = <T>(path: string, init?: RequestInit, patience?: number): Promise<T> =>
  answer(path, (response) => response.json() as Promise<T>, init, patience);

function post<T>(path: string, body: unknown, headers: Record<string, string> = {}): Promise<T> {
  return call(path, {
    method: "POST",
    headers: { "Content-Type": "application/json", ...headers },
    body: JSON.stringify(body),
  });
}

/** Tells the live pictures of this page from those of another. */
const CLIENT = crypto.randomUUID?.() ?? String(Math.random());

export const info = (model: string | null) =>
  call<Info>(`/api/info${model === null ? "" : `?model=${encodeURIComponent(model)}`}`);

/** What a model knows of the words of a prompt; `language` is that of the page. */
export const readWords = (prompt: string, language: string, model: string) =>
  call<ReadPrompt>(`/api/words?${new URLSearchParams({ prompt, language, model })}`);

const measuring = (model: string) => `/api/models/${encodeURIComponent(model)}/measure`;

export const measure = (model: string) => post<Measurement>(measuring(model), {});

export const measurement = (model: string) => call<Measurement>(measuring(model));

export const cancelMeasurement = (model: string) =>
  call<Measurement>(measuring(model), { method: "DELETE" });

export const createJob = (request: JobRequest, key: string) =>
  post<Job>("/api/jobs", request, { "Idempotency-Key": key, "X-Client": CLIENT });

export const recentJobs = async (limit: number, patience?: number) =>
  (await call<Jobs>(`/api/jobs?limit=${limit}`, {}, patience)).jobs;

export const job = (id: string) => call<Job>(`/api/jobs/${id}`);

export const cancelJob = (id: string) => call<Job>(`/api/jobs/${id}`, { method: "DELETE" });

export const upload = (data: Blob) =>
  call<Upload>(
    "/api/uploads",
    { method: "POST", headers: { "Content-Type": data.type }, body: data },
    UPLOAD_PATIENCE_MS,
  );

/** The file at an address of this server. */
export const file = (url: string) => answer(url, (response) => response.blob());

export const settingsOf = (data: Blob) =>
  call<Restored>(
    "/api/settings",
    {
      method: "POST",
      headers: { "Content-Type": "application/octet-stream" },
      body: data,
    },
    UPLOAD_PATIENCE_MS,
  );

/** Which pictures of the gallery somebody wants to see. */
export interface Wanted {
  /** Words that the prompt contains, all of them. */
  q: string;
  favourites: boolean;
  /** The deleted ones, as long as they can come back. */
  trash: boolean;
}

function searched(wanted: Wanted): URLSearchParams {
  const query = new URLSearchParams();
  if (wanted.q.trim() !== "") query.set("q", wanted.q.trim());
  if (wanted.favourites) query.set("favourites", "true");
  if (wanted.trash) query.set("trash", "true");
  return query;
}

export function pictures(wanted: Wanted, before: string | null, limit: number): Promise<Gallery> {
  const query = searched(wanted);
  query.set("limit", String(limit));
  if (before !== null) query.set("before", before);
  return call<Gallery>(`/api/pictures?${query}`);
}

export const deletePictures = (ids: readonly string[]) =>
  post<ChangedPictures>("/api/pictures/delete", { ids });

export const restorePictures = (ids: readonly string[]) =>
  post<ChangedPictures>("/api/pictures/restore", { ids });

export const favourPictures = (ids: readonly string[], favourite: boolean) =>
  post<ChangedPictures>("/api/pictures/favourite", { ids, favourite });

/** Delete a picture that no undo brings back. */
export const removePicture = (id: string) =>
  call<Picture>(`/api/pictures/${encodeURIComponent(id)}?forever=true`, { method: "DELETE" });

export const emptyTrash = () => call<Emptied>("/api/trash", { method: "DELETE" });

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

/** The chosen pictures as one file. */
export const zipUrl = (ids: readonly string[]) =>
  `/api/pictures/zip?ids=${ids.map(encodeURIComponent).join(",")}`;

/** All pictures that are wanted, however many: the server sends the file while it makes it. */
export const zipAllUrl = (wanted: Wanted) => `/api/pictures/zip?${searched(wanted)}`;
