/** Images that outlive the server: what could not be loaded is tried again when it is back. */

import type { Attachment } from "svelte/attachments";
import { studio } from "./studio.svelte";

export const lasting: Attachment<HTMLImageElement> = (image) => {
  let failed = false;
  const note = () => (failed = true);
  image.addEventListener("error", note);
  $effect(() => {
    if (studio.lost !== null || !failed) return;
    failed = false;
    image.src = image.src; // which loads it anew
  });
  return () => image.removeEventListener("error", note);
};
