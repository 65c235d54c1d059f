#include "graft/train/html_page.h"

#include <fmt/format.h>

namespace graft {
namespace {

constexpr char kStyle[] = R"html(:root {
  --page: #f6f7f6; --card: #ffffff; --ink: #16201c; --ink2: #55625c; --ink3: #7f8a85;
  --line: #e3e7e5; --grid: #ecefed; --axis: #c9d0cc;
  --a: #0f766e; --b: #c2410c; --ring: rgba(15, 118, 110, .35); --shadow: 0 1px 2px rgba(20, 40, 30, .06);
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #101413; --card: #181d1b; --ink: #eef2f0; --ink2: #aab5b0; --ink3: #7d8883;
    --line: #29302d; --grid: #232927; --axis: #3b4440;
    --a: #3fb5a7; --b: #f08a4b; --ring: rgba(63, 181, 167, .4); --shadow: none;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
main { max-width: 1180px; margin: 0 auto; padding: 32px 20px 56px; }
header { margin-bottom: 20px; }
h1 { font-size: 24px; line-height: 1.25; margin: 0; font-weight: 650; letter-spacing: -.01em; overflow-wrap: anywhere; }
header p { margin: 4px 0 0; color: var(--ink2); overflow-wrap: anywhere; }
h2 { font-size: 15px; font-weight: 600; margin: 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(118px, 1fr)); gap: 12px; margin: 0 0 16px; }
.tile, .card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; box-shadow: var(--shadow); }
.tile { padding: 12px 14px; margin: 0; }
.tile dt { color: var(--ink2); font-size: 13px; }
.tile dd { margin: 2px 0 0; font-size: 20px; font-weight: 600; letter-spacing: -.01em; overflow-wrap: anywhere; }
.charts { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 16px; }
.card { padding: 16px 16px 10px; margin: 0; min-width: 0; }
.card.wide { grid-column: 1 / -1; }
.head { display: flex; flex-wrap: wrap; gap: 4px 16px; align-items: center; min-height: 28px; }
.head .now { color: var(--ink2); font-variant-numeric: tabular-nums; margin-left: auto; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 14px; color: var(--ink2); font-size: 13px; }
.legend i { display: inline-block; width: 14px; height: 0; border-top: 2px solid; vertical-align: middle; margin-right: 6px; border-radius: 2px; }
.legend i.dot { width: 8px; height: 8px; border: 0; border-radius: 50%; }
.controls { display: flex; flex-wrap: wrap; gap: 4px 16px; align-items: center; color: var(--ink2); font-size: 13px; margin-left: auto; }
.controls label { display: inline-flex; gap: 6px; align-items: center; }
.controls input { accent-color: var(--a); }
.controls input[type=range] { width: 110px; }
.plot { position: relative; outline: none; border-radius: 6px; touch-action: pan-y; }
.plot:focus-visible { box-shadow: 0 0 0 3px var(--ring); }
svg { display: block; width: 100%; overflow: visible; }
svg text { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif; fill: var(--ink3); font-variant-numeric: tabular-nums; }
.tip {
  position: absolute; top: 4px; pointer-events: none; background: var(--card); border: 1px solid var(--axis); border-radius: 8px;
  padding: 6px 10px; font-size: 13px; white-space: nowrap; font-variant-numeric: tabular-nums; box-shadow: 0 4px 14px rgba(0, 0, 0, .12); z-index: 2;
}
.tip b { font-weight: 600; }
.tip div { display: flex; gap: 12px; justify-content: space-between; }
.tip span { color: var(--ink2); }
details.card { margin-top: 16px; padding: 12px 16px; }
summary { cursor: pointer; font-weight: 600; border-radius: 4px; }
summary:focus-visible { outline: 3px solid var(--ring); outline-offset: 3px; }
.scroll { overflow-x: auto; margin-top: 10px; }
.settings { columns: 3 260px; column-gap: 32px; margin-top: 10px; }
.settings section { break-inside: avoid; margin: 0 0 14px; }
.settings h3 { font-size: 13px; font-weight: 600; color: var(--ink2); margin: 0 0 2px; text-transform: capitalize; }
.settings dl { margin: 0; }
.settings div { display: flex; justify-content: space-between; gap: 16px; padding: 3px 0; border-bottom: 1px solid var(--grid); font-size: 14px; }
.settings dt { color: var(--ink2); }
.settings dd { margin: 0; text-align: right; overflow-wrap: anywhere; }
.settings .set dd { font-weight: 600; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; min-width: 100%; }
th, td { text-align: right; padding: 4px 12px; border-bottom: 1px solid var(--grid); white-space: nowrap; }
th { color: var(--ink2); font-weight: 600; }
.none { color: var(--ink2); padding: 24px 0; }
footer { color: var(--ink3); font-size: 13px; margin-top: 20px; }
@media (max-width: 900px) { .charts { grid-template-columns: repeat(2, minmax(0, 1fr)); } }
@media (max-width: 640px) {
  main { padding: 20px 12px 40px; }
  .charts { grid-template-columns: minmax(0, 1fr); gap: 12px; }
  .tiles { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .controls { margin-left: 0; }
}
@media print { .controls { display: none; } body { background: #fff; } })html";

constexpr char kHelpers[] = R"html(const $ = id => document.getElementById(id);
const make = (tag, attributes, ...children) => {
  const svg = ['svg', 'g', 'path', 'line', 'text', 'circle', 'rect'].includes(tag);
  const e = svg ? document.createElementNS('http://www.w3.org/2000/svg', tag) : document.createElement(tag);
  for (const [k, v] of Object.entries(attributes || {})) e.setAttribute(k, v);
  for (const c of children) e.append(c);
  return e;
};
const number = x => {
  if (x === null || x === undefined || !isFinite(x)) return '–';
  const a = Math.abs(x);
  if (a === 0) return '0';
  if (a >= 1e6) return (x / 1e6).toFixed(a >= 1e8 ? 0 : 2) + 'M';
  if (a >= 1000) return Math.round(x).toLocaleString('en');
  if (a < 1e-3) return x.toExponential(2);
  return String(parseFloat(x.toPrecision(4)));
};
// Few round values that span [low, high].
const ticks = (low, high, count) => {
  const span = high - low || Math.abs(high) || 1;
  const raw = span / count, power = Math.pow(10, Math.floor(Math.log10(raw)));
  const step = [1, 2, 2.5, 5, 10].map(m => m * power).find(s => s >= raw * .999);
  const out = [];
  for (let v = Math.ceil(low / step - 1e-9) * step; v <= high + step * 1e-9; v += step) out.push(Math.abs(v) < step * 1e-9 ? 0 : v);
  return out;
};
const tickText = (v, all) => {
  const a = Math.max(...all.map(Math.abs));
  if (a !== 0 && (a < 1e-2 || a >= 1e7)) return v === 0 ? '0' : String(parseFloat(v.toPrecision(4)).toExponential()).replace('e+', 'e');
  if (a >= 10000) return parseFloat((v / 1000).toPrecision(6)) + 'k';
  return String(parseFloat(v.toPrecision(6)));
};)html";

// "</script>" and "<!--" in a name must not end the script.
std::string script_safe(const std::string& json) {
  std::string out;
  for (const char c : json) {
    if (c == '<') {
      out += "\\u003c";
    } else {
      out += c;
    }
  }
  return out;
}

std::string html_text(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '<') {
      out += "&lt;";
    } else if (c == '&') {
      out += "&amp;";
    } else {
      out += c;
    }
  }
  return out;
}

}  // namespace

std::string html_page(const HtmlPage& page, std::string_view title, const Json& data) {
  return fmt::format(R"html(<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{}</title>
<style>
{}
{}{}</style>
</head>
<body>
<main>
{}</main>
<script>
'use strict';
const report = {};
{}
{}{}</script>
</body>
</html>
)html",
                     html_text(title), kStyle, page.styles[0], page.styles[1], page.body,
                     script_safe(data.dump(-1, ' ', false, Json::error_handler_t::replace)), kHelpers, page.scripts[0],
                     page.scripts[1]);
}

}  // namespace graft
