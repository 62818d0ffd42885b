/** Light, dark, or whatever the system says. */

export const THEMES = ["system", "light", "dark"] as const;
export type ThemeName = (typeof THEMES)[number];

const STORED = "asymflow.theme";

class Theme {
  name = $state<ThemeName>("system");

  start(): void {
    const stored = localStorage.getItem(STORED);
    this.#use(THEMES.find((name) => name === stored) ?? "system");
  }

  choose(name: ThemeName): void {
    localStorage.setItem(STORED, name);
    this.#use(name);
  }

  #use(name: ThemeName): void {
    this.name = name;
    if (name === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = name;
  }
}

export const theme = new Theme();
