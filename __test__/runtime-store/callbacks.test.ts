/** R7, R31, E8, E9: the caller's functions run on the caller's thread, in order, in their context, and their errors pass through. */
import { AsyncLocalStorage } from 'node:async_hooks';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';

import {
  createRuntimeStoreManifestStore,
  createRuntimeStoreReceiptStore,
  RuntimeStoreBatchWriter,
  VersionedJsonStore,
  withFileLock,
  withFileLockSync,
  type RuntimeStoreBatchWriterOptions,
  type VersionedJsonStoreOptions,
} from 'holdfast';
import { beforeEach, describe, expect, it } from 'vitest';

import { EXPECTED, fixedClock, IDENTITY, LAUNCH, openRuntime, rejection, SESSIONS, tempDir, tree } from './support';

let dir: string;
beforeEach(() => {
  dir = tempDir();
});

const open = (more: Partial<VersionedJsonStoreOptions<number>> = {}) =>
  new VersionedJsonStore<number>({ filePath: join(dir, 'store.json'), schemaVersion: 1, defaultData: () => 0, validate: Number, clock: fixedClock, ...more });
const bang = Object.freeze({ reason: 'not even an Error' });
const thrower = () => {
  throw bang;
};

describe('what a callback throws is what arrives', () => {
  it('of a store: updater, validate, defaultData, clock; and nothing is written', async () => {
    for (const broken of [open({ validate: thrower }), open({ defaultData: thrower }), open({ clock: thrower })]) {
      expect(await rejection(broken.updateLocked((n) => n + 1))).toBe(bang);
    }
    for (const updater of [thrower, async () => thrower(), () => Promise.reject(bang), () => ({ then: (_: unknown, reject: (error: unknown) => void) => reject(bang) }) as unknown as number]) {
      expect(await rejection(open().updateLocked(updater))).toBe(bang);
    }
  });

  it('of a writer: factories, its clock, the stores\' clocks, toJSON; and nothing is touched', async () => {
    const before = tree(dir);
    const options: RuntimeStoreBatchWriterOptions[] = [{ batchIdFactory: thrower }, { receiptIdFactory: thrower }, { clock: thrower }];
    for (const writer of options) expect(await rejection(openRuntime(dir, { writer }).writePair('new'))).toBe(bang);
    for (const broken of ['manifest', 'receipts']) {
      const manifestStore = createRuntimeStoreManifestStore({ filePath: join(dir, 'm.json'), teamName: 'team-a', clock: broken === 'manifest' ? thrower : fixedClock });
      const receiptStore = createRuntimeStoreReceiptStore({ filePath: join(dir, 'r.json'), clock: broken === 'receipts' ? thrower : fixedClock });
      const writer = new RuntimeStoreBatchWriter(dir, manifestStore, receiptStore);
      expect(await rejection(writer.writeBatch({ teamName: 'team-a', ...IDENTITY, reason: 'recovery', writes: [] }))).toBe(bang);
    }
    expect(await rejection(openRuntime(dir).write([[LAUNCH, { toJSON: thrower }]]))).toBe(bang);
    expect(tree(dir)).toEqual(before);
  });

  it('of a planner and an executor: plan ids and clocks', async () => {
    for (const planner of [{ planIdFactory: thrower }, { clock: thrower }]) expect(await rejection(openRuntime(dir, { planner }).plan())).toBe(bang);
    expect(await rejection(openRuntime(dir, { executor: { clock: thrower } }).recover())).toBe(bang);
    expect(tree(dir)).toEqual({});
  });

  it('a store works on after an error of a callback', async () => {
    const store = open();
    for (let i = 0; i < 20; i++) {
      await rejection(store.updateLocked(thrower));
      await store.updateLocked((n) => n + 1);
    }
    expect(await store.read()).toMatchObject({ data: 20 });
  });
});

describe('what a callback returns is checked', () => {
  const invalid = { hfCode: 'HF_INVALID_ARGUMENT' };
  it.each([
    ['clock: an invalid date', { clock: () => new Date(NaN) }],
    ['clock: a number', { clock: () => 5 as never }],
    ['clock: a promise', { clock: async () => new Date() } as never],
    ['batchIdFactory: blank', { batchIdFactory: () => '  ' }],
    ['batchIdFactory: a promise', { batchIdFactory: async () => 'x' } as never],
    ['receiptIdFactory: nothing', { receiptIdFactory: () => undefined as never }],
  ] as [string, RuntimeStoreBatchWriterOptions][])('%s', async (_, writer) => {
    expect(await rejection(openRuntime(dir, { writer }).writePair('new'))).toMatchObject(invalid);
    expect(tree(dir)).toEqual({});
  });

  it('a store\'s clock, a plan id', async () => {
    expect(await rejection(open({ clock: () => new Date(NaN) }).updateLocked(() => 1))).toMatchObject(invalid);
    expect(await rejection(openRuntime(dir, { planner: { planIdFactory: () => '' } }).plan())).toMatchObject(invalid);
    expect(tree(dir)).toEqual({});
  });

  it('a Date of another realm is a date', async () => {
    const { runInNewContext } = await import('node:vm');
    const clock = () => runInNewContext('new Date(0)') as Date;
    expect((await open({ clock }).updateLocked(() => 1)).envelope.updatedAt).toBe('1970-01-01T00:00:00.000Z');
  });
});

