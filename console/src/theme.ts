/** Light, dark, or as the system has it. */
import { computed, effect, signal } from "@preact/signals";
import { remember, remembered } from "./remembered";

export type Theme = "system" | "light" | "dark";

const query = matchMedia("(prefers-color-scheme: dark)");
const systemIsDark = signal(query.matches);
query.addEventListener("change", () => (systemIsDark.value = query.matches));

export const theme = signal<Theme>((remembered("theme") as Theme | null) ?? "system");

/** Whether the page is dark now. */
export const dark = computed(() => (theme.value === "system" ? systemIsDark.value : theme.value === "dark"));

effect(() => {
  document.documentElement.dataset.theme = dark.value ? "dark" : "light";
});

export function setTheme(chosen: Theme): void {
  theme.value = chosen;
  remember("theme", chosen === "system" ? null : chosen);
}
