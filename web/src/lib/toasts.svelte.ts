/** Short messages at the edge of the page, some with a way back. */

export interface Toast {
  id: number;
  text: string;
  tone: "info" | "problem" | "busy";
  /** What it is about: a newer message about the same takes its place. */
  about: string;
  action: { label: string; run: () => void } | null;
}

const SECONDS = { info: 6, problem: 12, action: 10 };

class Toasts {
  list = $state<Toast[]>([]);
  #last = 0;

  /** Show a message for a while, or while something goes on; close it earlier by its `id`. */
  show(
    text: string,
    tone: Toast["tone"] = "info",
    { about = text, action = null }: Partial<Pick<Toast, "about" | "action">> = {},
  ): number {
    const id = ++this.#last;
    const toast = { id, text, tone, about, action };
    this.list = [...this.list.filter((each) => each.about !== about), toast];
    if (tone !== "busy") setTimeout(() => this.close(id), SECONDS[action ? "action" : tone] * 1000);
    return id;
  }

  /** Whether something about this is shown. */
  shows(about: string): boolean {
    return this.list.some((each) => each.about === about);
  }

  close(id: number): void {
    this.list = this.list.filter((toast) => toast.id !== id);
  }

  closeAbout(about: string): void {
    this.list = this.list.filter((toast) => toast.about !== about);
  }
}

export const toasts = new Toasts();
