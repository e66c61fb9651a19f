/** Tabs of a page: links, so that each has an address. */
export interface TabsProps {
  label: string;
  current: string;
  tabs: readonly { id: string; text: string; href: string; count?: number }[];
}

export function Tabs({ label, current, tabs }: TabsProps) {
  return (
    <nav class="tabs" aria-label={label}>
      {tabs.map((tab) => (
        <a key={tab.id} href={tab.href} aria-current={tab.id === current ? "page" : undefined}>
          {tab.text}
          {tab.count !== undefined && <span class="count">{tab.count}</span>}
        </a>
      ))}
    </nav>
  );
}
