// Fan-out within a process: one reader's trouble is nobody else's (checks 35 and 36, R67, R68).
import { AsyncLocalStorage } from 'node:async_hooks';
import { Broadcaster, InvalidArgumentError, SubscriberOverflowError, type ChangeEvent } from 'holdfast';
import { describe, expect, test } from 'vitest';

import { eventOf, logBook, rejection, until } from './support';

function publish(broadcaster: Broadcaster, ...seqs: number[]): void {
  for (const seq of seqs) broadcaster.publish(eventOf(seq));
}

describe('listeners', () => {
  test('are called in the order of their subscriptions, each time', () => {
    const broadcaster = new Broadcaster();
    const heard: string[] = [];
    for (const name of ['a', 'b', 'c', 'd']) broadcaster.subscribe(({ seq }) => void heard.push(`${name}${seq}`));
    publish(broadcaster, 1, 2);
    expect(heard).toEqual(['a1', 'b1', 'c1', 'd1', 'a2', 'b2', 'c2', 'd2']);
  });

  test('one that throws, and one that rejects, are logged with the seq and disturb nobody', async () => {
    const { lines, logger } = logBook();
    const broadcaster = new Broadcaster({ logger });
    const heard: number[] = [];
    broadcaster.subscribe(() => {
      throw new Error('thrown');
    });
    broadcaster.subscribe(async () => Promise.reject(new Error('rejected')));
    broadcaster.subscribe(({ seq }) => void heard.push(seq));
    publish(broadcaster, 7, 8);
    expect(heard).toEqual([7, 8]);
    await until(() => lines.length === 4);
    expect(lines.sort()).toEqual([7, 8].flatMap((seq) => [`error a listener of changes threw at seq ${seq}: rejected`, `error a listener of changes threw at seq ${seq}: thrown`]).sort());
  });

  test('a logger that throws disturbs nobody either', () => {
    const fail = (): never => {
      throw new Error('no log');
    };
    const broadcaster = new Broadcaster({ logger: { debug: fail, info: fail, warn: fail, error: fail } });
    const heard: number[] = [];
    broadcaster.subscribe(fail);
    broadcaster.subscribe(({ seq }) => void heard.push(seq));
    publish(broadcaster, 1);
    expect(heard).toEqual([1]);
  });

  test('who leaves inside a listener gets nothing more, who comes begins with the next event', () => {
    const broadcaster = new Broadcaster();
    const heard: string[] = [];
    const leave: (() => void)[] = [];
    broadcaster.subscribe(({ seq }) => {
      heard.push(`first${seq}`);
      if (seq !== 1) return;
      leave.forEach((each) => each());
      broadcaster.subscribe((event) => void heard.push(`new${event.seq}`));
    });
    leave.push(broadcaster.subscribe(({ seq }) => void heard.push(`second${seq}`)));
    const own = broadcaster.subscribe(({ seq }) => {
      heard.push(`own${seq}`);
      own();
      own();
    });
    publish(broadcaster, 1, 2);
    expect(heard).toEqual(['first1', 'own1', 'first2', 'new2']);
    expect(broadcaster.subscriberCount).toBe(2);
  });

  test('the same function twice is two listeners', () => {
    const broadcaster = new Broadcaster();
    let count = 0;
    const listener = (): void => void count++;
    const leave = broadcaster.subscribe(listener);
    broadcaster.subscribe(listener);
    publish(broadcaster, 1);
    leave();
    publish(broadcaster, 2);
    expect(count).toBe(3);
  });

  test('10,000 subscribers, of which one is slow and one throws: all others hear all of it in time', async () => {
    const broadcaster = new Broadcaster();
    let heard = 0;
    const slow = broadcaster.subscribe({ buffer: 10 });
    broadcaster.subscribe(() => {
      throw new Error('always');
    });
    for (let i = 2; i < 10_000; i++) broadcaster.subscribe(() => void heard++);
    const begun = performance.now();
    for (let seq = 1; seq <= 100; seq++) publish(broadcaster, seq);
    expect(performance.now() - begun).toBeLessThan(2000);
    expect(heard).toBe(9998 * 100);
    for (let seq = 1; seq <= 10; seq++) expect((await slow.next()).value.seq).toBe(seq);
    expect(await rejection(slow.next())).toBeInstanceOf(SubscriberOverflowError);
    expect(broadcaster.subscriberCount).toBe(9999);
  });

  test('what is no listener is refused', () => {
    const broadcaster = new Broadcaster();
    for (const bad of [5, null, 'x', { buffer: 0 }, { buffer: 1.5 }, { projectId: 7 }, { signal: {} }] as never[]) {
      expect(() => broadcaster.subscribe(bad)).toThrow(InvalidArgumentError);
    }
    expect(() => new Broadcaster({ logger: {} as never })).toThrow(/options.logger must be/);
    expect(broadcaster.subscriberCount).toBe(0);
  });
});