describe('context and order', () => {
  it('AsyncLocalStorage of the caller reaches updater, validate, fn, rebuild and beforeCommit, each caller its own', async () => {
    const storage = new AsyncLocalStorage<string>();
    const seen: (string | undefined)[] = [];
    const look = () => void seen.push(storage.getStore());
    await Promise.all(
      ['a', 'b', 'c'].map((name) =>
        storage.run(name, async () => {
          const store = new VersionedJsonStore<string>({
            filePath: join(dir, 'shared.json'), schemaVersion: 1, defaultData: () => '', clock: fixedClock,
            validate: (value) => (look(), String(value)),
          });
          await store.updateLocked(async (text) => {
            look();
            await new Promise((resolve) => setTimeout(resolve, 2));
            expect(storage.getStore()).toBe(name);
            return text + name;
          });
          await withFileLock(join(dir, 'lock'), async () => look());
          withFileLockSync(join(dir, `lock-${name}`), look);
          expect(storage.getStore()).toBe(name);
          seen.splice(0).forEach((each) => expect(['a', 'b', 'c']).toContain(each));
        }),
      ),
    );
    const store = openRuntime(dir, { executor: { rebuild: { none: async () => (look(), 'skip') } } });
    await storage.run('recovering', () => store.recover());
    expect(seen).toEqual(['recovering']);
  });

  it('R31: batch id, start, per write its time, its serialisation and its receipt id, then the end; all before any lock', async () => {
    const order: string[] = [];
    const note = (what: string) => {
      order.push(what);
      expect(readdirSync(dir)).toEqual([]);
    };
    const store = openRuntime(dir, {
      writer: {
        batchIdFactory: () => (note('batch id'), 'b'),
        receiptIdFactory: () => (note('receipt id'), `r${order.length}`),
        clock: () => (note('clock'), fixedClock()),
      },
    });
    await store.write([[LAUNCH, { toJSON: () => (note('toJSON'), 1) }], [SESSIONS, { toJSON: () => (note('toJSON'), 2) }]]);
    expect(order).toEqual(['batch id', 'clock', 'clock', 'toJSON', 'receipt id', 'clock', 'toJSON', 'receipt id', 'clock']);
  });

  it('the times of a ticking clock go where R31 says', async () => {
    let tick = 0;
    const clock = () => new Date(1000 * tick++);
    const at = (n: number) => new Date(1000 * n).toISOString();
    const batch = await openRuntime(dir, { writer: { clock } }).writePair('new');
    expect([batch.startedAt, ...batch.receipts.map(({ writtenAt }) => writtenAt), batch.completedAt]).toEqual([at(0), at(1), at(2), at(3)]);
  });

  it('the updater runs once per update, validate on what was read and on what is written', async () => {
    const calls: string[] = [];
    await open({ validate: (value) => (calls.push(`validate ${value}`), Number(value)) }).updateLocked((n) => (calls.push(`update ${n}`), n + 5));
    expect(calls).toEqual(['validate 0', 'update 0', 'validate 5']);
  });

  it('callbacks may use the same stores, as long as they take no lock that is held', async () => {
    const store = openRuntime(dir);
    await withFileLock(join(dir, 'unrelated'), () => store.writePair('inside'));
    await open().updateLocked(async (n) => {
      await store.writePair('inside an update');
      expect((await store.planner.buildPlan(EXPECTED)).manifestHealthy).toBe(true);
      return n + 1;
    });
    expect((await store.manifestStore.read()).highWatermark).toBe(2);
  });

  it('a batch inside the lock of one of its own stores uses that lock, and outside it would wait', async () => {
    const store = openRuntime(dir, { lockOptions: { acquireTimeoutMs: 300 } });
    const target = join(dir, LAUNCH.relativePath);
    await withFileLock(target, async () => {
      expect(await store.writePair('inside')).toMatchObject({ state: 'committed' });
    });
    let release = () => {};
    const held = withFileLock(target, () => new Promise<void>((resolve) => (release = resolve)));
    expect(await rejection(store.writePair('outside'))).toMatchObject({ hfCode: 'HF_LOCK_TIMEOUT' });
    release();
    await held;
    expect(await store.writePair('later')).toMatchObject({ state: 'committed' });
  });
});
