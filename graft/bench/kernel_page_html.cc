#include "graft/bench/kernel_page.h"
#include "graft/bench/page_parts.h"

namespace graft {

const HtmlPage kKernelPage = {
    .styles =
        {kBenchStyle,
         R"css(.bar-top { position: sticky; top: 0; z-index: 5; display: flex; flex-wrap: wrap; gap: 8px 20px; align-items: center; padding: 10px 16px; margin-bottom: 16px; }
.bar-top label { display: inline-flex; gap: 8px; align-items: center; color: var(--ink2); font-size: 13px; }
select, input[type=search] {
  font: inherit; font-size: 14px; color: var(--ink); background: var(--page); border: 1px solid var(--axis); border-radius: 7px; padding: 4px 8px; max-width: 100%;
}
select:focus-visible, input:focus-visible, th button:focus-visible { outline: 3px solid var(--ring); outline-offset: 1px; }
svg .roof { stroke: var(--ink3); fill: none; stroke-width: 1.5; }
svg .roof-text { font-size: 11px; paint-order: stroke; stroke: var(--card); stroke-width: 4px; stroke-linejoin: round; }
svg .dot { stroke: var(--card); stroke-width: 1.25; cursor: default; }
svg .dot:hover, svg .dot.at { stroke: var(--ink); stroke-width: 2; }
.tip div span { white-space: nowrap; }
table.kernels td:first-child, table.kernels th:first-child, table.kernels td.text, table.kernels th.text { text-align: left; }
table.kernels th { position: sticky; top: 0; background: var(--card); }
th button { all: unset; cursor: pointer; color: inherit; font-weight: 600; }
th[aria-sort=ascending] button::after { content: ' ▲'; font-size: 10px; }
th[aria-sort=descending] button::after { content: ' ▼'; font-size: 10px; }
.meter { display: inline-block; vertical-align: middle; width: 64px; height: 6px; border-radius: 3px; background: var(--grid); margin-right: 8px; overflow: hidden; }
.meter i { display: block; height: 100%; background: var(--good); border-radius: 3px; }
.steps { white-space: normal; min-width: 220px; }
.tall { max-height: 640px; overflow: auto; }
.crossings { margin: 8px 0 6px; padding: 0; list-style: none; display: flex; flex-wrap: wrap; gap: 6px 18px; font-size: 13px; color: var(--ink2); }
.crossings b { color: var(--ink); font-weight: 600; }
@media (max-width: 640px) { .bar-top { padding: 8px 12px; gap: 6px 12px; } .card { padding: 14px 12px 8px; } .tall { max-height: 520px; } }
)css"},
    .body = R"html(<header><h1>Kernel suite</h1><p id="subtitle"></p></header>
<dl class="tiles" id="tiles"></dl>
<form class="card bar-top" id="controls" aria-label="What is shown">
<label>Size <select id="size"></select></label>
<label>Threads <select id="threads"></select></label>
</form>
<noscript><p class="card none">The plots need JavaScript; the JSON beside this file holds their numbers.</p></noscript>
<section class="card" id="roofline"><div class="head"><h2>Under the roofs</h2></div>
<p>Every kernel at its operations for each byte. A roof is the bandwidth of a cache level or of memory, or the peak of multiply-adds, measured in the same run.</p>
<div class="legend" id="roof-legend"></div><div class="plot" id="roof-plot"></div></section>
<section class="card" id="peers"><div class="head"><h2>Against peers</h2></div>
<p>Median over a domain’s kernels of a peer’s time over graft’s, in turns in one run. To the right of 1 graft is quicker.</p>
<div class="legend" id="peer-legend"></div><div class="plot" id="peer-plot"></div></section>
<section class="card" id="sweep"><div class="head"><h2>Over sizes</h2><div class="controls"><label>Kernel <select id="kernel"></select></label></div></div>
<p>Time for an element under each variant and number of threads. Rings mark where another choice becomes the quickest.</p>
<div class="legend" id="sweep-legend"></div><div class="plot" id="sweep-plot"></div><ul class="crossings" id="crossings"></ul></section>
<section class="card" id="fused"><div class="head"><h2>Fused against single kernels</h2></div>
<p>A fused kernel’s time beside that of the single kernels that give its result, in turns, and the traffic it saves.</p>
<div class="scroll"><table class="kernels" id="fused-table"></table></div></section>
<section class="card"><div class="head"><h2>Every kernel</h2><div class="controls"><label>Find <input type="search" id="find" placeholder="softmax, sort …"></label></div></div>
<div class="scroll tall"><table class="kernels" id="table"></table></div></section>
<details class="card" id="notes"><summary>Notes</summary><ul class="notes" id="note-list"></ul></details>
<footer id="footer">Written by graft kernel. Ratio: the best peer’s time over graft’s.</footer>
)html",
    .scripts = {kBenchScript, R"js(const peers = report.peers || [], machine = report.machine;
const COLORS = {numpy: '--b', scipy: '--d', torch: '--c', 'torch.compile': '--f', mlx: '--e'};
const engineOf = e => Object.keys(COLORS).find(k => e === k || e.startsWith(k + ' ')) || e;
const color = e => `var(${COLORS[engineOf(e)] || '--e'})`;
const keyOf = r => `${r.kernel}|${r.size}|${r.threads}`;
const percent = v => `${(100 * v).toFixed(0)} %`;
const median = a => { const s = [...a].sort((x, y) => x - y); return s.length ? (s[(s.length - 1) >> 1] + s[s.length >> 1]) / 2 : NaN; };
const words = s => s.replaceAll('_', ' ');

// peers of a kernel at a size and number of threads: graft's time in turns with theirs, and the best of them
const rival = new Map();
for (const p of peers) {
  if (p.engine === 'graft') continue;
  const k = keyOf(p), r = rival.get(k) || {all: []};
  r.all.push(p);
  if (!r.best || p.ratio < r.best.ratio) r.best = p;
  rival.set(k, r);
}
// what was timed beside peers alone stands in the table too
const known = new Set(report.results.map(keyOf));
const rows = report.results.concat(peers.filter(p => p.engine === 'graft' && !known.has(keyOf(p))).map(p => ({...p, gbps: p.bytes / p.median_ns, gflops: p.flops / p.median_ns})));

const order = s => s.endsWith('LLC') ? 1e12 : parseFloat(s) * (s.endsWith('K') ? 1024 : s.endsWith('M') ? 1e6 : 1);
const sizes = [...new Set(rows.map(r => r.size))].sort((a, b) => order(a) - order(b));
const threads = [...new Set(rows.map(r => r.threads))].sort((a, b) => a - b);
const state = {size: sizes.includes('1M') ? '1M' : sizes[0], threads: threads[0], sort: 'domain', down: false, find: ''};
for (const [id, values] of [['size', sizes], ['threads', threads]]) {
  for (const v of values) $(id).append(make('option', {value: v}, String(v)));
  $(id).value = state[id];
  $(id).addEventListener('change', () => { state[id] = id === 'threads' ? Number($(id).value) : $(id).value; draw(); });
}
$('controls').addEventListener('submit', e => e.preventDefault());
const here = () => rows.filter(r => r.size === state.size && r.threads === state.threads);

// Figures over everything measured with the first number of threads.
const ratios = size => [...rival.entries()].filter(([k]) => k.split('|')[1] === size).map(([, r]) => r.best.ratio);
const share = r => r.limit_share;
const tiles = [['Kernels', String(new Set(rows.map(r => r.kernel)).size)]];
for (const size of ['1M', '10M']) {
  const all = ratios(size);
  if (all.length) {
    tiles.push([`Ahead at ${size}`, `${all.filter(v => v > 1).length} of ${all.length}`], [`Median ratio, ${size}`, `${median(all).toFixed(2)} ×`]);
  }
}
const bound = rows.filter(r => r.limit && r.limit.endsWith('memory'));
if (bound.length) tiles.push(['Of memory’s bandwidth', percent(median(bound.map(share)))]);
const beyond = rows.filter(r => r.beyond_limit).length;
if (beyond) tiles.push(['Beyond the limit', String(beyond)]);
for (const [name, value] of tiles) $('tiles').append(make('div', {class: 'tile'}, make('dt', {}, name), make('dd', {}, value)));
const software = Object.entries(report.versions || {}).map(([k, v]) => `${k} ${v}`).join(', ');
$('subtitle').textContent = [machine.cpu, machine.level, `${machine.cores} cores`, software, report.date].filter(Boolean).join(' · ');

// A log-log frame: X, Y from values to pixels, axes drawn.
function frame(plot, h, x0, x1, y0, y1, left, xText, yText) {
  const w = plot.clientWidth, svg = make('svg', {height: h, role: 'img'}), bottom = 40, top = 10, right = 14;
  const X = v => left + (Math.log10(v) - Math.log10(x0)) / (Math.log10(x1) - Math.log10(x0)) * (w - left - right);
  const Y = v => h - bottom - (Math.log10(v) - Math.log10(y0)) / (Math.log10(y1) - Math.log10(y0)) * (h - bottom - top);
  const powers = (a, b) => { const out = []; for (let e = Math.ceil(Math.log10(a) - 1e-9); e <= Math.log10(b) + 1e-9; ++e) out.push(Math.pow(10, e)); return out; };
  const text = v => v >= 1e6 ? `${v / 1e6}M` : v >= 1e3 ? `${v / 1e3}k` : String(parseFloat(v.toPrecision(3)));
  for (const v of powers(y0, y1)) svg.append(make('line', {class: 'grid', x1: left, x2: w - right, y1: Y(v), y2: Y(v)}), make('text', {x: left - 8, y: Y(v) + 4, 'text-anchor': 'end'}, text(v)));
  for (const v of powers(x0, x1)) svg.append(make('line', {class: 'grid', x1: X(v), x2: X(v), y1: top, y2: h - bottom}), make('text', {x: X(v), y: h - bottom + 18, 'text-anchor': 'middle'}, text(v)));
  svg.append(make('line', {class: 'axis', x1: left, x2: w - right, y1: h - bottom, y2: h - bottom}));
  svg.append(make('text', {x: w - right, y: h - 6, 'text-anchor': 'end'}, xText), make('text', {x: 0, y: top, 'dominant-baseline': 'hanging'}, yText));
  plot.replaceChildren(svg);
  return {svg, X, Y, w, h, left, right, top, bottom};
}

// ---- under the roofs
const limits = [['read', '--a'], ['copy', '--c'], ['triad', '--d'], ['write', '--f'], ['FMA', '--b']];
const alike = {update: 'copy', accumulate: 'triad'};  // the same mixes, in place
const limitOf = r => { const name = (r.limit || 'FMA').split(' ')[0]; return alike[name] || name; };
for (const [name, c] of limits) {
  $('roof-legend').append(make('span', {}, make('i', {class: 'dot', style: `background:var(${c})`}), name === 'FMA' ? 'bound by multiply-adds' : `bound by ${name}`));
}
function drawRoofs() {
  const plot = $('roof-plot'), list = here().filter(r => r.bytes > 0);
  if (!plot.clientWidth) return;
  const roofs = machine.roofs.filter(r => r.threads === state.threads);
  const peak = (roofs.find(r => r.level === 'FMA') || {gflops: 100}).gflops;
  const x0 = 0.04, x1 = Math.max(100, ...list.map(r => r.flops / r.bytes * 2));
  const at = r => Math.max(r.flops / r.bytes, x0 * 1.15), rate = r => Math.max(r.flops, at(r) * r.bytes) / r.median_ns;
  const y1 = Math.max(peak * 2.2, ...list.map(r => rate(r) * 1.6)), y0 = Math.min(0.1, ...list.map(rate)) / 1.5;
  const f = frame(plot, Math.max(320, Math.min(520, plot.clientWidth * .5)), x0, x1, y0, y1, 44, 'operations a byte', 'GFLOP/s');
  const seen = [], fastest = Math.max(...roofs.map(r => r.gbps || 0), 1);
  for (const level of ['L1', 'L2', 'L3', 'memory']) {
    const r = roofs.filter(q => q.level === level && (q.mix === 'copy' || q.mix === 'read')).sort((a, b) => b.gbps - a.gbps)[0];
    if (!r || !(r.gbps > 0)) continue;
    const ridge = Math.min(peak / r.gbps, x1), start = Math.max(x0, y0 / r.gbps);
    f.svg.append(make('path', {class: 'roof', d: `M${f.X(start)} ${f.Y(start * r.gbps)}L${f.X(ridge)} ${f.Y(ridge * r.gbps)}`}));
    const along = 8 + (seen.length % 2) * 110, xt = f.X(start) + along;  // names of close roofs stand apart
    const yt = f.Y(start * r.gbps * Math.pow(10, along * Math.log10(x1 / x0) / (f.w - f.left - f.right))) - 5;
    const angle = Math.atan2(f.Y(ridge * r.gbps) - f.Y(start * r.gbps), f.X(ridge) - f.X(start)) * 180 / Math.PI;
    if (xt + 90 < f.X(ridge) || !seen.length) {
      f.svg.append(make('text', {class: 'roof-text', x: xt, y: yt, transform: `rotate(${angle} ${xt} ${yt})`}, `${level} ${number(parseFloat(r.gbps.toPrecision(3)))} GB/s`));
      seen.push(yt);
    }
  }
  f.svg.append(make('path', {class: 'roof', d: `M${f.X(Math.max(x0, peak / fastest))} ${f.Y(peak)}L${f.w - f.right} ${f.Y(peak)}`}),
               make('text', {class: 'roof-text', x: f.w - f.right, y: f.Y(peak) - 6, 'text-anchor': 'end'}, `multiply-adds ${number(Math.round(peak))} GFLOP/s`));
  const tip = new Tip(plot);
  for (const r of list) {
    const c = (limits.find(([n]) => n === limitOf(r)) || limits[4])[1];
    const x = f.X(at(r)), y = f.Y(rate(r));
    const dot = make('circle', {class: 'dot', cx: x, cy: y, r: plot.clientWidth < 500 ? 4 : 5.5, fill: `var(${c})`, tabindex: '-1'});
    const show = () => tip.show(x, y, r.kernel, [['time', ns(r.median_ns)], ['rate', `${number(r.gflops)} GFLOP/s`], ['traffic', `${number(r.gbps)} GB/s`], ['of its limit', `${percent(r.limit_share)} of ${r.limit}`]]);
    dot.addEventListener('pointerenter', show);
    dot.addEventListener('click', show);
    dot.addEventListener('pointerleave', () => tip.hide());
    f.svg.append(dot);
  }
  f.svg.setAttribute('aria-label', `${list.length} kernels, median ${percent(median(list.map(share)))} of their limit`);
}

// ---- against peers
const engines = [...new Set(peers.map(p => engineOf(p.engine)))].filter(e => e !== 'graft').sort((a, b) => Object.keys(COLORS).indexOf(a) - Object.keys(COLORS).indexOf(b));
for (const e of engines) $('peer-legend').append(make('span', {}, make('i', {class: 'box dot', style: `background:${color(e)}`}), e === 'torch' ? 'torch (eager)' : e));
if (!peers.length) $('peers').hidden = true;
function drawPeers() {
  const plot = $('peer-plot');
  if (!plot.clientWidth || !peers.length) return;
  const domains = new Map();
  for (const p of peers) {
    if (p.engine === 'graft' || p.size !== state.size || p.threads !== state.threads) continue;
    const d = domains.get(p.domain) || new Map(), e = engineOf(p.engine);
    d.set(e, (d.get(e) || []).concat(p));
    domains.set(p.domain, d);
  }
  const w = plot.clientWidth, narrow = w < 560, left = narrow ? 0 : 150, bar = 9, gap = 14, head = narrow ? 18 : 0;
  const all = [...domains.values()].flatMap(d => [...d.values()].map(l => median(l.map(p => p.ratio))));
  if (!all.length) { plot.replaceChildren(make('p', {class: 'none'}, 'Nothing was measured at this size and number of threads.')); return; }
  const low = Math.min(.5, ...all) / 1.15, high = Math.max(4, ...all) * 1.25;
  let h = 24;
  for (const d of domains.values()) h += d.size * (bar + 2) + gap + head;
  const svg = make('svg', {height: h + 10, role: 'img', 'aria-label': 'Median ratio of each domain and peer'});
  const X = v => left + (Math.log(v / low)) / Math.log(high / low) * (w - left - 44);
  const marks = [.1, .2, .5, 1, 2, 5, 10, 20, 50, 100, 200, 500].filter(v => v >= low && v <= high);
  let last = -1e9;
  for (const v of marks) {
    svg.append(make('line', {class: v === 1 ? 'axis' : 'grid', 'stroke-width': v === 1 ? 2 : 1, x1: X(v), x2: X(v), y1: 18, y2: h}));
    if (X(v) - last > 34) { svg.append(make('text', {x: X(v), y: 10, 'text-anchor': 'middle'}, `${v} ×`)); last = X(v); }
  }
  const tip = new Tip(plot);
  let y = 26;
  for (const [domain, d] of domains) {
    if (narrow) { svg.append(make('text', {class: 'strong', x: 0, y: y + 8}, words(domain))); y += head; }
    else svg.append(make('text', {class: 'strong', x: left - 10, y: y + d.size * (bar + 2) / 2 + 3, 'text-anchor': 'end'}, words(domain)));
    for (const e of engines) {
      const l = d.get(e);
      if (!l) continue;
      const r = median(l.map(p => p.ratio)), x = Math.min(X(1), X(r));
      const rect = make('rect', {x, y, width: Math.max(2, Math.abs(X(r) - X(1))), height: bar, rx: 2.5, fill: color(e)});
      const top = y;
      const worst = [...l].sort((a, b) => a.ratio - b.ratio);
      const show = () => tip.show(X(r), top, `${words(domain)}, ${e}`, [['median', `${r.toFixed(2)} ×`], ...worst.slice(0, 6).map(p => [p.kernel, `${p.ratio.toFixed(2)} ×`])]);
      rect.addEventListener('pointerenter', show);
      rect.addEventListener('click', show);
      rect.addEventListener('pointerleave', () => tip.hide());
      svg.append(rect, make('text', {x: Math.max(X(1), X(r)) + 5, y: y + bar - 1, 'font-size': 10}, r.toPrecision(r < 10 ? 2 : 3)));
      y += bar + 2;
    }
    y += gap;
  }
  plot.replaceChildren(svg);
}

// ---- over sizes
const sweep = report.sweep && report.sweep.kernels ? report.sweep.kernels : null;
const shades = ['--e', '--c', '--a', '--d', '--f'];
if (!sweep || !Object.keys(sweep).length) $('sweep').hidden = true;
else {
  for (const k of Object.keys(sweep)) $('kernel').append(make('option', {value: k}, k));
  $('kernel').value = ['softmax_stable', 'map_exp', 'map_add'].find(k => sweep[k]) || Object.keys(sweep)[0];
  $('kernel').addEventListener('change', drawSweep);
}
function drawSweep() {
  if (!sweep) return;
  const plot = $('sweep-plot'), name = $('kernel').value, points = sweep[name] || [];
  if (!plot.clientWidth || !points.length) return;
  const id = c => `${c.variant}|${c.threads}`;
  const variants = [...new Set(Object.values(sweep).flatMap(s => s.flatMap(p => p.choices.map(c => c.variant))))].sort((a, b) => ['scalar', 'neon', 'avx2', 'avx512', 'avx512_bf16', 'amx'].indexOf(a) - ['scalar', 'neon', 'avx2', 'avx512', 'avx512_bf16', 'amx'].indexOf(b));
  const series = new Map();
  for (const p of points) for (const c of p.choices) series.set(id(c), (series.get(id(c)) || []).concat({x: p.size, y: c.ns / p.size, ns: c.ns}));
  const names = [...series.keys()].sort((a, b) => variants.indexOf(a.split('|')[0]) - variants.indexOf(b.split('|')[0]) || a.split('|')[1] - b.split('|')[1]);
  const paint = n => `var(${shades[variants.indexOf(n.split('|')[0]) % shades.length]})`, dash = n => n.endsWith('|1') ? '' : '5 4';
  const label = n => n.replace('|', ', ') + (n.endsWith('|1') ? ' thread' : ' threads');
  const legend = $('sweep-legend');
  legend.replaceChildren(...names.map(n => make('span', {}, make('i', {style: `border-top:2px ${dash(n) ? 'dashed' : 'solid'} ${paint(n)}`}), label(n))));
  const rival = [];
  for (const e of engines) {
    const l = peers.filter(p => p.kernel === name && engineOf(p.engine) === e && p.threads === state.threads).map(p => {
      const own = peers.find(q => q.engine === 'graft' && keyOf(q) === keyOf(p));
      return {x: own ? own.elements : NaN, y: p.median_ns / (own ? own.elements : NaN), ns: p.median_ns, e: p.engine, size: p.size};
    }).filter(p => isFinite(p.x));
    if (l.length) { rival.push(...l); legend.append(make('span', {}, make('i', {class: 'dot', style: `background:${color(e)}`}), e)); }
  }
  const all = [...series.values()].flat().concat(rival);
  const xs = all.map(p => p.x), ys = all.map(p => p.y);
  const f = frame(plot, Math.max(260, Math.min(380, plot.clientWidth * .4)), Math.min(...xs) / 1.3, Math.max(...xs) * 1.3, Math.min(...ys) / 1.6, Math.max(...ys) * 1.6, 52, 'elements', 'ns an element');
  const tip = new Tip(plot);
  for (const n of names) {
    const l = series.get(n).sort((a, b) => a.x - b.x);
    f.svg.append(make('path', {d: 'M' + l.map(p => `${f.X(p.x).toFixed(1)} ${f.Y(p.y).toFixed(1)}`).join('L'), fill: 'none', stroke: paint(n), 'stroke-width': 2, 'stroke-dasharray': dash(n), 'stroke-linejoin': 'round'}));
    for (const p of l) {
      const dot = make('circle', {class: 'dot', cx: f.X(p.x), cy: f.Y(p.y), r: 4, fill: paint(n)});
      const show = () => tip.show(f.X(p.x), f.Y(p.y), label(n), [['elements', number(p.x)], ['time', ns(p.ns)]]);
      dot.addEventListener('pointerenter', show);
      dot.addEventListener('click', show);
      dot.addEventListener('pointerleave', () => tip.hide());
      f.svg.append(dot);
    }
  }
  for (const p of rival) {
    const dot = make('circle', {class: 'dot', cx: f.X(p.x), cy: f.Y(p.y), r: 5, fill: color(p.e)});
    dot.addEventListener('pointerenter', () => tip.show(f.X(p.x), f.Y(p.y), p.e, [['size', p.size], ['time', ns(p.ns)]]));
    dot.addEventListener('pointerleave', () => tip.hide());
    f.svg.append(dot);
  }
  // where the quickest changes
  const list = [];
  let before = null;
  for (const p of [...points].sort((a, b) => a.size - b.size)) {
    const best = [...p.choices].sort((a, b) => a.ns - b.ns)[0];
    if (id(best) !== before) {
      list.push(make('li', {}, `from ${number(p.size)}: `, make('b', {}, label(id(best)))));
      f.svg.append(make('circle', {cx: f.X(p.size), cy: f.Y(best.ns / p.size), r: 8, fill: 'none', stroke: 'var(--ink)', 'stroke-width': 1.5, 'pointer-events': 'none'}));
    }
    before = id(best);
  }
  $('crossings').replaceChildren(...list);
  f.svg.setAttribute('aria-label', `${name}: ${list.map(l => l.textContent).join('; ')}`);
}

// ---- fused kernels
const fused = report.fused || [];
if (!fused.length) $('fused').hidden = true;
function drawFused() {
  const list = fused.filter(r => r.size === state.size && r.threads === state.threads);
  const names = [['kernel', 1], ['gain'], ['fused'], ['single'], ['traffic saved'], ['the single kernels', 1]];
  const head = make('tr', {}, ...names.map(([n, text]) => make('th', {scope: 'col', ...(text ? {class: 'text'} : {})}, n)));
  const line = r => make('tr', {}, make('td', {class: 'text'}, r.kernel), make('td', {class: r.speed > 1 ? 'win' : 'loss'}, `${r.speed.toFixed(2)} ×`), make('td', {}, ns(r.median_ns)),
                         make('td', {}, ns(r.unfused_ns)), make('td', {}, percent(r.bytes_saved)), make('td', {class: 'text steps'}, r.unfused));
  const none = make('tr', {}, make('td', {class: 'text', colspan: 6}, 'Nothing was measured at this size and number of threads.'));
  $('fused-table').replaceChildren(make('thead', {}, head), make('tbody', {}, ...(list.length ? list.map(line) : [none])));
}

// ---- the table
const ratioOf = r => { const p = rival.get(keyOf(r)); return p ? p.best.ratio : null; };
const columns = [
  ['kernel', 'kernel', r => r.kernel, true], ['domain', 'domain', r => r.domain, true], ['time', 'time', r => r.median_ns, false, r => ns(r.median_ns)],
  ['gbps', 'GB/s', r => r.gbps, false, r => number(parseFloat(r.gbps.toPrecision(3)))], ['gflops', 'GFLOP/s', r => r.gflops, false, r => number(parseFloat(r.gflops.toPrecision(3)))],
  ['share', 'of its limit', r => r.limit_share], ['limit', 'limit', r => r.limit, true], ['peer', 'best peer', r => { const p = rival.get(keyOf(r)); return p ? p.best.engine : ''; }, true], ['ratio', 'ratio', ratioOf],
];
const domainOrder = [...new Set(rows.map(r => r.domain))], kernelOrder = [...new Set(rows.map(r => r.kernel))];
function drawTable() {
  const head = make('tr', {}, ...columns.map(([id, name, , text]) => {
    const b = make('button', {type: 'button'}, name);
    b.addEventListener('click', () => { state.down = state.sort === id ? !state.down : !text; state.sort = id; drawTable(); });
    return make('th', {scope: 'col', ...(text ? {class: 'text'} : {}), ...(state.sort === id ? {'aria-sort': state.down ? 'descending' : 'ascending'} : {})}, b);
  }));
  const value = columns.find(c => c[0] === state.sort)[2], word = state.find.trim().toLowerCase();
  const list = here().filter(r => !word || `${r.kernel} ${words(r.kernel)} ${r.domain}`.toLowerCase().includes(word));
  list.sort((a, b) => {
    if (state.sort === 'domain') return (state.down ? -1 : 1) * (domainOrder.indexOf(a.domain) - domainOrder.indexOf(b.domain)) || kernelOrder.indexOf(a.kernel) - kernelOrder.indexOf(b.kernel);
    const x = value(a), y = value(b);
    if (x === y) return 0;
    if (x === null || x === '') return 1;
    if (y === null || y === '') return -1;
    return (x < y ? -1 : 1) * (state.down ? -1 : 1);
  });
  const body = make('tbody', {});
  for (const r of list) {
    const ratio = ratioOf(r), cells = columns.map(([id, , f, text, show]) => {
      if (id === 'share') {
        return make('td', {}, make('span', {class: 'meter'}, make('i', {style: `width:${Math.min(100, 100 * r.limit_share)}%${r.beyond_limit ? ';background:var(--bad)' : ''}`})), percent(r.limit_share));
      }
      if (id === 'ratio') return make('td', ratio === null ? {} : {class: ratio > 1 ? 'win' : 'loss'}, ratio === null ? '–' : `${ratio.toFixed(2)} ×`);
      return make('td', text ? {class: 'text'} : {}, id === 'domain' ? words(r.domain) : show ? show(r) : String(f(r) ?? '–'));
    });
    const line = make('tr', {}, ...cells);
    line.title = r.shape || '';
    body.append(line);
  }
  $('table').replaceChildren(make('thead', {}, head), body);
}
$('find').addEventListener('input', () => { state.find = $('find').value; drawTable(); });
const notes = [...(report.errors || []), ...(report.notes || [])];
if (!notes.length) $('notes').hidden = true;
for (const n of notes) $('note-list').append(make('li', {}, n));
function draw() { drawRoofs(); drawPeers(); drawSweep(); drawFused(); drawTable(); }
let width = 0;
new ResizeObserver(() => { const w = document.querySelector('main').clientWidth; if (w !== width) { width = w; draw(); } }).observe(document.querySelector('main'));
)js"}};

}  // namespace graft
