/** What the server tells, to this window. */

import { follow, type Tell, type Told } from "./stream";

const RETRY_MS = 2000;

/**
 * Listen until the function that is given back is called. A browser opens six connections to a
 * server for all its windows together, and every stream keeps one: so the windows share theirs.
 */
export function connect(tell: Tell): () => void {
  // Some phones have none, and show one or two windows at a time.
  if (!("SharedWorker" in window)) return follow(tell);
  let leave: () => void;
  let timer: ReturnType<typeof setTimeout>;

  function join() {
    const worker = new SharedWorker(new URL("./events.worker.ts", import.meta.url), {
      type: "module",
    });
    const { port } = worker;
    port.onmessage = ({ data }: MessageEvent<Told>) => tell(data);
    leave = () => {
      worker.onerror = port.onmessage = null;
      port.postMessage("leave");
    };
    // Its script comes from the server too, which may have gone a moment after the page came.
    worker.onerror = () => {
      leave();
      tell({ kind: "lost" });
      timer = setTimeout(join, RETRY_MS);
    };
  }

  join();
  return () => {
    clearTimeout(timer);
    leave();
  };
}
