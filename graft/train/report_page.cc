#include "graft/train/report_page.h"

namespace graft {

const HtmlPage kReportPage = {.styles = {},
                              .body = R"html(<header><h1 id="title"></h1><p id="subtitle"></p></header>
<dl class="tiles" id="tiles"></dl>
<div class="charts" id="charts"></div>
<noscript><p class="card none">The plots need JavaScript; metrics.jsonl beside this file holds their numbers.</p></noscript>
<details class="card" open><summary>Settings</summary><div class="settings" id="settings"></div></details>
<details class="card"><summary>Numbers</summary><div class="scroll"><table id="table"></table></div></details>
<footer>Written by graft train. Settings in bold differ from the defaults.</footer>
)html",
                              .scripts = {R"js(// Exponential moving average without the bias of its start.
const smooth = (values, keep) => {
  let sum = 0, weight = 0;
  return values.map(v => {
    if (v === null) return weight ? sum / weight : null;
    sum = sum * keep + v * (1 - keep);
    weight = weight * keep + (1 - keep);
    return sum / weight;
  });
};

class Chart {
  // series: {name, x, y, color, width, opacity, points, quiet: not in the legend}; options: {title, wide, zero, log, line: {value, name}}
  constructor(parent, options, series) {
    this.options = options;
    this.series = series;
    this.card = make('section', {class: 'card' + (options.wide ? ' wide' : '')});
    this.head = make('div', {class: 'head'}, make('h2', {}, options.title));
    const shown = series.filter(s => !s.quiet);
    if (shown.length > 1) {
      this.head.append(make('div', {class: 'legend'}, ...shown.map(s => {
        const key = make('i', s.points ? {class: 'dot', style: `background:${s.color}`} : {style: `border-color:${s.color};opacity:${s.opacity || 1}`});
        return make('span', {}, key, s.name);
      })));
    }
    if (!options.wide) this.head.append(make('span', {class: 'now'}, options.now || ''));
    this.plot = make('div', {class: 'plot', tabindex: '0', role: 'group', 'aria-label': `${options.title}: ${this.words()}. Arrow keys read the values.`});
    this.card.append(this.head, this.plot);
    parent.append(this.card);
    this.at = null;
    const move = e => { const r = this.plot.getBoundingClientRect(); this.point(this.nearest(e.clientX - r.left)); };
    this.plot.addEventListener('pointermove', move);
    this.plot.addEventListener('pointerdown', move);
    this.plot.addEventListener('pointerleave', () => this.point(null));
    this.plot.addEventListener('blur', () => this.point(null));
    this.plot.addEventListener('keydown', e => {
      const n = this.series[0].x.length, jump = Math.max(1, Math.round(n / 50));
      const to = {ArrowLeft: (this.at ?? n) - jump, ArrowRight: (this.at ?? -1) + jump, Home: 0, End: n - 1}[e.key];
      if (to === undefined) { if (e.key === 'Escape') this.point(null); return; }
      e.preventDefault();
      this.point(Math.min(n - 1, Math.max(0, to)));
    });
    new ResizeObserver(() => this.draw()).observe(this.plot);
  }
  words() {
    const s = this.series[this.series.length > 1 ? 1 : 0], y = s.y.filter(v => v !== null);
    return y.length ? `${s.name} from ${number(y[0])} to ${number(y[y.length - 1])}, lowest ${number(Math.min(...y))}, highest ${number(Math.max(...y))}` : 'no values';
  }
  draw() {
    const w = this.plot.clientWidth, h = this.options.wide ? Math.max(220, Math.min(340, w * .42)) : 190;
    if (!w || w === this.width && !this.dirty) return;
    this.width = w;
    this.dirty = false;
    const log = this.options.log;
    const to = log ? v => Math.log10(v) : v => v;
    const good = v => v !== null && isFinite(v) && (!log || v > 0);
    let low = Infinity, high = -Infinity, first = Infinity, last = -Infinity;
    for (const s of this.series) {
      s.y.forEach((v, i) => {
        first = Math.min(first, s.x[i]);
        last = Math.max(last, s.x[i]);
        if (good(v)) { low = Math.min(low, to(v)); high = Math.max(high, to(v)); }
      });
    }
    if (low > high) { low = 0; high = 1; }
    const zero = !log && low >= 0 && (this.options.zero || low < high * .3);
    if (zero) low = 0;
    if (this.options.line && !log && this.options.line.value <= high * 1.5) high = Math.max(high, this.options.line.value);
    const d = high === low ? Math.abs(high) * .1 || 1 : (high - low) * .06;
    high += d;
    if (!zero) low -= d;
    if (last === first) { first -= 1; last += 1; }
    let yTicks = ticks(low, high, 4);
    if (log) {
      const decades = [];
      for (let e = Math.floor(low); e <= high; ++e) for (const m of [1, 2, 5]) decades.push(m * Math.pow(10, e));
      const inside = decades.filter(v => Math.log10(v) >= low && Math.log10(v) <= high);
      if (inside.length > 1) yTicks = inside.map(v => Math.log10(v));
    }
    const values = yTicks.map(v => log ? Math.pow(10, v) : v);
    const labels = values.map(v => tickText(v, log ? [v] : values));
    const left = 14 + 7 * Math.max(...labels.map(t => t.length)), right = 10, top = 10, bottom = 26;
    const X = v => left + (v - first) / (last - first) * (w - left - right);
    const Y = v => top + (1 - (to(v) - low) / (high - low)) * (h - top - bottom);
    this.X = X; this.Y = Y;
    const svg = make('svg', {viewBox: `0 0 ${w} ${h}`, height: h, 'aria-hidden': 'true'});
    values.forEach((v, i) => {
      const y = Y(v);
      svg.append(make('line', {x1: left, x2: w - right, y1: y, y2: y, stroke: 'var(--grid)'}));
      svg.append(make('text', {x: left - 8, y: y + 4, 'text-anchor': 'end'}, labels[i]));
    });
    const xs = ticks(first, last, Math.max(3, Math.floor(w / 90))).filter(v => Number.isInteger(v));
    for (const v of xs) svg.append(make('text', {x: Math.min(X(v), w - 14), y: h - 6, 'text-anchor': 'middle'}, v >= 10000 ? v / 1000 + 'k' : v));
    svg.append(make('line', {x1: left, x2: w - right, y1: h - bottom, y2: h - bottom, stroke: 'var(--axis)'}));
    if (this.options.line && !log && this.options.line.value > low && this.options.line.value < high) {
      const y = Y(this.options.line.value);
      svg.append(make('line', {x1: left, x2: w - right, y1: y, y2: y, stroke: 'var(--ink3)', 'stroke-dasharray': '4 4'}));
      svg.append(make('text', {x: w - right, y: y - 5, 'text-anchor': 'end'}, this.options.line.name));
    }
    for (const s of this.series) {
      let d = '', pen = false;
      s.y.forEach((v, i) => {
        if (!good(v)) { pen = false; return; }
        d += `${pen ? 'L' : 'M'}${X(s.x[i]).toFixed(1)} ${Y(v).toFixed(1)}`;
        pen = true;
      });
      svg.append(make('path', {d, fill: 'none', stroke: s.color, 'stroke-width': s.width || 2, 'stroke-opacity': s.opacity || 1, 'stroke-linejoin': 'round', 'stroke-linecap': 'round'}));
      if (s.points || s.x.length === 1) s.y.forEach((v, i) => {
        if (good(v)) svg.append(make('circle', {cx: X(s.x[i]), cy: Y(v), r: 4, fill: s.color, stroke: 'var(--card)', 'stroke-width': 2}));
      });
    }
    this.mark = make('g', {});
    svg.append(this.mark);
    this.plot.replaceChildren(svg);
    this.tip = null;
    if (this.at !== null) this.point(this.at);
  }
  nearest(pixel) {
    const x = this.series[0].x;
    let a = 0, b = x.length - 1;
    while (b - a > 1) { const m = (a + b) >> 1; if (this.X(x[m]) < pixel) a = m; else b = m; }
    return Math.abs(this.X(x[a]) - pixel) < Math.abs(this.X(x[b]) - pixel) ? a : b;
  }
  point(i) {
    this.at = i;
    if (!this.mark) return;
    this.mark.replaceChildren();
    if (i === null || i === undefined) { this.at = null; if (this.tip) this.tip.remove(); this.tip = null; return; }
    const step = this.series[0].x[i], px = this.X(step), h = this.plot.querySelector('svg').clientHeight;
    this.mark.append(make('line', {x1: px, x2: px, y1: 10, y2: h - 26, stroke: 'var(--axis)'}));
    if (!this.tip) { this.tip = make('div', {class: 'tip', role: 'status'}); this.plot.append(this.tip); }
    const lines = [make('b', {}, `Step ${step.toLocaleString('en')}`)];
    for (const s of this.series) {
      // validation stands at few steps: the last one up to here
      let k = i;
      if (s.x !== this.series[0].x) { k = -1; s.x.forEach((v, j) => { if (v <= step) k = j; }); }
      const v = k >= 0 ? s.y[k] : null;
      if (v === null || v === undefined) continue;
      lines.push(make('div', {}, make('span', {}, s.name + (s.points && s.x[k] !== step ? ` (step ${s.x[k]})` : '')), number(v)));
      const y = this.Y(v);
      if (isFinite(y)) this.mark.append(make('circle', {cx: this.X(s.x[k]), cy: y, r: 4, fill: s.color, stroke: 'var(--card)', 'stroke-width': 2}));
    }
    this.tip.replaceChildren(...lines);
    const tw = this.tip.offsetWidth, space = this.plot.clientWidth;
    this.tip.style.left = `${Math.max(0, px + 12 + tw > space ? Math.min(px - tw - 12, space - tw) : px + 12)}px`;
  }
  redraw() { this.dirty = true; this.draw(); }
}

// A row per layer, first layer on top; the darker a cell, the larger the share.
function heat(parent, title, steps, rows) {
  const all = rows.flat(), low = Math.min(...all), high = Math.max(...all), span = high - low || 1;
  const canvas = make('canvas', {width: steps.length, height: rows.length, role: 'img', style:
    `width:100%;height:${Math.max(48, Math.min(320, rows.length * 16))}px;image-rendering:pixelated;border-radius:4px`,
    'aria-label': `${title}: ${rows.length} layers, shares from ${number(low)} to ${number(high)}`});
  const ink = canvas.getContext('2d');
  const tone = v => `hsl(${175 - 155 * v} 65% ${82 - 42 * v}%)`;
  rows.forEach((row, l) => row.forEach((v, i) => { ink.fillStyle = tone((v - low) / span); ink.fillRect(i, l, 1, 1); }));
  const now = make('span', {class: 'now'}, `${number(low)} to ${number(high)}`);
  canvas.addEventListener('pointermove', e => {
    const r = canvas.getBoundingClientRect();
    const i = Math.min(steps.length - 1, Math.max(0, Math.floor((e.clientX - r.left) / r.width * steps.length)));
    const l = Math.min(rows.length - 1, Math.max(0, Math.floor((e.clientY - r.top) / r.height * rows.length)));
    now.textContent = `layer ${l + 1} of ${rows.length}, step ${steps[i]}: ${number(rows[l][i])}`;
  });
  canvas.addEventListener('pointerleave', () => { now.textContent = `${number(low)} to ${number(high)}`; });
  parent.append(make('section', {class: 'card wide'}, make('div', {class: 'head'}, make('h2', {}, title), now), canvas));
}

$('title').textContent = report.title;
$('subtitle').textContent = report.subtitle;
for (const [name, value] of report.summary) $('tiles').append(make('div', {class: 'tile'}, make('dt', {}, name), make('dd', {}, value)));

const train = report.train, evals = report.eval, x = train.step || [];
if (!x.length) {
  $('charts').append(make('p', {class: 'card wide none'}, 'No update is done yet.'));
} else {
  const charts = $('charts'), last = a => number(a[a.length - 1]);
  const loss = [{name: 'loss', x, y: train.loss, color: 'var(--a)', width: 1.25, opacity: .35},
                {name: 'smoothed', x, y: [], color: 'var(--a)', width: 2}];
  if (evals.step.length) loss.push({name: 'validation', x: evals.step, y: evals.eval_loss, color: 'var(--b)', points: true});
  const keep = Math.min(.95, Math.max(.5, 1 - 12 / x.length));
  loss[1].y = smooth(train.loss, keep);
  const main = new Chart(charts, {title: 'Loss', wide: true}, loss);
  const slider = make('input', {type: 'range', min: 0, max: 100, value: Math.round(Math.sqrt(keep) * 100), 'aria-label': 'Smoothing of the loss'});
  slider.addEventListener('input', () => { const v = slider.value / 100; loss[1].y = smooth(train.loss, Math.min(.995, v * v)); main.redraw(); });
  const scale = make('input', {type: 'checkbox'});
  scale.addEventListener('change', () => { main.options.log = scale.checked; main.redraw(); });
  main.head.append(make('div', {class: 'controls'}, make('label', {}, 'Smoothing', slider), make('label', {}, scale, 'Log scale')));
  new Chart(charts, {title: 'Learning rate', now: last(train.learning_rate), zero: true}, [{name: 'rate', x, y: train.learning_rate, color: 'var(--a)'}]);
  const norm = smooth(train.grad_norm, Math.min(.95, keep));
  new Chart(charts, {title: 'Gradient norm', now: last(norm), zero: true, line: report.clip > 0 ? {value: report.clip, name: 'clip'} : null},
            [{name: 'norm', x, y: train.grad_norm, color: 'var(--a)', width: 1.25, opacity: .35, quiet: true}, {name: 'smoothed', x, y: norm, color: 'var(--a)', quiet: true}]);
  const speed = smooth(train.tokens_per_second, Math.min(.95, keep));
  new Chart(charts, {title: 'Tokens per second', now: last(speed), zero: true},
            [{name: 'speed', x, y: train.tokens_per_second, color: 'var(--a)', width: 1.25, opacity: .35, quiet: true}, {name: 'smoothed', x, y: speed, color: 'var(--a)', quiet: true}]);
  const names = {cross_entropy: 'Cross-entropy', aux_loss: 'Load balancing loss', z_loss: 'Router z loss', expert_share_max: 'Busiest expert’s share',
                 expert_entropy: 'Entropy of experts', dead_experts: 'Dead experts'};
  for (const [key, name] of Object.entries(names)) {
    if (train[key]) new Chart(charts, {title: name, now: last(train[key]), zero: true}, [{name: key.replaceAll('_', ' '), x, y: train[key], color: 'var(--a)'}]);
  }
  if (report.loads.layers) heat(charts, 'Load of the busiest expert by layer', report.loads.step, report.loads.layers);
  const columns = ['step', 'epoch', 'loss', 'learning_rate', 'grad_norm', 'tokens_per_second'].filter(c => train[c]);
  const row = (tag, cells) => make('tr', {}, ...cells.map(c => make(tag, tag === 'th' ? {scope: 'col'} : {}, c)));
  $('table').append(make('thead', {}, row('th', [...columns.map(c => c.replaceAll('_', ' ')), 'validation'])));
  const every = Math.max(1, Math.ceil(x.length / 100)), body = make('tbody', {});
  x.forEach((step, i) => {
    const e = evals.step.indexOf(step);
    if (i % every && i !== x.length - 1 && e < 0) return;
    body.append(row('td', [...columns.map(c => number(train[c][i])), e < 0 ? '' : number(evals.eval_loss[e])]));
  });
  $('table').append(body);
}
for (const group of report.settings) {
  const list = make('dl', {});
  for (const [name, value, changed] of group.rows) list.append(make('div', changed ? {class: 'set'} : {}, make('dt', {}, name), make('dd', {}, value)));
  $('settings').append(make('section', {}, make('h3', {}, group.name), list));
}
)js"}};

}  // namespace graft
