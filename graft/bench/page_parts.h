#pragma once

// What the pages of the kernel suite and of the mixtures of experts share beside html_page's own.

namespace graft {

inline constexpr char kBenchStyle[] =
    R"css(:root { --c: #2563eb; --d: #7c3aed; --e: #64748b; --f: #be185d; --good: #0f766e; --bad: #c2410c; --soft: rgba(15, 118, 110, .12); }
@media (prefers-color-scheme: dark) {
  :root { --c: #7aa7ff; --d: #b79cff; --e: #93a3b8; --f: #f472b6; --good: #3fb5a7; --bad: #f08a4b; --soft: rgba(63, 181, 167, .16); }
}
.card { margin-bottom: 16px; }
.card > p { margin: 4px 0 8px; color: var(--ink2); font-size: 13px; max-width: 78ch; }
.legend { margin: 2px 0 6px; }
svg .grid { stroke: var(--grid); }
svg .axis { stroke: var(--axis); }
svg .strong { fill: var(--ink); }
.tip { top: auto; white-space: normal; max-width: 280px; }
.win { color: var(--good); font-weight: 600; }
.loss { color: var(--bad); font-weight: 600; }
tbody tr:hover { background: var(--soft); }
ul.notes { margin: 8px 0 4px; padding-left: 20px; color: var(--ink2); font-size: 13px; overflow-wrap: anywhere; }
)css";

inline constexpr char kBenchScript[] =
    R"js(const ns = v => v < 1e3 ? `${v.toFixed(0)} ns` : v < 1e6 ? `${(v / 1e3).toPrecision(3)} µs` : `${(v / 1e6).toPrecision(3)} ms`;
class Tip {
  constructor(plot) { this.plot = plot; }
  show(x, y, title, lines) {
    if (!this.box) { this.box = make('div', {class: 'tip', role: 'status'}); this.plot.append(this.box); }
    this.box.replaceChildren(make('b', {}, title), ...lines.map(([a, b]) => make('div', {}, make('span', {}, a), b)));
    const w = this.box.offsetWidth, h = this.box.offsetHeight, W = this.plot.clientWidth;
    this.box.style.left = `${Math.max(0, Math.min(x + 14 + w > W ? x - w - 14 : x + 14, W - w))}px`;
    this.box.style.top = `${Math.max(0, y - h - 8)}px`;
  }
  hide() { if (this.box) this.box.remove(); this.box = null; }
}
)js";

}  // namespace graft
