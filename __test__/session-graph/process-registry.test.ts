// @pool forks: some of it happens in processes of its own.
/** Processes, their events, handles and leases. */
import { statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import {
  ProcessRegistryStore,
  SessionGraphStore,
  type JsonValue,
  type ProcessEventType,
  type ProcessRegistration,
  type ProcessRegistryOptions,
  type ProcessScope,
} from 'holdfast';
import { afterEach, describe, expect, test } from 'vitest';

import { failure, newFile, race, raw, startFixture, tempDir } from './support';

const stores: ProcessRegistryStore[] = [];
afterEach(async () => {
  await Promise.all(stores.splice(0).map((store) => store.close()));
});

async function kept(opening: Promise<ProcessRegistryStore>): Promise<ProcessRegistryStore> {
  const store = await opening;
  stores.push(store);
  return store;
}

const open = (path = newFile(), options?: ProcessRegistryOptions): Promise<ProcessRegistryStore> => kept(ProcessRegistryStore.open(path, options));

const tick: ProcessEventType = { name: 'tick' };
const owner: ProcessScope = { sessionId: 's' };
const over = { type: 'success', value: null } as const;

function registration(id = 'p', eventTypes: ProcessEventType[] = [tick], more: Partial<ProcessRegistration> = {}): ProcessRegistration {
  return { id, input: { of: id }, eventTypes, provenance: { ownerScope: owner, hostProfileId: 'local' }, ...more };
}

/** What a refused call says. */
async function said(promise: Promise<unknown>): Promise<string> {
  const { name, hfCode, message } = await failure(promise);
  expect([name, hfCode]).toEqual(['ProcessRegistryError', 'HF_GRAPH_PROCESS_REGISTRY']);
  return message;
}

const KINDS: { name: string; make: (options?: ProcessRegistryOptions) => Promise<ProcessRegistryStore> }[] = [
  { name: 'file', make: (options) => open(newFile(), options) },
  { name: 'memory', make: (options) => kept(ProcessRegistryStore.memory(options)) },
];

describe.each(KINDS)('$name', ({ make }) => {
  test('a process is registered once, whoever does it', async () => {
    const store = await make();
    expect(await store.getProcess('p')).toBeNull();
    const first = await store.registerProcess(registration('p', [tick, { name: 'tock', payloadSchema: true }], { input: { a: 1, b: [1.5, 'ä'] } }));
    expect(first).toMatchObject({ id: 'p', input: { a: 1, b: [1.5, 'ä'] }, status: 'running', provenance: { ownerScope: owner, hostProfileId: 'local' } });
    expect(first.registrationHash).toMatch(/^[0-9a-f]{64}$/);
    expect(first.createdAtMs).toBe(first.updatedAtMs);
    expect(first).not.toHaveProperty('awaitOutput');
    expect(first.eventTypes.map((type) => type.name)).toEqual([
      'tick',
      'tock',
      'process.cancel_requested',
      'process.completed',
      'process.failed',
      'process.cancelled',
    ]);
    // Neither the order of members nor that of types means anything.
    const again = { ...registration('p', [{ payloadSchema: true, name: 'tock' }, tick]), input: { b: [1.5, 'ä'], a: 1 } };
    expect(await store.registerProcess(again)).toEqual(first);
    const other = await failure(store.registerProcess(registration('p', [tick])));
    expect(other.message).toMatch(new RegExp(`^process \`p\` registration hash conflict: existing ${first.registrationHash}, new [0-9a-f]{64}$`));
    expect(other).toMatchObject({ name: 'ProcessRegistryError', processId: 'p' });
    await store.registerProcess(registration('q'));
    expect((await store.listNonTerminal()).map((process) => process.id)).toEqual(['p', 'q']);
    expect((await store.setExternalRef('p', { pid: 7 })).externalRef).toEqual({ pid: 7 });
    expect((await store.getProcess('p'))?.externalRef).toEqual({ pid: 7 });
    expect(await store.setExternalRef('p', null)).not.toHaveProperty('externalRef');
    expect(await said(store.setExternalRef('r', 1))).toBe('unknown process `r`');
  });

  test('events are numbered, and can be sent again', async () => {
    const store = await make();
    await store.registerProcess(registration('p', [{ name: 'tick', payloadSchema: { type: 'object', required: ['n'] } }]));
    await store.registerProcess(registration('q'));
    const sent = [1, 2, 3].map((n) => store.appendEvent('p', { eventType: 'tick', payload: { n }, ...(n === 2 ? { replayKey: 'k' } : {}) }));
    expect((await Promise.all(sent)).map(({ event }) => event.sequence)).toEqual([1, 2, 3]);
    expect((await store.appendEvent('q', { eventType: 'tick', payload: null })).event.sequence).toBe(1);
    const again = await store.appendEvent('p', { eventType: 'tick', payload: { n: 2 }, replayKey: 'k' });
    expect(again).toEqual(await sent[1]);
    expect(again.event).toMatchObject({ processId: 'p', eventType: 'tick', payload: { n: 2 }, replayKey: 'k' });
    expect(again).not.toHaveProperty('wakeDelivery');
    const append = (more: object): Promise<unknown> => store.appendEvent('p', { eventType: 'tick', payload: { n: 9 }, ...more });
    expect(await said(append({ replayKey: 'k' }))).toBe('process `p` event replay key `k` conflicts with an existing event');
    expect(await said(append({ eventType: 'tock' }))).toBe('process `p` emitted undeclared event type `tock`');
    expect(await said(append({ payload: [] }))).toBe('invalid `tick` payload: the payload must be of type object');
    expect(await said(append({ payload: {} }))).toBe('invalid `tick` payload: the payload must have `n`');
    expect(await said(append({ eventType: 'process.cancel_requested' }))).toBe(
      'process `p` event `process.cancel_requested` requires a deterministic replay key',
    );
    expect(await said(store.appendEvent('r', { eventType: 'tick', payload: 1 }))).toBe('unknown process `r`');
    expect((await store.eventsAfter('p', 1)).map((event) => event.payload)).toEqual([{ n: 2 }, { n: 3 }]);
    expect(await store.eventsAfter('p', 3)).toEqual([]);
    expect(await said(store.eventsAfter('r', 0))).toBe('unknown process `r`');
  });

  test('a process ends once, and those who wait hear how', async () => {
    const store = await make();
    const done: ProcessEventType = { name: 'done', terminal: { state: 'completed' } };
    const broke: ProcessEventType = { name: 'broke', terminal: { state: 'failed', awaitOutput: { pointer: '/out' } } };
    for (const id of ['a', 'b', 'c']) await store.registerProcess(registration(id, [tick, done, broke]));
    const waiting = store.awaitProcess('a');
    const success = { type: 'success', value: { exit: 0 } } as const;
    const ended = await store.completeProcess('a', success);
    expect(ended).toMatchObject({ status: 'completed', awaitOutput: success });
    expect(await waiting).toEqual(success);
    expect(await store.completeProcess('a', success)).toEqual(ended);
    expect(await said(store.completeProcess('a', { type: 'cancelled', message: 'm' }))).toBe('process `a` is already terminal');
    expect(await said(store.completeProcess('a', { type: 'success', value: 2 }))).toBe(
      'process `a` event replay key `process:a:terminal:process.completed` conflicts with an existing event',
    );
    expect(await store.eventsAfter('a', 0)).toMatchObject([
      { sequence: 1, eventType: 'process.completed', payload: { awaitOutput: success }, terminal: { state: 'completed', awaitOutput: success } },
    ]);
    // What is left to say may still be said.
    expect((await store.appendEvent('a', { eventType: 'tick', payload: 1 })).event.sequence).toBe(2);

    await store.appendEvent('b', { eventType: 'done', payload: [1], replayKey: 'end' });
    expect(await store.awaitProcess('b')).toEqual({ type: 'success', value: [1] });
    const out = { type: 'failure', class: 'io', code: 'E', message: 'm' };
    const fail = (payload: JsonValue): Promise<unknown> => store.appendEvent('c', { eventType: 'broke', payload, replayKey: 'end' });
    expect(await said(fail({}))).toBe('payload pointer `/out` did not match');
    expect(await said(fail({ out: 1 }))).toBe('invalid `broke` payload: its awaitOutput must be an object with a type');
    expect(await said(fail({ out: success }))).toBe('invalid `broke` payload: its awaitOutput must be of type failure');
    await fail({ out });
    expect(await store.getProcess('c')).toMatchObject({ status: 'failed', awaitOutput: out });
    expect(await store.listNonTerminal()).toEqual([]);
    expect(await said(store.awaitProcess('r'))).toBe('unknown process `r`');
  });

  test('a wake is told once, to one target', async () => {
    const store = await make();
    const types: ProcessEventType[] = [
      { name: 'said', wake: { when: { pointer: '/loud' }, input: { template: '{who}: {what}', fields: { who: { const: 'p' }, what: { pointer: '/text' } } } } },
      { name: 'state', wake: { input: 'payload', dedupeKey: { selector: { pointer: '/key' } } } },
    ];
    await store.registerProcess(registration('p', types, { provenance: { ownerScope: owner, hostProfileId: 'h', causedBy: { turn: 1 } } }));
    const to = { sessionId: 's', agentFrameId: 'f' };
    const loud = { eventType: 'said', payload: { loud: 1, text: { a: 1 } } };
    expect(await said(store.appendEvent('p', loud))).toBe('process `p` emitted wake event `said` without a wake target scope');
    expect(await store.eventsAfter('p', 0)).toEqual([]);
    const { event, wakeDelivery } = await store.appendEvent('p', { ...loud, replayKey: 'k', wakeTargetScope: to });
    expect(event.wake).toEqual({ input: 'p: {"a":1}', dedupeKey: 'p:1' });
    expect(wakeDelivery).toEqual({
      wakeId: expect.stringMatching(/^wake:[0-9a-f]{64}$/) as string,
      targetSessionId: 's',
      targetScopeId: 'session:s/frame:f',
      processId: 'p',
      sequence: 1,
      eventType: 'said',
      dedupeKey: 'p:1',
      input: 'p: {"a":1}',
      createdAtMs: event.occurredAtMs,
      processCausedBy: { turn: 1 },
    });
    // Sent again it says whom it woke, whatever the target is now.
    expect(await store.appendEvent('p', { ...loud, replayKey: 'k' })).toEqual({ event, wakeDelivery });
    expect(await store.appendEvent('p', { eventType: 'said', payload: { loud: '' } })).not.toHaveProperty('wakeDelivery');
    const state = (n: number): Promise<{ wakeDelivery?: { wakeId: string } }> =>
      store.appendEvent('p', { eventType: 'state', payload: { key: 'x', n }, wakeTargetScope: to });
    const [third, fourth] = [await state(3), await state(4)];
    expect(third.wakeDelivery?.wakeId).toBe(fourth.wakeDelivery?.wakeId);
    const wakes = async (seq: number): Promise<number[]> => (await store.wakeEventsAfter('p', seq)).map((wake) => wake.sequence);
    expect(await wakes(0)).toEqual([1, 3, 4]);
    for (const seq of [1, 1, 2, 99]) await store.ackWake('p', seq);
    expect([await wakes(0), await wakes(3)]).toEqual([[3, 4], [4]]);
    expect(await said(store.ackWake('r', 1))).toBe('unknown process `r`');
  });

  test('handles say who may deal with a process', async () => {
    const store = await make();
    for (const id of ['a', 'b', 'c', 'd']) await store.registerProcess(registration(id));
    const [s, f, t] = [{ sessionId: 's' }, { sessionId: 's', agentFrameId: 'f' }, { sessionId: 't' }];
    expect(await store.grantHandle(s, 'b', { kind: 'shell', label: 'B' })).toEqual({
      sessionId: 's',
      processId: 'b',
      descriptor: { kind: 'shell', label: 'B' },
    });
    await store.grantHandle(s, 'a', {});
    expect(await store.grantHandle(s, 'a', { label: 'A' })).toMatchObject({ descriptor: { label: 'A' } });
    await store.grantHandle(t, 'a', {});
    await store.grantHandle(f, 'a', { label: 'F' });
    await store.grantHandle(f, 'c', {});
    await store.grantHandle(s, 'd', {});
    expect(await said(store.grantHandle(s, 'r', {}))).toBe('unknown process `r`');
    expect(await store.handleGrantsForProcess('a')).toEqual([
      { sessionId: 's', processId: 'a', descriptor: { label: 'A' } },
      { sessionId: 's', agentFrameId: 'f', processId: 'a', descriptor: { label: 'F' } },
      { sessionId: 't', processId: 'a', descriptor: {} },
    ]);
    expect([await store.hasHandleGrant(s, 'c'), await store.hasHandleGrant(f, 'c')]).toEqual([false, true]);
    await store.completeProcess('d', { type: 'cancelled', message: 'm' });
    const held = async (scope: ProcessScope, liveOnly?: boolean): Promise<string[]> =>
      (await store.listHandleGrants(scope, liveOnly === undefined ? {} : { liveOnly })).map(({ grant, record }) => `${grant.processId} ${record.status}`);
    expect(await held(s)).toEqual(['a running', 'b running', 'd cancelled']);
    expect(await held(s, true)).toEqual(['a running', 'b running']);

    expect(await said(store.transferHandleGrants(s, t, ['b', 'c']))).toBe('process handle `c` is not granted to session `s`');
    expect(await held(t)).toEqual(['a running']);
    await store.transferHandleGrants(s, t, ['b', 'b']);
    expect([await held(s), await held(t)]).toEqual([
      ['a running', 'd cancelled'],
      ['a running', 'b running'],
    ]);
    expect((await store.handleGrantsForProcess('b'))[0]).toMatchObject({ sessionId: 't', descriptor: { kind: 'shell', label: 'B' } });
    await store.revokeHandle(t, 'b');
    await store.revokeHandle(t, 'b');
    expect(await store.hasHandleGrant(t, 'b')).toBe(false);

    const gone = { sessionId: 's', revokedHandleCount: 4, deletedWakeCount: 0, cancelProcessIds: ['c'], preservedProcessIds: ['a'] };
    expect(await store.deleteSessionProcessState('s')).toEqual(gone);
    expect(await store.deleteSessionProcessState('s')).toEqual({ ...gone, revokedHandleCount: 0, cancelProcessIds: [], preservedProcessIds: [] });
    expect((await store.getProcess('c'))?.status).toBe('running');
  });

  test('of owners one runs a process', async () => {
    const store = await make();
    await store.registerProcess(registration());
    const lease = await store.claimProcessLease('p', 'a', 60_000);
    expect(lease).toMatchObject({ schemaVersion: 1, processId: 'p', ownerId: 'a', fencingToken: 1, expiresAtEpochMs: lease.claimedAtEpochMs + 60_000 });
    expect(await said(store.claimProcessLease('p', 'b', 1))).toBe(`process \`p\` is already leased by \`a\` until ${lease.expiresAtEpochMs}`);
    const own = await store.claimProcessLease('p', 'a', 60_000);
    expect(own.fencingToken).toBe(2);
    expect(await said(store.renewProcessLease(lease, 1))).toBe('process lease for `p` is missing or expired');
    await store.completeProcessLease(lease);
    const longer = await store.renewProcessLease(own, 120_000);
    expect({ ...longer, expiresAtEpochMs: 0 }).toEqual({ ...own, expiresAtEpochMs: 0 });
    expect(longer.expiresAtEpochMs).toBeGreaterThan(own.expiresAtEpochMs);
    await store.completeProcessLease(longer);
    const other = await store.claimProcessLease('p', 'b', 0);
    expect(other.fencingToken).toBe(3);
    expect(await said(store.renewProcessLease(other, 1))).toBe('process lease for `p` is missing or expired');
    expect((await store.claimProcessLease('p', 'a', 9)).fencingToken).toBe(4);
    expect(await said(store.claimProcessLease('r', 'a', 9))).toBe('unknown process `r`');
    expect(await failure(store.renewProcessLease({ ...other, schemaVersion: 2 as 1 }, 1))).toMatchObject({
      name: 'UnsupportedRecordSchemaVersionError',
      message: 'process lease schema_version 2 is not supported by this binary (expected 1)',
    });
  });

  test('a validator of the caller replaces the schema, and keeps the order of writes', async () => {
    const asked: unknown[] = [];
    const validatePayload = async (schema: JsonValue, payload: JsonValue): Promise<string | undefined> => {
      asked.push([schema, payload]);
      await new Promise((resolve) => setTimeout(resolve, payload === 1 ? 20 : 0));
      if (payload === 'throw') throw new Error('thrown');
      return payload === 'bad' ? 'told' : undefined;
    };
    const store = await make({ validatePayload });
    const type = { name: 'odd', payloadSchema: { odd: true, type: 'null' } };
    const append = (payload: JsonValue, replayKey?: string): ReturnType<typeof store.appendEvent> =>
      store.appendEvent('p', { eventType: 'odd', payload, ...(replayKey === undefined ? {} : { replayKey }) });
    const first = await Promise.all([store.registerProcess(registration('p', [tick, type])), append(1), append(2, 'k'), store.claimProcessLease('p', 'o', 1)]);
    expect([first[1].event.sequence, first[2].event.sequence]).toEqual([1, 2]);
    expect(await said(append('bad'))).toBe('invalid `odd` payload: told');
    expect(await said(append('throw'))).toBe('invalid `odd` payload: thrown');
    expect(await said(append('bad', 'k'))).toBe('process `p` event replay key `k` conflicts with an existing event');
    const count = asked.length;
    await store.appendEvent('p', { eventType: 'tick', payload: 'bad' });
    expect(asked.length).toBe(count);
    expect(asked[0]).toEqual([{ odd: true, type: 'null' }, 1]);
    expect((await append(1)).event.sequence).toBe(4);
    await store.close();
    expect((await failure(append(2))).name).toBe('StoreClosedError');
  });

  test('what has ended can be forgotten', async () => {
    const store = await make();
    for (const id of ['runs', 'held', 'leased', 'old']) await store.registerProcess(registration(id));
    await Promise.all(Array.from({ length: 101 }, (_, n) => store.registerProcess(registration(`n${n}`)).then(() => store.completeProcess(`n${n}`, over))));
    const lease = await store.claimProcessLease('leased', 'a', 60_000);
    await store.grantHandle(owner, 'held', {});
    await store.appendEvent('old', { eventType: 'tick', payload: 1 });
    for (const id of ['held', 'leased', 'old']) await store.completeProcess(id, over);
    expect(await store.prune({ olderThanMs: 60_000 })).toBe(0);
    expect(await store.prune({ olderThanMs: 0 })).toBe(102);
    for (const id of ['runs', 'held', 'leased']) expect((await store.getProcess(id))?.id).toBe(id);
    expect([await store.getProcess('old'), await store.getProcess('n0')]).toEqual([null, null]);
    await store.revokeHandle(owner, 'held');
    await store.completeProcessLease(lease);
    expect(await store.prune({ olderThanMs: 0 })).toBe(2);
    expect(await store.prune({ olderThanMs: 0 })).toBe(0);
    // Nothing of the old life is left.
    await store.registerProcess(registration('old', [{ name: 'tock' }]));
    expect(await store.eventsAfter('old', 0)).toEqual([]);
    expect((await store.listNonTerminal()).map(({ id }) => id)).toEqual(['runs', 'old']);
    for (const bad of [{ olderThanMs: -1 }, {}, null]) expect((await failure(store.prune(bad as never))).name).toBe('InvalidArgumentError');
  });

  test('a slow validator holds up the events of its process, and nothing else', async () => {
    const answers: (() => void)[] = [];
    const store = await make({ validatePayload: (_, payload) => new Promise((resolve) => void (payload === 1 ? answers.push(() => resolve(undefined)) : resolve(undefined))) });
    const type = { name: 'slow', payloadSchema: true };
    for (const id of ['p', 'q']) await store.registerProcess(registration(id, [tick, type]));
    const lease = await store.claimProcessLease('p', 'o', 60_000);
    const landed: number[] = [];
    const append = (payload: number, eventType = 'slow'): Promise<unknown> =>
      store.appendEvent('p', { eventType, payload }).then(({ event }) => landed.push(event.payload as number));
    const waiting = [append(1), append(2), append(3, 'tick')];
    const ending = store.completeProcess('p', { type: 'success', value: null });
    await expect.poll(() => answers.length).toBe(1);
    // It would never come to an end if one of these waited for it.
    const renewed = await store.renewProcessLease(lease, 120_000);
    expect(renewed.expiresAtEpochMs).toBeGreaterThan(lease.expiresAtEpochMs);
    await store.grantHandle(owner, 'p', {});
    await store.registerProcess(registration('r'));
    expect((await store.appendEvent('q', { eventType: 'slow', payload: 2 })).event.sequence).toBe(1);
    expect(await store.eventsAfter('p', 0)).toEqual([]);
    expect((await store.getProcess('p'))?.status).toBe('running');
    answers[0]!();
    await Promise.all(waiting);
    expect(landed).toEqual([1, 2, 3]);
    expect((await ending).status).toBe('completed');
    expect((await store.eventsAfter('p', 0)).map((event) => event.eventType)).toEqual(['slow', 'slow', 'tick', 'process.completed']);
  });

  test('closing does not wait for a validator', async () => {
    let asked = 0;
    const store = await make({ validatePayload: () => (asked++, new Promise<undefined>(() => {})) });
    await store.registerProcess(registration('p', [{ name: 'slow', payloadSchema: true }]));
    const append = () => failure(store.appendEvent('p', { eventType: 'slow', payload: 1 }));
    const refused = [append(), append()];
    await expect.poll(() => asked).toBe(1);
    const late = append();
    await store.close();
    for (const told of [...refused, late]) expect(await told).toMatchObject({ name: 'StoreClosedError', hfCode: 'HF_CLOSED' });
    expect(asked).toBe(1);
    if (store.path !== null) expect(await (await open(store.path)).eventsAfter('p', 0)).toEqual([]);
  });

  test('a validator that writes what would wait for it is refused', async () => {
    const told: string[] = [];
    let later: Promise<unknown> | undefined;
    const validatePayload = async (_: JsonValue, payload: JsonValue): Promise<void> => {
      if (payload !== 'outer') return;
      await store.claimProcessLease('p', 'o', 1);
      const write = () => store.appendEvent('p', { eventType: 'slow', payload: 'inner' });
      told.push(await said(write()), await said(store.completeProcess('q', { type: 'success', value: 1 })));
      // Long after it has answered.
      later = store.awaitProcess('q').then(write);
    };
    const store = await make({ validatePayload });
    for (const id of ['p', 'q']) await store.registerProcess(registration(id, [{ name: 'slow', payloadSchema: true }]));
    await store.appendEvent('p', { eventType: 'slow', payload: 'outer' });
    const why = 'validatePayload cannot append events or complete processes of its own store, which would wait for it; do that after it has answered';
    expect(told).toEqual([`process \`p\` event \`slow\`: ${why}`, `process \`q\` event \`process.completed\`: ${why}`]);
    await store.completeProcess('q', { type: 'success', value: 1 });
    await later;
    expect((await store.eventsAfter('p', 0)).map((event) => event.payload)).toEqual(['outer', 'inner']);
  });

  test('what goes in comes out, and later changes do not count', async () => {
    const store = await make();
    let deep: JsonValue = 'é\u0000\ud83d';
    for (let n = 0; n < 1000; n++) deep = [deep];
    const input = { deep, large: Number.MAX_SAFE_INTEGER, small: 5e-324, '': null };
    const process = store.registerProcess(registration('p', [{ name: 'tick', payloadSchema: true }], { input }));
    const copy = structuredClone(input);
    input.large = 1;
    expect((await process).input).toEqual(copy);
    const { event } = await store.appendEvent('p', { eventType: 'tick', payload: deep });
    expect(event.payload).toEqual(deep);
    expect((await store.eventsAfter('p', 0))[0]?.payload).toEqual(deep);
  });

  test('bad arguments are refused before anything is written', async () => {
    const store = await make();
    await store.registerProcess(registration());
    for (const [message, change] of [
      ['process id must be a non-empty string', { id: '' }],
      ['process scope must be a non-empty string', { provenance: { ownerScope: { sessionId: '' }, hostProfileId: 'h' } }],
      ['process host profile id must be a non-empty string', { provenance: { ownerScope: owner, hostProfileId: '' } }],
      ['process event type name must be a non-empty string', { eventTypes: [{ name: '' }] }],
      ['process `x` declares duplicate event type `a`', { eventTypes: [{ name: 'a' }, { name: 'a' }] }],
      ['process `x` event type `a` is failed and requires awaitOutput', { eventTypes: [{ name: 'a', terminal: { state: 'failed' } }] }],
    ] as [string, Partial<ProcessRegistration>][]) {
      expect(await said(store.registerProcess({ ...registration('x'), ...change }))).toBe(message);
    }
    const selector = { name: 'a', wake: { input: { pointer: 'a' } } };
    for (const call of [
      () => store.registerProcess(registration('x', [selector])),
      () => store.registerProcess(registration('x', [], { input: undefined as unknown as null })),
      () => store.registerProcess(registration('x\0')),
      () => store.registerProcess(registration('x'.repeat(1025))),
      () => store.registerProcess(registration('x', [], { provenance: { ownerScope: { sessionId: 's/frame:f' }, hostProfileId: 'h' } })),
      () => store.registerProcess(registration('x', [], { input: 1n as unknown as null })),
      () => store.getProcess(''),
      () => store.eventsAfter('p', -1),
      () => store.waitEventAfter('p', 'tock', 0),
      () => store.waitEventAfter('p', 'tick', 0, { signal: {} as AbortSignal }),
      () => store.claimProcessLease('p', 'a', 2 ** 60),
      () => store.completeProcess('p', { type: 'failure', class: 'c', code: 'E' } as never),
      () => store.completeProcess('p', { type: 'done' } as never),
      () => store.grantHandle({ sessionId: '\ud800' }, 'p', {}),
      () => store.appendEvent('p', { eventType: 'tick', payload: undefined as unknown as null }),
    ]) {
      expect(await failure(call())).toMatchObject({ name: 'InvalidArgumentError', hfCode: 'HF_INVALID_ARGUMENT' });
    }
    expect(await store.getProcess('x')).toBeNull();
    expect((await store.getProcess('p'))?.status).toBe('running');
    expect(() => new (ProcessRegistryStore as unknown as new () => unknown)()).toThrow('use ProcessRegistryStore.open() or .memory()');
    await store.close();
    expect((await failure(store.getProcess('p'))).name).toBe('StoreClosedError');
  });
});

test('a wait ends with an event, a signal, or the store', async () => {
  const path = newFile();
  const [store, other] = [await open(path), await open(path)];
  await store.registerProcess(registration());
  await store.appendEvent('p', { eventType: 'tick', payload: 1 });
  expect((await store.waitEventAfter('p', 'tick', 0)).payload).toBe(1);
  const [second, third] = [store.waitEventAfter('p', 'tick', 1), store.waitEventAfter('p', 'tick', 2)];
  for (const payload of [2, 3]) await other.appendEvent('p', { eventType: 'tick', payload });
  expect([(await second).payload, (await third).payload]).toEqual([2, 3]);

  const early = new AbortController();
  const given = store.waitEventAfter('p', 'tick', 9, { signal: early.signal });
  const reason = new Error('enough');
  setTimeout(() => early.abort(reason), 10);
  expect(await failure(given)).toBe(reason);
  expect(await failure(store.awaitProcess('p', { signal: AbortSignal.abort(reason) }))).toBe(reason);
  const left = failure(store.awaitProcess('p'));
  await store.close();
  expect((await left).name).toBe('StoreClosedError');
  // The other handle of the file goes on.
  const ended = other.awaitProcess('p');
  await other.completeProcess('p', { type: 'cancelled', message: 'over' });
  expect(await ended).toEqual({ type: 'cancelled', message: 'over' });
});

test('a file is of one kind', async () => {
  const folder = tempDir();
  const [path, session] = [join(folder, 'p.db'), join(folder, 's.db')];
  const store = await open(path);
  expect([store.path, store.schemaVersion, store.durabilityTier()]).toEqual([path, 1, 'durable']);
  expect(statSync(path).mode & 0o777).toBe(process.platform === 'win32' ? 0o666 : 0o600);
  await store.registerProcess(registration());
  await store.appendEvent('p', { eventType: 'tick', payload: 1 });
  await store.close();
  const [normal, memory] = [await open(path, { durability: 'normal' }), await kept(ProcessRegistryStore.memory())];
  expect([normal.durabilityTier(), memory.durabilityTier(), memory.path]).toEqual(['processCrash', 'inline', null]);
  await normal.close();
  expect(raw(path, 'PRAGMA application_id')).toEqual([{ application_id: 0x4846_5052 }]);

  await (await SessionGraphStore.open(session)).close();
  expect(await failure(ProcessRegistryStore.open(session))).toMatchObject({
    name: 'UnsupportedSchemaError',
    kind: 'process registry',
    reason: 'foreign',
    message:
      'Unsupported holdfast process registry schema: this build supports schema version 1, but the database reports version 3. ' +
      'It is not a holdfast process registry database. The file was not changed.',
  });
  expect(await failure(SessionGraphStore.open(path))).toMatchObject({ kind: 'session', reason: 'foreign', found: 1 });
  raw(path, 'PRAGMA user_version = 9');
  expect(await failure(ProcessRegistryStore.open(path))).toMatchObject({ name: 'UnsupportedSchemaError', reason: 'newer', found: 9, expected: 1 });
  raw(path, 'PRAGMA user_version = 1', "UPDATE processes SET record_json = '{'", "UPDATE process_events SET event_json = 'x'");
  const damaged = await open(path);
  expect(await failure(damaged.getProcess('p'))).toMatchObject({ name: 'RecordDecodeError', table: 'processes', key: 'p' });
  expect(await failure(damaged.eventsAfter('p', 0))).toMatchObject({ name: 'RecordDecodeError', table: 'process_events', key: 'p:1' });
  expect((await failure(damaged.appendEvent('p', { eventType: 'tick', payload: 1 }))).name).toBe('RecordDecodeError');
  await damaged.registerProcess(registration('q'));

  const garbage = join(folder, 'g.db');
  writeFileSync(garbage, 'no database at all'.repeat(100));
  expect((await failure(ProcessRegistryStore.open(garbage))).name).toBe('StoreCorruptError');
  expect((await failure(ProcessRegistryStore.open(join(folder, 'none.db'), { migrate: 'never' }))).hfCode).not.toBe('HF_PANIC');
  expect((await failure(ProcessRegistryStore.open(join(folder, 'no', 'p.db')))).name).toBe('StoreIoError');
  const bad = { validatePayload: 1 } as unknown as ProcessRegistryOptions;
  for (const options of [bad, { blobProfile: 'compact' } as ProcessRegistryOptions, { busyTimeoutMs: -1 }]) {
    expect((await failure(ProcessRegistryStore.open(path, options))).name).toBe('InvalidArgumentError');
  }
});

describe('processes', () => {
  const child = (path: string, ...args: string[]): ReturnType<typeof startFixture> => startFixture('process-child.mjs', path, ...args);

  async function file(): Promise<{ path: string; store: ProcessRegistryStore }> {
    const path = newFile();
    const store = await open(path);
    await store.registerProcess(registration());
    return { path, store };
  }

  test('of two that claim at once one runs it', async () => {
    const { path, store } = await file();
    const outcomes = await race(['a', 'b'].map((owner) => child(path, 'race', owner)));
    expect(outcomes).toContain(1);
    expect(outcomes.filter((outcome) => String(outcome).startsWith('process `p` is already leased by `'))).toHaveLength(1);
    const lost = await failure(store.claimProcessLease('p', 'c', 1));
    expect(['a', 'b'][outcomes.indexOf(1)]).toBe(lost['ownerId']);
  });

  test('an event of another ends a wait', async () => {
    const { path, store } = await file();
    const [waits, idles] = [child(path, 'wait'), child(path, 'idle')];
    await waits.line('ready');
    const here = store.waitEventAfter('p', 'tick', 1);
    await store.appendEvent('p', { eventType: 'tick', payload: { from: 'parent' } });
    expect(JSON.parse(await waits.line('answer'))).toEqual({ from: 'parent' });
    const emits = child(path, 'emit');
    await emits.line('ready');
    emits.write('now');
    expect((await here).payload).toEqual({ from: 'child' });
    // Nobody closed these: what is neither asked nor waited for keeps nobody alive.
    expect((await waits.ended).code).toBe(0);
    expect((await idles.ended).code).toBe(0);
  });

  test('a killed one leaves all that it was told of', async () => {
    const { path, store } = await file();
    let next = 1;
    for (let round = 0; round < 3; round++) {
      const loop = child(path, 'append', String(next));
      await loop.line(`done ${next + 4 + round}`);
      await loop.kill();
      const told = Number(loop.lines.filter((line) => line.startsWith('done ')).at(-1)!.slice(5));
      const events = await store.eventsAfter('p', 0);
      expect(events.map((event) => [event.sequence, event.payload])).toEqual(events.map((_, index) => [index + 1, index + 1]));
      // One more may have landed; sent again it is the same.
      expect([told, told + 1]).toContain(events.length);
      const again = await store.appendEvent('p', { eventType: 'tick', payload: told + 1, replayKey: `k${told + 1}` });
      expect(again.event.sequence).toBe(told + 1);
      next = told + 2;
    }
  });
});
