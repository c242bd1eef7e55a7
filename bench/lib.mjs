// What every benchmark here shares: sampling, interleaved rounds, tables. Depends on nothing.
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';

export const now = () => performance.now();

export function quantile(values, q) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))];
}

export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** Imports contenders given as NAME=FILE. */
export async function loadContenders(specs) {
  const contenders = [];
  for (const spec of specs) {
    const at = spec.indexOf('=');
    if (at < 1) throw new Error(`--contender takes NAME=FILE, got ${spec}`);
    const file = path.resolve(spec.slice(at + 1));
    contenders.push({ name: spec.slice(0, at), file, module: await import(pathToFileURL(file).href) });
  }
  return contenders;
}

/** A fresh folder to work in, under `base` or the system's temporary folder. */
export function scratch(base, tag) {
  const parent = path.resolve(base ?? os.tmpdir());
  fs.mkdirSync(parent, { recursive: true });
  return fs.mkdtempSync(path.join(parent, `bench-${tag}-`));
}

export const wipe = (folder) => fs.rmSync(folder, { recursive: true, force: true });

/** Times fn(i) call by call: at most `count` calls, fewer when `budgetMs` is spent, never under three. */
export async function sample(fn, { count = 40, warmup = 2, budgetMs = 2500 } = {}) {
  for (let i = 0; i < warmup; i++) await fn(-1 - i);
  const times = [];
  const end = now() + budgetMs;
  for (let i = 0; i < count && (now() < end || times.length < 3); i++) {
    const started = now();
    await fn(i);
    times.push(now() - started);
  }
  return times;
}

/** How long a fixed amount of arithmetic takes now: says how much of the machine we have. */
export function calibrate() {
  const times = [];
  for (let round = 0; round < 5; round++) {
    const started = now();
    let x = 1;
    for (let i = 0; i < 5e6; i++) x = (Math.imul(x, 1664525) + 1013904223) | 0;
    times.push(now() - started + (x === 42 ? 1 : 0));
  }
  return median(times);
}

/**
 * Measures every contender in turn, `count` rounds long, so that a drift of the machine hits all of them alike.
 * `measure(contender)` gives times in ms, or { times, extra }, or null when the case is not for that contender.
 * The figure of a contender is the median of its rounds' medians; low..high is the range of those medians: where two
 * ranges overlap there is no winner. `ratio` compares with the first contender round by round.
 */
export async function rounds(contenders, measure, count) {
  const results = new Map(contenders.map(({ name }) => [name, { medians: [], p99: [], means: [], n: 0, extra: null }]));
  for (let round = 0; round < count; round++) {
    const order = contenders.map((_, i) => contenders[(i + round) % contenders.length]);
    for (const contender of order) {
      const result = results.get(contender.name);
      if (result.error) continue;
      try {
        const measured = await measure(contender);
        if (measured === null) continue;
        const times = Array.isArray(measured) ? measured : measured.times;
        result.medians.push(median(times));
        result.p99.push(quantile(times, 0.99));
        result.means.push(times.reduce((a, b) => a + b, 0) / times.length);
        result.n += times.length;
        result.extra = measured.extra ?? result.extra;
      } catch (error) {
        result.error = String(error?.message ?? error).split('\n')[0].slice(0, 160);
      }
    }
  }
  const first = results.get(contenders[0].name);
  return contenders
    .map(({ name }) => ({ name, ...results.get(name) }))
    .filter(({ error, medians }) => error || medians.length > 0)
    .map(({ name, error, medians, p99, means, n, extra }) => {
      if (error) return { contender: name, error };
      const ratios = medians.map((value, i) => value / (first.medians[i] ?? first.medians[0]));
      return {
        contender: name,
        n,
        p50: median(medians),
        p99: median(p99),
        low: Math.min(...medians),
        high: Math.max(...medians),
        perSecond: 1000 / median(means),
        ratio: first.medians.length > 0 ? median(ratios) : undefined,
        extra,
      };
    });
}

export function formatMs(ms) {
  if (ms === undefined || ms === null) return '';
  if (ms >= 1000) return `${(ms / 1000).toFixed(2)} s`;
  if (ms >= 1) return `${ms.toFixed(2)} ms`;
  return `${(ms * 1000).toFixed(1)} µs`;
}

export const formatRate = (x) => (x >= 1e4 ? `${(x / 1e3).toFixed(1)}k` : x >= 100 ? x.toFixed(0) : x.toFixed(1));

