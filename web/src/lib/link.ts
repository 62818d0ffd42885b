/** What the server tells, to this window. */

import { follow, type Tell, type Told } from "./stream";

/**
 * Listen until the function that is given back is called. A browser opens six connections to a
 * server for all its windows together, and every stream keeps one: so the windows share theirs.
 */
export function connect(tell: Tell): () => void {
  // Some phones have none, and show one or two windows at a time.
  if (!("SharedWorker" in window)) return follow(tell);
  const { port } = new SharedWorker(new URL("./events.worker.ts", import.meta.url), {
    type: "module",
  });
  port.onmessage = ({ data }: MessageEvent<Told>) => tell(data);
  return () => {
    port.onmessage = null;
    port.postMessage("leave");
  };
}
