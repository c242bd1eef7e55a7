// What the cases of the session graph share: nodes, graphs that are built once, and a look at the event loop.
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { now, scratch, wipe } from './lib.mjs';

const id = (i) => `node-${String(i).padStart(8, '0')}`;
/** A node of about 0.4 KB. */
const node = (i, parent) => ({ nodeId: id(i), parentNodeId: parent === null ? null : id(parent), timestamp: '2026-01-01T00:00:00Z', payload: { role: 'assistant', index: i, text: 'x'.repeat(300) } });

/** One session that grows: `store.commit` with the next nodes. */
export class Session {
  /** `pad`: more bytes per node. */
  constructor(store, pad = 0) {
    this.store = store;
    this.pad = 'x'.repeat(pad);
    this.count = 0;
    this.revision = 0;
  }

  /** Nodes number `from` and on, each the child of the one before; the first one that of `parent`. */
  nodes(from, count, parent = from > 0 ? from - 1 : null) {
    return Array.from({ length: count }, (_, i) => {
      const made = node(from + i, i === 0 ? parent : from + i - 1);
      made.payload.text += this.pad;
      return made;
    });
  }

  async append(count, parent) {
    const nodes = this.nodes(this.count, count, parent);
    this.count += count;
    this.revision = await this.store.commit(nodes, this.revision);
  }

  /** Commits that are handed in at once, each on top of the one before. */
  appendAtOnce(commits) {
    const all = Array.from({ length: commits }, (_, i) => this.store.commit(this.nodes(this.count + i, 1), this.revision + i));
    this.count += commits;
    this.revision += commits;
    return Promise.all(all);
  }

  async grow(count) {
    while (this.count < count) await this.append(Math.min(5000, count - this.count));
  }
}

export const leafOf = (i) => id(i);

/** Opens a store of each contender that has `needs`, prepares it, runs `use` with all of them, and cleans up. */
export async function withStores(all, options, needs, prepare, use) {
  const opened = [];
  try {
    for (const contender of all) {
      const folders = [];
      const open = async () => {
        const dir = scratch(options.dir, 'graph');
        folders.push(dir);
        const store = await contender.module.openGraph(dir);
        entry.stores.push(store);
        return store;
      };
      const entry = { name: contender.name, stores: [], folders };
      const first = await open();
      opened.push(entry);
      if (typeof first[needs] === 'function') entry.prepared = await prepare(first, open, contender);
    }
    return await use(opened.filter(({ prepared }) => prepared !== undefined));
  } finally {
    for (const { stores, folders } of opened) {
      for (const store of stores) await store.close();
      folders.forEach(wipe);
    }
  }
}

/** Runs `fn`; the longest that the event loop was held up meanwhile, in ms. */
export async function blocked(fn) {
  const delay = monitorEventLoopDelay({ resolution: 1 });
  delay.enable();
  await sleep(10);
  delay.reset();
  // After a reset the first tick is not counted.
  await sleep(5);
  const started = now();
  const result = await fn();
  const took = now() - started;
  // The delay is seen only when the timer comes again.
  await sleep(5);
  delay.disable();
  return { result, took, blockedMs: Math.max(0, delay.max / 1e6 - 1) };
}

/** Runs `fn` beside `other`, which is called again and again until `fn` is through; the times of the calls. */
export async function beside(fn, other) {
  const times = [];
  let over = false;
  const company = (async () => {
    while (!over) {
      const started = now();
      await other();
      times.push(now() - started);
    }
  })();
  const started = now();
  try {
    const result = await fn();
    return { result, took: now() - started, times };
  } finally {
    over = true;
    await company;
  }
}
