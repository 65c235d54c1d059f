#include "graft/bench/moe_page.h"

#include "graft/base/error.h"
#include "graft/bench/page_parts.h"
#include "graft/train/html_page.h"

namespace graft {
namespace {

constexpr HtmlPage kPage = {
    .styles = {kBenchStyle, R"css(.legend i.dot { width: 10px; height: 10px; border-radius: 3px; }
.charts { margin-bottom: 16px; }
.charts .card { margin: 0; }
svg .dot { stroke: var(--card); stroke-width: 1.25; }
svg .dot:hover { stroke: var(--ink); stroke-width: 2; }
td:first-child, th:first-child, td.text, th.text { text-align: left; }
)css"},
    .body = R"html(<header><h1>Mixtures of experts</h1><p id="subtitle"></p></header>
<dl class="tiles" id="tiles"></dl>
<noscript><p class="card none">The plots need JavaScript; the JSON beside this file holds their numbers.</p></noscript>
<section class="card" id="peers"><div class="head"><h2>Against peers</h2></div>
<p>A peer’s median time over graft’s, in turns in one run on the same weights and shapes; its gradients agree with graft’s. To the right of 1 graft is quicker.</p>
<div class="legend" id="peer-legend"></div><div class="plot" id="peer-plot"></div></section>
<div class="charts">
<section class="card"><div class="head"><h2>Forward over tokens</h2></div><p>Tiny model; dots are medians, lines span the quartiles.</p><div class="plot" id="tokens-plot"></div></section>
<section class="card"><div class="head"><h2>Models at once</h2></div><p>Throughput over that of one, each worker with a model of its own.</p>
<div class="legend" id="workers-legend"></div><div class="plot" id="workers-plot"></div></section>
<section class="card"><div class="head"><h2>Spread of the trials</h2></div><p>Each trial over its scenario’s median.</p><div class="plot" id="spread-plot"></div></section>
</div>
<section class="card"><div class="head"><h2>Every scenario</h2></div><div class="scroll"><table id="table"></table></div></section>
<details class="card" id="notes"><summary>Notes</summary><ul class="notes" id="note-list"></ul></details>
<footer>Written by graft bench moe. Ratio: the best peer’s time over graft’s.</footer>
)html",
    .scripts = {
        kBenchScript,
        R"js(const rows = report.scenarios, peers = (report.peers || []).filter(p => p.engine !== 'graft'), byId = new Map(rows.map(r => [r.id, r]));
const COLORS = {numpy: '--b', torch: '--c', 'torch.compile': '--f', mlx: '--e'};
const color = e => `var(${COLORS[e] || '--d'})`;
const best = new Map();
for (const p of peers) if (!best.has(p.id) || p.ratio < best.get(p.id).ratio) best.set(p.id, p);
const engines = Object.keys(COLORS).concat([...new Set(peers.map(p => p.engine))].filter(e => !COLORS[e])).filter(e => peers.some(p => p.engine === e));
$('subtitle').textContent = [report.cpu, report.level, `${report.threads} thread${report.threads === 1 ? '' : 's'} a model`, report.date, Object.entries(report.versions || {}).map(([k, v]) => `${k} ${v}`).join(', ')].filter(Boolean).join(' · ');
const tile = (name, value) => { const d = make('div', {class: 'tile'}); d.append(make('dt', {}, name), make('dd', {}, value)); $('tiles').append(d); };
if (best.size) tile('ahead of every peer', `${[...best.values()].filter(p => p.ratio > 1).length} of ${best.size}`);
for (const [id, name] of [['mem_train_step', 'training step, tiny'], ['mem_scale_seq_32', 'forward B2 S32, tiny'], ['scale_train_256', 'training step, hidden 256'], ['scale_forward_256', 'forward, hidden 256']]) {
  if (byId.has(id)) tile(name, ns(byId.get(id).median_ns) + (best.has(id) ? `, ${best.get(id).ratio.toFixed(1)} ×` : ''));
}
for (const f of report.figures || []) tile(f.name, f.value);

const hover = (e, tip, x, y, title, lines) => {
  e.addEventListener('pointerenter', () => tip.show(x, y, title, lines));
  e.addEventListener('click', () => tip.show(x, y, title, lines));
  e.addEventListener('pointerleave', () => tip.hide());
  return e;
};

for (const e of engines) $('peer-legend').append(make('span', {}, make('i', {class: 'dot', style: `background:${color(e)}`}), e === 'torch' ? 'torch (eager)' : e));
if (!peers.length) $('peers').hidden = true;
function drawPeers() {
  const plot = $('peer-plot'), w = plot.clientWidth;
  if (!w || !peers.length) return;
  const narrow = w < 560, left = narrow ? 0 : 150, bar = 8, gap = 10, head = narrow ? 16 : 0;
  const low = Math.min(.5, ...peers.map(p => p.ratio)) / 1.15, high = Math.max(4, ...peers.map(p => p.ratio)) * 1.3;
  const X = v => left + Math.log(v / low) / Math.log(high / low) * (w - left - 44);
  const shown = rows.filter(r => best.has(r.id));
  const h = 26 + shown.reduce((s, r) => s + head + gap + peers.filter(p => p.id === r.id).length * (bar + 2), 0);
  const svg = make('svg', {height: h, role: 'img', 'aria-label': 'Ratio of each scenario and peer'});
  let last = -1e9;
  for (const v of [.1, .2, .5, 1, 2, 5, 10, 20, 50, 100, 200, 500].filter(v => v >= low && v <= high)) {
    svg.append(make('line', {class: v === 1 ? 'axis' : 'grid', 'stroke-width': v === 1 ? 2 : 1, x1: X(v), x2: X(v), y1: 16, y2: h}));
    if (X(v) - last > 34) { svg.append(make('text', {x: X(v), y: 10, 'text-anchor': 'middle'}, `${v} ×`)); last = X(v); }
  }
  plot.replaceChildren(svg);
  const tip = new Tip(plot);
  let y = 24;
  for (const r of shown) {
    const list = engines.map(e => peers.find(p => p.id === r.id && p.engine === e)).filter(Boolean);
    if (narrow) { svg.append(make('text', {class: 'strong', x: 0, y: y + 8}, r.id)); y += head; }
    else svg.append(make('text', {class: 'strong', x: left - 10, y: y + list.length * (bar + 2) / 2 + 3, 'text-anchor': 'end'}, r.id));
    for (const p of list) {
      const x = Math.min(X(1), X(p.ratio)), rect = make('rect', {x, y, width: Math.max(2, Math.abs(X(p.ratio) - X(1))), height: bar, rx: 2.5, fill: color(p.engine)});
      svg.append(hover(rect, tip, X(p.ratio), y, `${r.id}, ${p.engine}`, [['its time', ns(p.median_ns)], ['quartiles', `${ns(p.q1_ns)} to ${ns(p.q3_ns)}`], ['ratio', `${p.ratio.toFixed(2)} ×`]]),
                 make('text', {x: Math.max(X(1), X(p.ratio)) + 5, y: y + bar - 1, 'font-size': 10}, p.ratio.toPrecision(p.ratio < 10 ? 2 : 3)));
      y += bar + 2;
    }
    y += gap;
  }
}

const quartile = (list, p) => { const s = [...list].sort((a, b) => a - b), at = p * (s.length - 1), i = Math.floor(at), j = Math.min(i + 1, s.length - 1); return s[i] + (at - i) * (s[j] - s[i]); };
function frame(plot, xs, ys, xText, yText, h = 250) {
  const w = plot.clientWidth, left = 48, bottom = 34, top = 10, right = 12;
  const X = v => left + (v - xs[0]) / (xs[1] - xs[0]) * (w - left - right), Y = v => h - bottom - (v - ys[0]) / (ys[1] - ys[0]) * (h - bottom - top);
  const svg = make('svg', {height: h, role: 'img', 'aria-label': `${yText} over ${xText}`}), marks = ticks(ys[0], ys[1], 5);
  for (const v of marks) svg.append(make('line', {class: 'grid', x1: left, x2: w - right, y1: Y(v), y2: Y(v)}), make('text', {x: left - 6, y: Y(v) + 4, 'text-anchor': 'end'}, tickText(v, marks)));
  svg.append(make('text', {x: left, y: h - 4}, `${yText}; across: ${xText}`));
  plot.replaceChildren(svg);
  return {svg, X, Y, h, bottom, tip: new Tip(plot)};
}
function drawTokens() {
  const plot = $('tokens-plot'), list = rows.filter(r => r.id.startsWith('mem_scale_'));
  if (!plot.clientWidth || !list.length) return;
  const tokens = r => r.params.batch * r.params.seq, most = Math.max(...list.map(tokens));
  const f = frame(plot, [0, most * 1.05], [0, Math.max(...list.map(r => quartile(r.timings_ns, .75))) / 1e3 * 1.08], 'tokens', 'µs');
  for (const v of ticks(0, most, 5)) f.svg.append(make('text', {x: f.X(v), y: f.h - f.bottom + 14, 'text-anchor': 'middle'}, v));
  for (const r of list) {
    const x = f.X(tokens(r)), y = f.Y(r.median_ns / 1e3), c = r.id.includes('batch') ? '--a' : '--b';
    f.svg.append(make('line', {x1: x, x2: x, y1: f.Y(quartile(r.timings_ns, .25) / 1e3), y2: f.Y(quartile(r.timings_ns, .75) / 1e3), stroke: `var(${c})`, 'stroke-width': 2}),
                 hover(make('circle', {class: 'dot', cx: x, cy: y, r: 5, fill: `var(${c})`}), f.tip, x, y, r.id, [['median', ns(r.median_ns)], ['tokens/s', number(r.throughput_tokens_per_sec)]]));
  }
}
function drawWorkers() {
  const plot = $('workers-plot'), kinds = [['parallel_T', '--a', 'forward'], ['parallel_train_T', '--b', 'training']];
  const list = kinds.map(([id, c, name]) => ({c, name, points: rows.filter(r => r.id.startsWith(id) && byId.has(id + '1')).map(r => [r.params.workers, r.params.workers * byId.get(id + '1').median_ns / r.median_ns])})).filter(k => k.points.length > 1);
  if (!plot.clientWidth || !list.length) return;
  $('workers-legend').replaceChildren(...list.map(k => make('span', {}, make('i', {style: `border-color:var(${k.c})`}), k.name)));
  const f = frame(plot, [.7, 4.3], [0, Math.max(2, ...list.flatMap(k => k.points.map(p => p[1]))) * 1.1], 'workers', '×');
  for (const v of [1, 2, 4]) f.svg.append(make('text', {x: f.X(v), y: f.h - f.bottom + 14, 'text-anchor': 'middle'}, v));
  for (const k of list) {
    f.svg.append(make('path', {d: 'M' + k.points.map(([x, y]) => `${f.X(x)} ${f.Y(y)}`).join('L'), fill: 'none', stroke: `var(${k.c})`, 'stroke-width': 2}));
    for (const [x, y] of k.points) f.svg.append(hover(make('circle', {class: 'dot', cx: f.X(x), cy: f.Y(y), r: 5, fill: `var(${k.c})`}), f.tip, f.X(x), f.Y(y), `${k.name}, ${x} at once`, [['throughput', `${y.toFixed(2)} ×`]]));
  }
}
function drawSpread() {
  const plot = $('spread-plot');
  if (!plot.clientWidth) return;
  const top = Math.min(3, Math.max(1.2, ...rows.map(r => r.p95_ns / r.median_ns)));
  const f = frame(plot, [-.5, rows.length - .5], [Math.min(.8, ...rows.map(r => r.min_ns / r.median_ns)), top], 'scenarios in order', '× median');
  rows.forEach((r, i) => {
    for (const t of r.timings_ns) {
      const y = f.Y(Math.min(top, t / r.median_ns));
      f.svg.append(hover(make('circle', {class: 'dot', cx: f.X(i), cy: y, r: 3, fill: 'var(--a)', 'fill-opacity': .6}), f.tip, f.X(i), y, r.id, [['trial', ns(t)], ['median', ns(r.median_ns)]]));
    }
  });
}

const columns = [['scenario', r => r.id, true], ['axis', r => r.axis, true], ['median', r => ns(r.median_ns)], ['p95', r => ns(r.p95_ns)], ['IQR', r => ns(r.iqr_ns)], ['processor', r => ns(r.cpu_median_ns)],
  ['GFLOP/s', r => r.derived.gflops.toFixed(1)], ['tokens/s', r => r.throughput_tokens_per_sec > 0 ? number(r.throughput_tokens_per_sec) : '–'], ['memory', r => `${(r.memory.peak_rss_bytes / 1e6).toFixed(1)} MB`],
  ['allocations', r => number(r.derived.allocations_per_run)]];
const head = make('tr', {}, ...columns.map(([name, , text]) => make('th', text ? {class: 'text', scope: 'col'} : {scope: 'col'}, name)), ...engines.map(e => make('th', {scope: 'col'}, e)), ...(best.size ? [make('th', {scope: 'col'}, 'ratio')] : []));
const body = make('tbody', {});
for (const r of rows) {
  const line = make('tr', {}, ...columns.map(([, f, text]) => make('td', text ? {class: 'text'} : {}, String(f(r)))));
  for (const e of engines) { const p = peers.find(q => q.id === r.id && q.engine === e); line.append(make('td', {}, p ? ns(p.median_ns) : '–')); }
  if (best.size) { const p = best.get(r.id); line.append(make('td', p ? {class: p.ratio > 1 ? 'win' : 'loss'} : {}, p ? `${p.ratio.toFixed(2)} ×` : '–')); }
  body.append(line);
}
$('table').append(make('thead', {}, head), body);
if (!(report.notes || []).length) $('notes').hidden = true;
for (const n of report.notes || []) $('note-list').append(make('li', {}, n));
let width = 0;
new ResizeObserver(() => { const w = document.querySelector('main').clientWidth; if (w !== width) { width = w; drawPeers(); drawTokens(); drawWorkers(); drawSpread(); } }).observe(document.querySelector('main'));
)js"}};

}  // namespace

std::string moe_page(const Json& report) {
  const bool whole = report.is_object() && report.contains("scenarios") && report["scenarios"].is_array();
  GRAFT_CHECK_HINT(whole, "graft bench moe --json prints one", "no report of graft bench moe: expected \"scenarios\"");
  return html_page(kPage, "Mixtures of experts – graft", report);
}

}  // namespace graft