/**
 * Prints results as one Markdown table and, with `out`, appends them to a file as JSON lines. `reference` maps a case
 * to what was recorded for another implementation, `ms` or `updates/s`, with the `goals` (times faster, by contender)
 * and the limits (`atMost`, on the first contender's notes) that are checked here.
 */
export class Report {
  constructor(title, { out, reference = {} } = {}) {
    this.title = title;
    this.out = out;
    this.reference = reference;
    this.rows = [];
    this.missed = [];
    this.calibration = calibrate();
    const runtime = process.versions.bun ? `bun ${process.versions.bun}` : `node ${process.versions.node}`;
    const load = os.loadavg()[0].toFixed(1);
    const machine = `${runtime}, ${os.availableParallelism()} cores, load ${load}, calibration ${this.calibration.toFixed(1)} ms`;
    console.log(`\n# ${title}\n${machine}\n`);
    console.log('| case | contender | n | p50 | p99 | ops/s | rounds low..high | vs first | reference | note |');
    console.log('|---|---|---|---|---|---|---|---|---|---|');
  }

  add(name, results) {
    for (const [index, result] of results.entries()) {
      this.rows.push({ bench: this.title, case: name, ...result });
      const cells = [name, result.contender, result.n, formatMs(result.p50), formatMs(result.p99)];
      cells.push(result.perSecond && formatRate(result.perSecond));
      cells.push(result.low === undefined ? '' : `${formatMs(result.low)} .. ${formatMs(result.high)}`);
      cells.push(result.ratio === undefined ? '' : `${result.ratio.toFixed(2)}x`);
      cells.push(this.compare(name, result, index === 0), noteOf(result));
      console.log(`| ${cells.map((cell) => cell ?? '').join(' | ')} |`);
    }
  }

  /** The text of the reference column; remembers missed goals and limits. */
  compare(name, result, first) {
    const reference = this.reference[name];
    const goal = reference?.goals?.[result.contender];
    if (!reference || (!first && !goal)) return '';
    if (result.error) {
      this.missed.push(`${name}, ${result.contender}: ${result.error}`);
      return '';
    }
    for (const [what, limit] of first ? Object.entries(reference.atMost ?? {}) : []) {
      const value = result.extra?.[what];
      if (value > limit) this.missed.push(`${name}: ${what} ${formatNumber(value)}, wanted at most ${limit}`);
    }
    const rate = reference['updates/s'];
    if (!rate && !reference.ms) return '';
    const times = rate ? result.extra['updates/s'] / rate : reference.ms / result.p50;
    if (goal && times < goal) this.missed.push(`${name}, ${result.contender}: ${times.toFixed(1)}x, wanted ${goal}x`);
    const base = rate ? `${rate} updates/s` : formatMs(reference.ms);
    return `${base}: ${times.toFixed(1)}x faster${goal ? ` (goal ${goal}x${times < goal ? ', MISSED' : ''})` : ''}`;
  }

  end() {
    const after = calibrate();
    console.log(`\nnoise: calibration ${this.calibration.toFixed(1)} -> ${after.toFixed(1)} ms; load ${os.loadavg()[0].toFixed(1)}`);
    if (this.out) fs.appendFileSync(path.resolve(this.out), this.rows.map((row) => `${JSON.stringify(row)}\n`).join(''));
    return this.missed;
  }
}

const formatNumber = (x) => (Number.isInteger(x) || x >= 100 ? String(Math.round(x)) : x.toPrecision(3));

function noteOf({ error, extra }) {
  if (error) return `FAILED: ${error}`;
  const show = (value) => (typeof value === 'number' ? formatNumber(value) : value);
  return Object.entries(extra ?? {}).map(([key, value]) => `${key} ${show(value)}`).join(', ');
}

/** A JSON value like the stores of a running app, of about `bytes` bytes when written compactly; `salt` varies it. */
export function payload(bytes, salt = 0) {
  const sessions = [];
  let size = 40;
  for (let i = 0; size < bytes; i++) {
    const session = {
      id: `ses_${(salt * 7919 + i).toString(36).padStart(8, '0')}`,
      member: `member-${i % 12}`,
      runId: `run-${salt % 97}`,
      state: i % 3 ? 'confirmed_alive' : 'starting',
      at: 1700000000000 + i * 37 + salt,
      note: 'x'.repeat(24),
    };
    size += JSON.stringify(session).length + 1;
    sessions.push(session);
  }
  return { salt, sessions };
}

export const sizeName = (bytes) => (bytes >= 1048576 ? `${bytes / 1048576} MB` : `${bytes / 1024} KB`);
