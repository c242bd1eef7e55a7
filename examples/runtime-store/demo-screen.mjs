// What the demo shows: one line that is rewritten in a terminal, a line a second elsewhere, and a table at the end.
const terminal = process.stdout.isTTY === true;
const colours = terminal && process.env.NO_COLOR === undefined && process.env.TERM !== 'dumb';
const paint = (code, text) => (colours && text !== '' ? `\x1b[${code}m${text}\x1b[0m` : text);

export const bold = (text) => paint(1, text);
export const dim = (text) => paint(2, text);
export const green = (text) => paint(32, text);
export const red = (text) => paint(31, text);
export const count = (number) => number.toLocaleString('en-US');

let shownAt = -Infinity;

/** Shows how far the demo is. Elsewhere than in a terminal at most once a second. */
export function progress({ elapsedMs, totalMs, kills, acknowledged, forwards, backs, lost, event }) {
  const seconds = `${(elapsedMs / 1000).toFixed(1).padStart(5)} s`;
  const numbers = [
    `kills ${String(kills).padStart(3)}`,
    `batches ${count(acknowledged).padStart(6)}`,
    `roll-forwards ${String(forwards).padStart(2)}`,
    `roll-backs ${String(backs).padStart(2)}`,
    `lost ${lost}`,
  ].join('   ');
  if (!terminal) {
    if (elapsedMs - shownAt < 1000) return;
    shownAt = elapsedMs;
    console.log(`${seconds}   ${numbers}`);
    return;
  }
  const filled = Math.min(20, Math.round((elapsedMs / totalMs) * 20));
  const line = `${'█'.repeat(filled)}${'░'.repeat(20 - filled)} ${seconds}   ${numbers}   ${event}`;
  const width = Math.max(20, (process.stdout.columns ?? 80) - 1);
  process.stdout.write(`\r\x1b[K${line.slice(0, width)}`);
}

/** Clears the line that `progress` rewrites, or sets what follows apart from the lines. */
export function endProgress() {
  process.stdout.write(terminal ? '\r\x1b[K' : '\n');
}

/** Prints rows of name, figure and remark, aligned. */
export function table(rows) {
  const names = Math.max(...rows.map(([name]) => name.length));
  const figures = Math.max(...rows.map(([, figure]) => figure.length));
  for (const [name, figure, remark = '', colour = (text) => text] of rows) {
    console.log(`  ${name.padEnd(names)}  ${colour(figure.padStart(figures))}  ${dim(remark)}`.trimEnd());
  }
}

/** Returns the value below which the share `q` of the values lies. */
export function quantile(values, q) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.ceil(q * sorted.length) - 1)] ?? NaN;
}
