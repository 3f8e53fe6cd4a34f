'use strict';
// Light and dark, and colours that the colour-blind tell apart (after Okabe and Ito), each at least 3:1 against its ground.

const palettes = {
  light: {
    ink: '#1d2330',
    soft: '#5b6475',
    ground: '#ffffff',
    grid: '#e9ecf1',
    line: '#aab2c0',
    series: ['#0072b2', '#c04a00', '#00805d', '#a8467f', '#7a5c00', '#4b4b9b'],
    // Lightness tells early from late, and many from few, for every eye.
    scale: ['#440154', '#3b528b', '#21918c', '#4fb85f', '#b8a80c'],
  },
  dark: {
    ink: '#e6e9ef',
    soft: '#a3adbd',
    ground: '#1b2029',
    grid: '#2c3340',
    line: '#5d6778',
    series: ['#56b4e9', '#f0884a', '#2fc79b', '#e29ac4', '#e6c04a', '#a9a4f0'],
    scale: ['#7b6fd0', '#5d8fd6', '#3fb8b0', '#8fd96a', '#fde725'],
  },
};

const prefersDark = window.matchMedia('(prefers-color-scheme: dark)');
let printing = false;

/** The reader's choice: auto, light or dark; remembered where the browser lets a page do that. */
const themeChoice = {
  get value() {
    try {
      return localStorage.getItem('dds-theme') ?? 'auto';
    } catch {
      return document.documentElement.dataset.theme ?? 'auto';
    }
  },
  set value(name) {
    try {
      localStorage.setItem('dds-theme', name);
    } catch {
      // A page that was opened from a file may have no storage; the choice then ends with the page.
    }
    document.documentElement.dataset.theme = name;
  }
};
document.documentElement.dataset.theme = themeChoice.value;

function isDark() {
  if (printing) return false;
  return themeChoice.value === 'dark' || (themeChoice.value === 'auto' && prefersDark.matches);
}

/** The colours that hold now. */
function theme() { return palettes[isDark() ? 'dark' : 'light']; }

function seriesColor(i) { return theme().series[i % theme().series.length]; }

/** The colour of number i of n on the scale from early to late. */
function scaleColor(i, n) {
  const stops = theme().scale.map(hex => [1, 3, 5].map(at => parseInt(hex.slice(at, at + 2), 16)));
  const at = (n > 1 ? i / (n - 1) : 0) * (stops.length - 1);
  const k = Math.min(stops.length - 2, Math.floor(at));
  return `rgb(${stops[k].map((c, j) => Math.round(c + (at - k) * (stops[k + 1][j] - c))).join(',')})`;
}
