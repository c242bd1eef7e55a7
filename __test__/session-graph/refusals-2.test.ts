// @pool forks: nothing here concerns threads.
/** What a caller who means harm, or slips, is told. */
import { EffectReplayStore, type EffectEnvelope, type EffectScope } from 'holdfast';
import { describe, expect, test } from 'vitest';

import { failure, newFile } from './support';

const TURN: EffectScope = { type: 'turn', id: 't' };
const effect = (replayKey: string, command: EffectEnvelope['command'] = 1): EffectEnvelope => ({ effectId: replayKey, kind: 'tool', replayKey, command });

describe('effects', () => {
  test('what runs is what was recorded, whatever becomes of the envelope', async () => {
    await using store = await EffectReplayStore.memory();
    const envelope = effect('k', { a: 1 });
    const asked = store.scoped(TURN).execute(envelope, ({ effectId, kind, command }) => [effectId, kind, command]);
    (envelope.command as { a: number }).a = 2;
    envelope.kind = 'other';
    expect(await asked).toEqual(['k', 'tool', { a: 1 }]);
    const replaced = effect('l', 'first');
    const second = store.scoped(TURN).execute(replaced, ({ command }) => command);
    replaced.command = 'second';
    expect(await second).toBe('first');
  });

  test('an effect inside its own run is refused at once; others nest', async () => {
    const path = newFile();
    await using store = await EffectReplayStore.open(path);
    await using other = await EffectReplayStore.open(path);
    const turn = store.scoped(TURN);
    const refusal = { hfCode: 'HF_INVALID_ARGUMENT', argument: 'envelope.replayKey', message: expect.stringContaining('wait for itself') as string };
    expect(await failure(turn.execute(effect('k'), () => turn.execute(effect('k'), () => 2)))).toMatchObject(refusal);
    const far = (): Promise<unknown> => other.scoped(TURN).execute(effect('l'), () => 3);
    let caught: unknown;
    const outcome = await turn.execute(effect('l'), () =>
      turn.execute(effect('m'), async () => {
        caught = await failure(far());
        return 4;
      }),
    );
    expect([outcome, caught]).toEqual([4, expect.objectContaining(refusal)]);
    // Of another scope, and of what is over: neither waits for itself.
    let later = Promise.resolve<unknown>(undefined);
    let go = (): void => {};
    const over = new Promise<void>((resolve) => (go = resolve));
    const mixed = turn.execute(effect('n'), () => {
      later = over.then(() => turn.execute(effect('n'), () => 'again'));
      return store.scoped({ type: 'process', id: 't' }).execute(effect('n'), () => 5);
    });
    expect(await mixed).toBe(5);
    go();
    expect(await later).toBe(5);
  });
});
