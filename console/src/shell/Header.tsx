import { Button } from "../components/Button";
import { Icon, type IconName } from "../components/Icon";
import { link, screen } from "../router";
import { may } from "../session";
import { language, setLanguage } from "../text";
import { dark, setTheme } from "../theme";
import { Account } from "./Account";
import { JobsChip } from "./JobsDrawer";
import { text } from "./text";

const SCREENS = ["try", "models", "train", "data", "loop", "operate"] as const satisfies readonly IconName[];

/** The name, the screens, and what holds on all of them. Under 720 px the screens are at the bottom. */
export function Header() {
  const t = text();
  const current = screen.value === "annotate" ? "data" : screen.value;
  return (
    <header class="header">
      <a class="brand" href={link(["try"])}>
        <img src="console/icon.svg" alt="" width={24} height={24} />
        <span>VisionLoop</span>
      </a>
      <nav class="screens" aria-label={t.navigation}>
        {SCREENS.map((name) => (
          <a key={name} href={link([name])} aria-current={current === name ? "page" : undefined}>
            <Icon name={name} />
            <span>{t.screens[name]}</span>
          </a>
        ))}
      </nav>
      <div class="header-end">
        {may("use") && <JobsChip />}
        <Button kind="quiet" class="language" title={t.languageLabel} onClick={() => setLanguage(language.value === "zh" ? "en" : "zh")}>
          {t.language}
        </Button>
        <Button kind="quiet" icon={dark.value ? "sun" : "moon"} label={dark.value ? t.light : t.dark} onClick={() => setTheme(dark.value ? "light" : "dark")} />
        <Account />
      </div>
    </header>
  );
}