describe('an iterator', () => {
  test('hands out what was published while nobody asked, then what comes', async () => {
    const broadcaster = new Broadcaster();
    const changes = broadcaster.subscribe();
    publish(broadcaster, 1, 2);
    expect(changes.lastSeq).toBe(0);
    const third = [changes.next(), changes.next(), changes.next()];
    publish(broadcaster, 3);
    const seqs = (await Promise.all(third)).map(({ value }) => (value as ChangeEvent).seq);
    expect(seqs).toEqual([1, 2, 3]);
    expect(changes.lastSeq).toBe(3);
  });

  test('a full buffer ends it with the seq to read on from, after what it holds; nobody else notices', async () => {
    const broadcaster = new Broadcaster();
    const heard: number[] = [];
    const changes = broadcaster.subscribe({ buffer: 4 });
    broadcaster.subscribe(({ seq }) => void heard.push(seq));
    publish(broadcaster, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10);
    expect(heard).toHaveLength(10);
    const seqs: number[] = [];
    const error = await rejection(
      (async () => {
        for await (const { seq } of changes) seqs.push(seq);
      })(),
    );
    expect(seqs).toEqual([1, 2, 3, 4]);
    expect(error).toBeInstanceOf(SubscriberOverflowError);
    expect(error).toMatchObject({ hfCode: 'HF_LIFECYCLE_SUBSCRIBER_OVERFLOW', code: 'HF_LIFECYCLE_SUBSCRIBER_OVERFLOW', lastSeq: 4, buffer: 4 });
    expect(await changes.next()).toEqual({ done: true, value: undefined });
    expect(broadcaster.subscriberCount).toBe(1);
  });

  test('only hears its project, and only that fills its buffer', async () => {
    const broadcaster = new Broadcaster();
    const changes = broadcaster.subscribe({ projectId: 'b', buffer: 1 });
    for (let seq = 1; seq <= 5; seq++) broadcaster.publish(eventOf(seq, seq === 3 ? 'b' : 'a'));
    expect((await changes.next()).value.seq).toBe(3);
  });

  test.each(['return', 'break', 'signal', 'dispose'])('%s unsubscribes, ends waiting readers and drops what waits', async (how) => {
    const broadcaster = new Broadcaster();
    const controller = new AbortController();
    const changes = broadcaster.subscribe({ signal: controller.signal });
    expect(broadcaster.subscriberCount).toBe(1);
    const waiting = how === 'break' ? undefined : changes.next();
    if (how === 'return') await changes.return();
    if (how === 'signal') controller.abort();
    if (how === 'dispose') await changes[Symbol.asyncDispose]();
    if (how === 'break') {
      publish(broadcaster, 1, 2);
      for await (const { seq } of changes) if (seq === 1) break;
    } else {
      expect(await waiting).toEqual({ done: true, value: undefined });
    }
    publish(broadcaster, 3);
    expect(await changes.next()).toEqual({ done: true, value: undefined });
    expect(broadcaster.subscriberCount).toBe(0);
  });

  test('a signal that has aborted before subscribes nobody', async () => {
    const broadcaster = new Broadcaster();
    const changes = broadcaster.subscribe({ signal: AbortSignal.abort() });
    expect(broadcaster.subscriberCount).toBe(0);
    expect((await changes.next()).done).toBe(true);
  });

  test('keeps the reader in its own async context', async () => {
    const storage = new AsyncLocalStorage<string>();
    const broadcaster = new Broadcaster();
    const changes = broadcaster.subscribe();
    const seen = storage.run('reader', async () => {
      await changes.next();
      return storage.getStore();
    });
    storage.run('publisher', () => publish(broadcaster, 1));
    expect(await seen).toBe('reader');
  });
});
