/** The types of the server's API; scripts/contract.py writes them. */

export type paths = Record<string, never>;
export type webhooks = Record<string, never>;
export interface components {
  schemas: {
    /** @description A job was cancelled. */
    Cancelled: Record<string, never>;
    /**
     * @description What a model is asked with, and what it can make; `classes` are named by number.
     *
     *     `draws` says in a sentence what it draws, and `flat` that it draws flat shapes.
     */
    Card: {
      alpha: boolean;
      /** @enum {string} */
      asks: "prompt" | "class" | "nothing";
      classes: string[];
      draws: string;
      flat: boolean;
      guidance: number;
      guided: boolean;
      image: boolean;
      inpaint: boolean;
      licence: string | null;
      negative: boolean;
      notes: string[];
      references: boolean;
      sizes: components["schemas"]["Sizes"];
      source: string | null;
      title: string;
    };
    /** @description The state of a job has changed. */
    Changed: {
      job: components["schemas"]["Job"];
    };
    /** @description Pictures as they are now, and the ids of those that are not there. */
    ChangedPictures: {
      missing: string[];
      pictures: components["schemas"]["Picture"][];
    };
    /** @description A request with all defaults filled in; its class, if it has one, is a number. */
    CompletedRequest: {
      /**
       * @deprecated
       * @description Has no effect: every step of a quality is always run. Accepted because earlier versions sent and stored it.
       * @default false
       */
      exact: boolean;
      /**
       * @default crop
       * @enum {string}
       */
      fit: "crop" | "pad";
      guidance_scale: number | null;
      height: number;
      image: string | null;
      label: number | null;
      language: string | null;
      /** @default false */
      live: boolean;
      mask: string | null;
      model: string | null;
      /** @default 1 */
      n: number;
      /** @default  */
      negative_prompt: string;
      parent: string | null;
      prompt: string;
      quality: string;
      reference: string | null;
      seed: number | null;
      strength: number | null;
      style: string | null;
      /** @default [] */
      styles: string[];
      width: number;
    };
    /** @description What is used for those who do not choose. */
    Default: {
      guidance_scale: number;
      quality: string;
      size: string;
    };
    /** @description All pictures of a job are finished, in so many seconds and network passes. */
    Done: {
      forwards: number;
      seconds: number;
    };
    /** @description How many pictures were deleted for good. */
    Emptied: {
      deleted: number;
    };
    /** @description A job has failed. */
    Failed: {
      error: components["schemas"]["ProblemDetail"];
    };
    /** @description The response to a failed call. */
    Failure: {
      error: components["schemas"]["ProblemDetail"];
    };
    /** @description Pictures that are to be favourites, or not. */
    Favoured: {
      /** @default true */
      favourite?: boolean;
      ids: string[];
    };
    /** @description A picture is finished. */
    Finished: {
      picture: components["schemas"]["Picture"];
      slot: number;
    };
    /** @description The newest first; pass `next` as `before` for the next page. */
    Gallery: {
      next: string | null;
      pictures: components["schemas"]["Picture"][];
    };
    /**
     * @description What a model of the server can do, and the limits of the server.
     *
     *     `measured` says whether the model has plans besides the one of its family, and `measurement`
     *     is the one that runs, or the last one. `user` is the name of the token of the call, empty for
     *     the operator and where no token is needed. `idea_names` has what `ideas` are called in other
     *     languages, by language and idea; an idea without a name there is asked for as it is.
     */
    Info: {
      can_measure: boolean;
      card: components["schemas"]["Card"];
      default: components["schemas"]["Default"];
      has_token: boolean;
      idea_names: {
        [key: string]: {
          [key: string]: string;
        };
      };
      ideas: string[];
      limits: components["schemas"]["Limits"];
      measured: boolean;
      measurement: components["schemas"]["Measurement"] | null;
      model: components["schemas"]["ModelName"];
      models: components["schemas"]["ServedModel"][];
      qualities: components["schemas"]["Quality"][];
      sizes: components["schemas"]["Size"][];
      styles: components["schemas"]["Style"][];
      user: string;
      version: string;
    };
    /**
     * @description A job; `position` counts the jobs before it while it waits.
     *
     *     `loading` says that its model is being loaded.
     */
    Job: {
      created: number;
      error: components["schemas"]["ProblemDetail"] | null;
      eta_seconds: number | null;
      finished: number | null;
      forwards: number | null;
      id: string;
      loading: boolean;
      pictures: components["schemas"]["Picture"][];
      position: number | null;
      progress: number;
      request: components["schemas"]["CompletedRequest"];
      seconds: number | null;
      slots: components["schemas"]["Slot"][];
      started: number | null;
      /** @enum {string} */
      state: "queued" | "running" | "done" | "failed" | "cancelled";
    };
    /** @description The data of events of a job by their names; the last three end it. */
    JobEvents: {
      cancelled: components["schemas"]["Cancelled"];
      done: components["schemas"]["Done"];
      failed: components["schemas"]["Failed"];
      picture: components["schemas"]["Finished"];
      queued: components["schemas"]["Queued"];
      started: components["schemas"]["Started"];
      step: components["schemas"]["Stepped"];
    };
    /**
     * @description A request for pictures.
     *
     *     `prompt` may have choices, `{red|blue}`; every combination is generated `n` times. `strength` is
     *     the distance from the picture given as `image` (an upload) or `parent` (a picture of the
     *     studio). Where a `mask` is white the picture is repainted. With `styles` every combination is
     *     generated in each of them.
     *
     *     A model with references looks at drawings of its library for the words of the prompt, or at the
     *     `reference` instead: an upload, or "none" for nothing. It is drawn again, in the style.
     *
     *     Models of classes are asked with a `label`, by number or name, instead of a prompt, and some
     *     models with nothing. What is left out is chosen by the card of the model: `width` and `height`,
     *     `quality` (the name of one of its plans) and `guidance_scale`. `model` is the id of a model of
     *     the server; the first one if it is left out. `language` is the probable one of the prompt,
     *     such as that of the page.
     */
    JobRequest: {
      /**
       * @deprecated
       * @description Has no effect: every step of a quality is always run. Accepted because earlier versions sent and stored it.
       * @default false
       */
      exact?: boolean;
      /**
       * @default crop
       * @enum {string}
       */
      fit?: "crop" | "pad";
      guidance_scale?: number | null;
      height?: number | null;
      image?: string | null;
      label?: number | string | null;
      language?: string | null;
      /** @default false */
      live?: boolean;
      mask?: string | null;
      model?: string | null;
      /** @default 1 */
      n?: number;
      /** @default  */
      negative_prompt?: string;
      parent?: string | null;
      /** @default  */
      prompt?: string;
      quality?: string | null;
      reference?: string | null;
      seed?: number | null;
      strength?: number | null;
      style?: string | null;
      /** @default [] */
      styles?: string[];
      width?: number | null;
    };
    /** @description The newest first. */
    Jobs: {
      jobs: components["schemas"]["Job"][];
    };
    /**
     * @description The limits of the server, in characters, pictures, bytes, pixels and seconds.
     *
     *     `pictures` are those of one combination of a prompt, and `file_side` is that of a downloaded
     *     file. A deleted picture can be restored for `undo_seconds`.
     */
    Limits: {
      combinations: number;
      file_side: number;
      pictures: number;
      prompt_characters: number;
      undo_seconds: number;
      upload_bytes: number;
      upload_pixels: number;
    };
    /** @description A measurement of a model, and the names of the plans that it has made so far. */
    Measurement: {
      error: string | null;
      eta_seconds: number | null;
      plans: string[];
      progress: number;
      size: string;
      /** @enum {string} */
      state: "running" | "done" | "failed" | "cancelled";
    };
    /** @description A model: its id in requests, the name of its adapter, and the hash of its weights. */
    ModelName: {
      hash: string;
      id: string;
      name: string;
    };
    /** @description A finished picture; `created` in seconds since 1970. */
    Picture: {
      class_label: number | null;
      created: number;
      deleted: boolean;
      drawn: string | null;
      favourite: boolean;
      forwards: number;
      /** @default 1 */
      guidance_scale: number;
      height: number;
      id: string;
      job: string;
      label: string | null;
      model: string | null;
      /** @default  */
      negative_prompt: string;
      /** @default  */
      plan: string;
      prompt: string;
      /** @default  */
      quality: string;
      reference: string | null;
      seconds: number;
      seed: number;
      slot: number;
      /** @default [] */
      steps: components["schemas"]["Step"][];
      style: string | null;
      thumbnail: string;
      url: string;
      width: number;
    };
    /** @description Some pictures. */
    PictureIds: {
      ids: string[];
    };
    /** @description In pixels. */
    PixelSize: {
      height: number;
      width: number;
    };
    /**
     * @description The description of an error.
     *
     *     Attributes:
     *         message: for people: the value, the cause and what to do.
     *         type: "invalid_request_error", "rate_limit_error", "server_error", ...
     *         param: the field that caused it.
     *         code: for programs, one of `CODES` or the type of an error of pydantic.
     *         values: what the message says of this case, so that it can be told in another language.
     */
    ProblemDetail: {
      code: string | null;
      message: string;
      param: string | null;
      /** @default invalid_request_error */
      type: string;
      values: {
        [key: string]: string | number;
      };
    };
    /** @description A plan to choose, with the estimated seconds of a picture of the native size. */
    Quality: {
      forwards: number;
      id: string;
      seconds: number;
      steps: number;
    };
    /** @description A job waits; `position` counts the jobs before it. */
    Queued: {
      eta_seconds: number | null;
      position: number | null;
    };
    /**
     * @description A prompt as a model reads it.
     *
     *     `drawn` is what the model is asked with, and `language` the one that it was read in, if it was
     *     translated. `known` is false if nothing in the prompt is known to the model; `near` then has
     *     names to ask for instead, and `draws` says what the model draws. `words` is empty for a model
     *     that reads any text.
     */
    ReadPrompt: {
      drawn: string;
      draws: string;
      known: boolean;
      language: string | null;
      near: string[];
      prompt: string;
      words: components["schemas"]["ReadWord"][];
    };
    /**
     * @description A word or a name of several words, with its characters (UTF-16 units) in the prompt.
     *
     *     `kind` says what it is to the model. `drawn` is what the model is asked with in its place, empty
     *     where it is left out. `near` has names that the model knows, for an unknown word.
     */
    ReadWord: {
      drawn: string;
      end: number;
      /** @enum {string} */
      kind: "thing" | "colour" | "other" | "unknown";
      near: string[];
      start: number;
      text: string;
    };
    /** @description The request that reproduces a picture, and the parts that this server cannot reproduce. */
    Restored: {
      differs: ("model" | "plan" | "image" | "mask" | "reference" | "size")[];
      exact_model: boolean;
      request: components["schemas"]["CompletedRequest"];
    };
    /** @description A model of the server; its title and what it asks for are known since it was loaded first. */
    ServedModel: {
      asks: ("prompt" | "class" | "nothing") | null;
      failure: string | null;
      id: string;
      loaded: boolean;
      measured: boolean;
      /** @enum {string} */
      state: "away" | "loading" | "ready" | "leaving" | "failed";
      title: string;
    };
    /** @description The default first. */
    ServedModels: {
      models: components["schemas"]["ServedModel"][];
    };
    /** @description A size to choose. */
    Size: {
      height: number;
      id: string;
      /** @enum {string} */
      label: "square" | "landscape" | "portrait";
      width: number;
    };
    /**
     * @description The sizes of a model; sides are multiples of `multiple`, unless only `native` is possible.
     *
     *     `trained` has the smallest and the largest side that it was trained on.
     */
    Sizes: {
      fixed: boolean;
      largest: number;
      multiple: number;
      native: components["schemas"]["PixelSize"];
      offered: components["schemas"]["PixelSize"][];
      smallest: number;
      trained: [number, number];
    };
    /** @description One picture of a job; `label` lists its choices, `style` is its own if there are several. */
    Slot: {
      label: string | null;
      prompt: string;
      seed: number;
      style: string | null;
    };
    /** @description The first picture of a job is being made. */
    Started: Record<string, never>;
    /** @description A step of a picture, with its time in milliseconds; `t` falls from 1, noise, to 0. */
    Step: {
      guided: boolean;
      ms: number;
      shrink: number;
      t: number;
      tier: string;
    };
    /**
     * @description A step of a picture is done; `forwards` counts the network passes of this step.
     *
     *     `preview` is an address or, if that was asked for, a data URL or null.
     */
    Stepped: {
      eta_seconds: number | null;
      forwards: number;
      guided: boolean;
      ms: number;
      preview: string | null;
      progress: number;
      shrink: number;
      slot: number;
      step: number;
      steps: number;
      t: number;
      tier: string;
    };
    /** @description A style; one that consists of words added to the prompt has no thumbnail. */
    Style: {
      id: string;
      name: string;
      thumbnail: string | null;
    };
    /** @description An uploaded picture; pass `id` as `image`, `mask` or `reference` of a job. */
    Upload: {
      height: number;
      id: string;
      url: string;
      width: number;
    };
  };
  responses: never;
  parameters: never;
  requestBodies: never;
  headers: never;
  pathItems: never;
}
export type Cancelled = components["schemas"]["Cancelled"];
export type Card = components["schemas"]["Card"];
export type Changed = components["schemas"]["Changed"];
export type ChangedPictures = components["schemas"]["ChangedPictures"];
export type CompletedRequest = components["schemas"]["CompletedRequest"];
export type Default = components["schemas"]["Default"];
export type Done = components["schemas"]["Done"];
export type Emptied = components["schemas"]["Emptied"];
export type Failed = components["schemas"]["Failed"];
export type Failure = components["schemas"]["Failure"];
export type Favoured = components["schemas"]["Favoured"];
export type Finished = components["schemas"]["Finished"];
export type Gallery = components["schemas"]["Gallery"];
export type Info = components["schemas"]["Info"];
export type Job = components["schemas"]["Job"];
export type JobEvents = components["schemas"]["JobEvents"];
export type JobRequest = components["schemas"]["JobRequest"];
export type Jobs = components["schemas"]["Jobs"];
export type Limits = components["schemas"]["Limits"];
export type Measurement = components["schemas"]["Measurement"];
export type ModelName = components["schemas"]["ModelName"];
export type Picture = components["schemas"]["Picture"];
export type PictureIds = components["schemas"]["PictureIds"];
export type PixelSize = components["schemas"]["PixelSize"];
export type ProblemDetail = components["schemas"]["ProblemDetail"];
export type Quality = components["schemas"]["Quality"];
export type Queued = components["schemas"]["Queued"];
export type ReadPrompt = components["schemas"]["ReadPrompt"];
export type ReadWord = components["schemas"]["ReadWord"];
export type Restored = components["schemas"]["Restored"];
export type ServedModel = components["schemas"]["ServedModel"];
export type ServedModels = components["schemas"]["ServedModels"];
export type Size = components["schemas"]["Size"];
export type Sizes = components["schemas"]["Sizes"];
export type Slot = components["schemas"]["Slot"];
export type Started = components["schemas"]["Started"];
export type Step = components["schemas"]["Step"];
export type Stepped = components["schemas"]["Stepped"];
export type Style = components["schemas"]["Style"];
export type Upload = components["schemas"]["Upload"];
export type $defs = Record<string, never>;
export type operations = Record<string, never>;
