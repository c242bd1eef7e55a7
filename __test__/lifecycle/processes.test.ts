// @pool forks: what counts happens in processes of its own.
// Several processes on one database at once (checks 32 and 34; T7).
import { statSync } from 'node:fs';
import { join } from 'node:path';

import { openSessionStore, type ChangeEvent } from 'holdfast';
import { describe, expect, test } from 'vitest';

import { SHARED, start } from './children';
import { soon } from './hostile';
import { tempDir, until } from './support';

const counting = (from: number, to: number): number[] => Array.from({ length: to - from + 1 }, (_, at) => from + at);

describe.each(SHARED)('on $name', ({ make }) => {
  test('32: eight processes open an empty place at once, and create 20 sessions each', async () => {
    const place = await make();
    const children = counting(1, 8).map(() => start(place, 'create', '20'));
    // Each has loaded the addon and opened the store; the first of them has made it.
    await Promise.all(children.map((child) => child.line('ready')));
    for (const child of children) child.send('go');
    const made = await Promise.all(children.map(async (child) => JSON.parse(await child.line('made')) as { ids: string[]; version: number }));
    for (const child of children) expect(await child.ended).toEqual({ code: 0, signal: null, err: '' });
    const ids = made.flatMap((one) => one.ids);
    expect(new Set(made.map(({ version }) => version)).size).toBe(1);
    expect(ids.map((id) => Number(id.slice(4))).sort((a, b) => a - b)).toEqual(counting(1, 160));

    await using store = await openSessionStore(place);
    expect((await store.listAllSessions()).map(({ num }) => num)).toEqual(counting(1, 160));
    const events = await store.readChangeLogAfter(0, 1000);
    expect(new Set(events.map(({ seq }) => seq)).size).toBe(160);
    expect(events.map(({ sessionId }) => sessionId).sort()).toEqual([...ids].sort());
    expect(await store.check()).toEqual({ sound: true, problems: [] });
  });

  test('32: twenty calls in one process open an empty place at once', async () => {
    const place = await make();
    const stores = await Promise.all(counting(1, 20).map(() => openSessionStore(place)));
    await stores[0]!.upsertProject({ id: 'mer', path: '/' });
    const made = await Promise.all(stores.flatMap((store) => counting(1, 5).map(() => store.createSession({ projectId: 'mer' }))));
    expect(made.map(({ num }) => num).sort((a, b) => a - b)).toEqual(counting(1, 100));
    // What one has stored every other one sees at once.
    await stores[3]!.patchSessionMetadata('mer-7', { branch: 'b' });
    for (const store of stores) expect((await store.getSession('mer-7'))!.metadata.branch).toBe('b');
    await Promise.all(stores.map((store) => store.close()));
  });

  test('a process that is stopped in the middle of a write: others read on, write or are told so, and go on when it does', async () => {
    const place = await make();
    await using store = await openSessionStore({ ...place, ...(place.dataDir !== undefined && { busyTimeoutMs: 150 }) });
    await store.upsertProject({ id: 'mer', path: '/' });
    const child = start(place, 'load', '1');
    await child.line('ack');
    const outcomes: string[] = [];
    for (let round = 0; round < 6; round++) {
      child.process.kill('SIGSTOP');
      expect((await soon(store.listAllSessions(), 'reading', 2000)).length).toBeGreaterThan(0);
      // PostgreSQL waits for a lock as long as it takes; there each session has its own.
      if (place.dataDir !== undefined) {
        outcomes.push(await soon(store.createSession({ projectId: 'mer' }), 'writing', 5000).then(() => 'done', (error) => error.hfCode));
      }
      child.process.kill('SIGCONT');
      // It writes without pause, so that 150 ms may be too short.
      await until(() => store.createSession({ projectId: 'mer' }).then(() => true, ({ hfCode }) => (expect(hfCode).toBe('HF_BUSY'), false)));
    }
    for (const outcome of outcomes) expect(['done', 'HF_BUSY']).toContain(outcome);
    await child.kill();
    expect(await store.check()).toEqual({ sound: true, problems: [] });
  });

  test('34: two processes probe one session 100 times each: no update is lost', async () => {
    const place = await make();
    await using store = await openSessionStore(place);
    await store.upsertProject({ id: 'mer', path: '/src/mer' });
    const session = await store.createSession({ projectId: 'mer', lifecycle: { state: 'working', isAlive: true } });
    const children = [1, 2].map(() => start(place, 'probes', 'mer-1', '100'));
    await Promise.all(children.map((child) => child.line('ready')));
    for (const child of children) child.send('go');
    await Promise.all(children.map((child) => child.line('done')));
    const after = (await store.getSession('mer-1'))!;
    // working → detecting 1 → detecting 2 → stuck; the other 197 changed nothing. Only a lost update could make it differ.
    expect(after.lifecycle).toMatchObject({ state: 'stuck', detecting: null, isAlive: true });
    expect(after.revision - session.revision).toBe(3);
    const states = (await store.readChangeLogAfter(0)).map(({ payload }) => (payload as { state: string }).state);
    expect(states).toEqual(['working', 'detecting', 'stuck']);
    // One page, whoever found it out.
    const pages = children.flatMap((child) => child.lines.filter((line) => line.startsWith('call notifier.notify')));
    expect(pages).toEqual(['call notifier.notify reaction.agent-stuck']);
  });

  test('34: two stores write one session in turn and at once: the revision counts every written change', async () => {
    const place = await make();
    await using a = await openSessionStore(place);
    await using b = await openSessionStore(place);
    await a.upsertProject({ id: 'mer', path: '/' });
    await a.createSession({ projectId: 'mer' });
    await Promise.all(counting(1, 100).flatMap((n) => [a.patchSessionMetadata('mer-1', { branch: `a${n}` }), b.patchSessionMetadata('mer-1', { prompt: `b${n}` })]));
    const record = (await b.getSession('mer-1'))!;
    expect(record.revision).toBe(200);
    expect(record.metadata).toMatchObject({ branch: expect.stringMatching(/^a\d+$/), prompt: expect.stringMatching(/^b\d+$/) });
    // Of those who write what they have read, one wins each revision.
    const attempts = await Promise.allSettled(
      counting(1, 40).map((n) => (n % 2 === 0 ? a : b).updateSession({ ...record, issueId: `i${n}` }, { expectedRevision: record.revision })),
    );
    expect(attempts.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
    for (const attempt of attempts) if (attempt.status === 'rejected') expect(attempt.reason).toMatchObject({ hfCode: 'HF_LIFECYCLE_STALE_RECORD' });
    expect((await a.getSession('mer-1'))!.revision).toBe(201);
  });

  test('a reader in another process never finds a seq below one that it has seen, and misses none', async () => {
    const place = await make();
    await using reader = await openSessionStore(place);
    const children = [1, 2, 3].map(() => start(place, 'create', '60'));
    await Promise.all(children.map((child) => child.line('ready')));
    const seen: ChangeEvent[] = [];
    let over = false;
    const reading = (async () => {
      while (!over) seen.push(...(await reader.readChangeLogAfter(seen.at(-1)?.seq ?? 0, 7)));
    })();
    for (const child of children) child.send('go');
    await Promise.all(children.map((child) => child.line('made')));
    const head = await reader.maxChangeLogSeq();
    await until(() => seen.at(-1)?.seq === head);
    over = true;
    await reading;
    const seqs = seen.map(({ seq }) => seq);
    expect(seqs).toEqual([...seqs].sort((x, y) => x - y));
    expect(new Set(seen.map(({ sessionId }) => sessionId)).size).toBe(180);
    // What came in pieces is what is there.
    expect(seqs).toEqual((await reader.readChangeLogAfter(0, 1000)).map(({ seq }) => seq));
  });
});

test('the folder and the file are their owner’s alone', async () => {
  const root = tempDir();
  await using store = await openSessionStore(join(root, 'a', 'b'));
  await store.upsertProject({ id: 'mer', path: '/' });
  const mode = (path: string): number => statSync(join(root, path)).mode & 0o777;
  expect([mode('a'), mode('a/b'), mode('a/b/sessions.db'), mode('a/b/sessions.db-wal')]).toEqual([0o700, 0o700, 0o600, 0o600]);
});
