// Tailing a source: each event once and in order, whatever the source and the listeners do (R65, R66).
import { setTimeout as sleep } from 'node:timers/promises';
import { Broadcaster, CdcPoller, InvalidArgumentError, type ChangeEvent, type ChangeSource } from 'holdfast';
import { afterEach, describe, expect, test } from 'vitest';

import { deferred, eventOf, logBook, rejection, until } from './support';

const pollers: CdcPoller[] = [];
afterEach(async () => {
  await Promise.all(pollers.splice(0).map((poller) => poller.stop()));
});

/** A source over an array, as a program may write one for itself. */
function arraySource(count = 0) {
  const events: ChangeEvent[] = [];
  const reads: number[] = [];
  const failures: unknown[] = [];
  const add = (more: number): void => {
    for (let i = 0; i < more; i++) events.push(eventOf(events.length + 1));
  };
  add(count);
  const source: ChangeSource = {
    async readChangeLogAfter(after, limit = 512) {
      reads.push(after);
      if (failures.length > 0) throw failures.shift();
      return events.filter(({ seq }) => seq > after).slice(0, limit);
    },
    maxChangeLogSeq: async () => events.length,
  };
  return { source, events, reads, failures, add };
}

function polled(source: ChangeSource, options?: ConstructorParameters<typeof CdcPoller>[2]) {
  const broadcaster = new Broadcaster();
  const seqs: number[] = [];
  broadcaster.subscribe(({ seq }) => void seqs.push(seq));
  const poller = new CdcPoller(source, broadcaster, options);
  pollers.push(poller);
  return { broadcaster, seqs, poller };
}

describe('poll', () => {
  test('publishes one batch in order, and nothing twice', async () => {
    const { source } = arraySource(5);
    const { poller, seqs } = polled(source, { batch: 3 });
    expect(poller.lastSeq).toBe(0);
    expect(await poller.poll()).toBe(3);
    expect(poller.lastSeq).toBe(3);
    expect(await poller.poll()).toBe(2);
    expect(await poller.poll()).toBe(0);
    expect(seqs).toEqual([1, 2, 3, 4, 5]);
  });

  test('begins after startSeq, or after the head', async () => {
    const { source, add } = arraySource(5);
    const later = polled(source, { startSeq: 4 });
    expect(await later.poller.poll()).toBe(1);
    expect(later.seqs).toEqual([5]);
    const head = polled(source);
    await head.poller.seekToHead();
    expect(head.poller.lastSeq).toBe(5);
    add(1);
    await head.poller.poll();
    expect(head.seqs).toEqual([6]);
  });

  test('skips what a source repeats', async () => {
    const { source, events } = arraySource(3);
    const { poller, seqs } = polled({ ...source, readChangeLogAfter: async () => [...events, ...events] });
    expect(await poller.poll()).toBe(3);
    expect(await poller.poll()).toBe(0);
    expect(seqs).toEqual([1, 2, 3]);
  });

  test('two at the same time take turns', async () => {
    const { source, reads } = arraySource(4);
    const { poller, seqs } = polled(source, { batch: 2 });
    expect(await Promise.all([poller.poll(), poller.poll(), poller.poll()])).toEqual([2, 2, 0]);
    expect(reads).toEqual([0, 2, 4]);
    expect(seqs).toEqual([1, 2, 3, 4]);
  });

  test('a failed read rejects with its place, which stays', async () => {
    const { source, failures } = arraySource(2);
    const { poller, seqs } = polled(source, { startSeq: 1 });
    const cause = new Error('no disk');
    failures.push(cause);
    const error = await rejection(poller.poll());
    expect(error.message).toBe('cdc poller: read after 1: no disk');
    expect(error.cause).toBe(cause);
    expect(poller.lastSeq).toBe(1);
    expect(await poller.poll()).toBe(1);
    expect(seqs).toEqual([2]);
  });

  test('bad arguments are refused', () => {
    const { source } = arraySource();
    const broadcaster = new Broadcaster();
    for (const options of [{ intervalMs: 0 }, { intervalMs: NaN }, { batch: 0 }, { startSeq: -1 }, { logger: 5 }] as never[]) {
      expect(() => new CdcPoller(source, broadcaster, options)).toThrow(InvalidArgumentError);
    }
    expect(() => new CdcPoller({} as never, broadcaster)).toThrow(/source must be an object with the methods/);
    expect(() => new CdcPoller(source, null as never)).toThrow(InvalidArgumentError);
  });
});

describe('start', () => {
  test('catches up without waiting between full batches, then looks every interval', async () => {
    const { source, reads, add } = arraySource(5000);
    const { poller, seqs } = polled(source, { batch: 100, intervalMs: 400 });
    const begun = performance.now();
    poller.start();
    poller.start();
    await until(() => seqs.length === 5000);
    // 50 waits of 400 ms would be 20 s.
    expect(performance.now() - begun).toBeLessThan(2000);
    await until(() => reads.at(-1) === 5000);
    add(1);
    expect(seqs).toHaveLength(5000);
    await until(() => seqs.length === 5001);
    expect(seqs).toEqual(Array.from({ length: 5001 }, (_, index) => index + 1));
    await poller.stop();
    add(1);
    await sleep(450);
    expect(seqs).toHaveLength(5001);
  });

  test('logs errors, and goes on', async () => {
    const { source, failures } = arraySource(1);
    const { lines, logger } = logBook();
    failures.push(new Error('once'), new Error('twice'));
    const { poller, seqs } = polled(source, { intervalMs: 5, logger });
    poller.start();
    await until(() => seqs.length === 1);
    expect(lines).toEqual(['error cdc poller: read after 0: once', 'error cdc poller: read after 0: twice']);
  });

  test('lends its logger to a broadcaster that has none', async () => {
    const { source } = arraySource(1);
    const { lines, logger } = logBook();
    const { poller, broadcaster } = polled(source, { logger });
    broadcaster.subscribe(() => {
      throw new Error('listener');
    });
    await poller.poll();
    expect(lines).toEqual(['error a listener of changes threw at seq 1: listener']);
  });

  test('a read that never ends does not keep stop() from ending, and what it brings later is not published', async () => {
    const { source, events } = arraySource(2);
    const hung = deferred();
    const slow: ChangeSource = { ...source, readChangeLogAfter: async () => hung.promise.then(() => events) };
    const { poller, seqs } = polled(slow);
    poller.start();
    await sleep(5);
    await poller.stop();
    hung.resolve();
    await sleep(5);
    expect(seqs).toEqual([]);
    expect(poller.lastSeq).toBe(0);
  });

  test('stop() inside a listener ends it after that event', async () => {
    const { source } = arraySource(5);
    const { poller, broadcaster, seqs } = polled(source);
    broadcaster.subscribe(({ seq }) => void (seq === 2 && poller.stop()));
    poller.start();
    await until(() => seqs.length === 2);
    await poller.stop();
    expect(seqs).toEqual([1, 2]);
    poller.start();
    await until(() => seqs.length === 5);
  });

  test('refuses a keepAlive that is no boolean', () => {
    expect(() => polled(arraySource().source).poller.start({ keepAlive: 1 as never })).toThrow(InvalidArgumentError);
  });
});
