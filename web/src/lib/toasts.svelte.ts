/** Short messages at the edge of the page, some with a way back. */

export interface Toast {
  id: number;
  text: string;
  tone: "info" | "problem";
  action?: { label: string; run: () => void };
}

const SECONDS = { info: 6, problem: 12, action: 10 };

class Toasts {
  list = $state<Toast[]>([]);
  #last = 0;

  show(text: string, tone: Toast["tone"] = "info", action?: Toast["action"]): void {
    const id = ++this.#last;
    this.list = [...this.list.filter((toast) => toast.text !== text), { id, text, tone, action }];
    setTimeout(() => this.close(id), SECONDS[action ? "action" : tone] * 1000);
  }

  close(id: number): void {
    this.list = this.list.filter((toast) => toast.id !== id);
  }

  /** Take the newest way back, if one is still offered. */
  undo(): boolean {
    const toast = this.list.findLast((each) => each.action);
    if (!toast) return false;
    this.close(toast.id);
    toast.action?.run();
    return true;
  }
}

export const toasts = new Toasts();
