/** Runs once for all windows of a browser, so that together they hold one connection. */

import { Shared } from "./stream";

const shared = new Shared();
const scope = self as unknown as { onconnect: (event: MessageEvent) => void };

scope.onconnect = ({ ports: [port] }) => {
  if (!port) return;
  const leave = shared.join((told) => port.postMessage(told));
  port.onmessage = leave; // a window says one thing only: that it goes
};
