#include "experiments/harness/figures.hpp"

#include <fmt/format.h>

#include <cmath>
#include <dds/error.hpp>

#include "src/log/assets.hpp"
#include "src/log/file.hpp"

namespace dds::experiments {
namespace {

using nlohmann::json;

constexpr const char* kStyle = R"(
body { margin: 0 auto; max-width: 1400px; padding: 16px 24px; color: #1d2330;
       font: 15px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 24px; } h2 { font-size: 18px; margin: 28px 0 4px; } p { color: #5b6475; max-width: 110ch; margin: 4px 0 8px; }
table { border-collapse: collapse; font-size: 13px; } td, th { padding: 2px 10px; border-bottom: 1px solid #dfe3ea; }
th { text-align: left; } td.number { text-align: right; font-variant-numeric: tabular-nums; }
.table { max-height: 560px; overflow: auto; }
)";

constexpr const char* kScript = R"(
'use strict';
const colours = ['#2463a8', '#c8501e', '#2e8b57', '#8a4fa3', '#b8860b', '#4a9bb5', '#7a7f8a', '#d1477a', '#1d2330'];
const add = (parent, tag, text) => {
  const element = parent.appendChild(document.createElement(tag));
  if (text !== undefined) element.textContent = text;
  return element;
};
const show = v => typeof v !== 'number' ? v ?? '–' : Number.isInteger(v) ? v : Number(v.toPrecision(4));

function figure(part) {
  const columns = Math.min(part.panels.length, part.panels.length === 4 ? 4 : 3);
  const rows = Math.ceil(part.panels.length / columns);
  const height = 110 + rows * 300, cell = 1 / columns, gap = 0.055;
  const layout = {height, margin: {t: 60, b: 50, l: 70, r: 20}, hovermode: 'closest', annotations: [],
    font: {family: 'system-ui, "DejaVu Sans", sans-serif', size: 12, color: '#1d2330'},
    legend: {orientation: 'h', y: 1 + 50 / (height - 110), yanchor: 'bottom', x: 0}};
  const traces = [], named = new Set();
  part.panels.forEach((panel, i) => {
    const n = i ? i + 1 : '', row = Math.floor(i / columns), column = i % columns;
    const top = 1 - row / rows, x0 = column * cell + (column ? gap / 2 : 0), x1 = (column + 1) * cell - gap / 2;
    const axis = {gridcolor: '#e9ecf1', linecolor: '#aab2c0', showline: true, zeroline: false, ticks: 'outside',
                  exponentformat: 'power', nticks: 7};
    const bottom = row === rows - 1 || i + columns >= part.panels.length;
    layout[`xaxis${n}`] = {...axis, domain: [x0, x1], anchor: `y${n}`, type: part.log_x ? 'log' : 'linear',
      title: {text: bottom ? part.x_title : '', standoff: 6}};
    layout[`yaxis${n}`] = {...axis, domain: [top - (rows > 1 ? 0.8 : 0.97) / rows, top - 0.03 / rows], anchor: `x${n}`,
      type: part.log_y ? 'log' : 'linear', title: {text: column ? '' : part.y_title, standoff: 6}};
    layout.annotations.push({text: `<b>${panel.title}</b>`, x: x0, y: top - 0.03 / rows, xref: 'paper', yref: 'paper',
      xanchor: 'left', yanchor: 'bottom', yshift: 2, showarrow: false});
    for (const c of panel.curves) {
      const fresh = c.name !== '' && !named.has(c.name);
      named.add(c.name);
      traces.push({type: 'scatter', mode: [c.line && 'lines', c.markers && 'markers'].filter(Boolean).join('+'),
        x: c.x, y: c.y, name: c.name, legendgroup: c.name, showlegend: fresh, xaxis: `x${n}`, yaxis: `y${n}`,
        line: {color: colours[c.colour % colours.length], width: c.dashed ? 1.4 : 1.8, dash: c.dashed ? 'dash' : 'solid'},
        marker: {color: colours[c.colour % colours.length], size: 5},
        hovertemplate: `${c.name || panel.title}<br>%{x:.4g}, %{y:.4g}<extra></extra>`});
    }
  });
  Plotly.newPlot(add(document.body, 'div'), traces, layout, {displaylogo: false, responsive: true});
}

function table(part) {
  const box = add(document.body, 'div');
  box.className = 'table';
  const element = add(box, 'table'), head = add(element, 'tr');
  for (const column of part.columns) add(head, 'th', column);
  for (const cells of part.rows) {
    const row = add(element, 'tr');
    for (const cell of cells) add(row, 'td', show(cell)).className = typeof cell === 'number' ? 'number' : '';
  }
}

for (const part of parts) {
  add(document.body, 'h2', part.title);
  add(document.body, 'p', part.caption);
  part.panels ? figure(part) : table(part);
}
)";

std::string csv_cell(const json& cell) {
  if (cell.is_null()) return "";
  if (!cell.is_string()) return cell.dump();
  const auto text = cell.get<std::string>();
  if (text.find_first_of(",\"\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + '"';
}

/// JSON that may stand within a <script> element.
std::string script_safe(const json& value) {
  std::string safe;
  for (const char c : value.dump()) safe += c == '<' ? std::string("\\u003c") : std::string(1, c);
  return safe;
}

}  // namespace

void write_csv(const std::filesystem::path& path, const Table& table) {
  std::string text;
  const auto line = [&](const auto& cells) {
    for (std::size_t i = 0; i < cells.size(); ++i) {
      if (i > 0) text += ',';
      text += csv_cell(cells[i]);
    }
    text += '\n';
  };
  line(table.columns);
  for (const auto& row : table.rows) line(row);
  log::replace_file(path, text);
}

void Page::add(const Figure& figure) {
  json panels = json::array();
  for (const Panel& panel : figure.panels) {
    json curves = json::array();
    for (const Curve& curve : panel.curves) {
      curves.push_back({{"name", curve.name},
                        {"x", curve.x},
                        {"y", curve.y},
                        {"colour", curve.colour},
                        {"line", curve.line},
                        {"markers", curve.markers},
                        {"dashed", curve.dashed}});
    }
    panels.push_back({{"title", panel.title}, {"curves", curves}});
  }
  parts_.push_back({{"title", figure.title},
                    {"caption", figure.caption},
                    {"x_title", figure.x_title},
                    {"y_title", figure.y_title},
                    {"log_x", figure.log_x},
                    {"log_y", figure.log_y},
                    {"panels", panels}});
}

void Page::add(const std::string& title, const std::string& caption, const Table& table) {
  parts_.push_back({{"title", title}, {"caption", caption}, {"columns", table.columns}, {"rows", table.rows}});
}

void Page::write(const std::filesystem::path& path) const {
  std::string page = fmt::format(
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{0}</title><style>{1}</style>\n<script>",
      title_, kStyle);
  page += log::asset::plotly();
  page += fmt::format("</script></head>\n<body><h1>{}</h1>\n<script>const parts = ", title_);
  page += script_safe(parts_) + ";" + kScript + "</script></body></html>\n";
  log::replace_file(path, page);
}

std::vector<double> log_spaced(double first, double last, std::size_t n) {
  std::vector<double> values;
  for (std::size_t i = 0; i < n; ++i) {
    values.push_back(first * std::pow(last / first, static_cast<double>(i) / static_cast<double>(n - 1)));
  }
  return values;
}

}  // namespace dds::experiments
