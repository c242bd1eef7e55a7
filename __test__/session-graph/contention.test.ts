/** Several handles that do the same at the same moment: one order of calls, and no error that is not the caller's business. */
import { randomUUID } from 'node:crypto';

import { completionOf, type QueuedWorkClaim, type SessionGraphStore } from 'holdfast';
import { describe, expect, test } from 'vitest';

import { random } from './model/steps';
import { FIRST_SEED } from './model/round';
import { append, commit, connect, draft, newFile, node, open } from './support';

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
const used = { source: 's', model: 'm', usage: { inputTokens: 1, outputTokens: 0, cachedInputTokens: 0, reasoningTokens: 0 } };

const PLACES: { name: string; rounds: number; make: () => () => Promise<SessionGraphStore> }[] = [
  {
    name: 'file',
    rounds: 40,
    make: () => {
      const path = newFile();
      return () => open(path, { durability: 'normal' });
    },
  },
  {
    name: 'schema',
    rounds: 12,
    make: () => {
      const id = randomUUID();
      return () => connect(id);
    },
  },
];

describe.each(PLACES)('on one $name', ({ make, rounds }) => {
  const handles = async (count: number): Promise<SessionGraphStore[]> => {
    const one = make();
    return Promise.all(Array.from({ length: count }, one));
  };

  test('one turn that is sent by several at once is applied once, and all are told the same', async () => {
    const stores = await handles(3);
    for (let n = 1; n <= rounds; n++) {
      const turn = append([node(`n${n}`, n > 1 ? `n${n - 1}` : null)], {
        expectedHeadRevision: n - 1,
        usageDeltas: [used],
        turnCommit: { sessionId: 'root', turnId: `t${n}` },
        checkpoint: { turnState: n, toolState: { n } },
      });
      const answers = await Promise.all(stores.map((store) => store.commitRuntimeState(turn)));
      expect(new Set(answers.map((answer) => JSON.stringify(answer))).size).toBe(1);
      expect(answers[0]!.headRevision).toBe(n);
    }
    expect((await stores[0]!.tokenLedger())[0]?.usage.inputTokens).toBe(rounds);
  });

  test('one message that several enqueue at once is one batch', async () => {
    const stores = await handles(3);
    for (let n = 0; n < rounds; n++) {
      const batches = await Promise.all(stores.map((store, index) => store.enqueueQueuedWork(draft({ sourceKey: `k${n}`, payloads: [index] }))));
      expect(new Set(batches.map((batch) => JSON.stringify(batch))).size).toBe(1);
    }
    expect(await stores[0]!.listQueuedWork('root')).toHaveLength(rounds);
  });

  test('everything at once: only what a caller can act upon is refused', async () => {
    const stores = await handles(4);
    const allowed = ['HeadRevisionConflictError', 'QueuedWorkClaimExpiredError', 'MissingBlobError', 'NodeIdCollisionError'];
    const wrong: string[] = [];
    let [landed, revisions] = [0, new Set<number>()];
    const done: number[] = [];
    const worker = async (store: SessionGraphStore, index: number): Promise<void> => {
      const pick = random(FIRST_SEED + index);
      let claim: QueuedWorkClaim | null = null;
      for (let n = 0; n < rounds; n++) {
        const steps = [
          async () => {
            const head = (await store.loadSession({ scope: 'activePath' }))?.headRevision ?? 0;
            const { headRevision } = await store.commitRuntimeState(
              append([node(`w${index}-${n}`)], {
                expectedHeadRevision: pick(2) === 0 ? head : null,
                usageDeltas: [used],
                // The same parts as the others, in whatever order they come.
                checkpoint: { turnState: pick(3), toolState: pick(3), pluginSnapshot: pick(3), executionState: bytes(`state ${pick(3)}`) },
                committedAttachmentIds: [`a${pick(3)}`],
                ...(claim && { completedQueueClaims: [completionOf(claim)] }),
              }),
            );
            landed++;
            revisions.add(headRevision);
            if (claim) done.push(...claim.batches.map(({ enqueueSeq }) => enqueueSeq));
            claim = null;
          },
          async () => void (await store.enqueueQueuedWork(draft({ sourceKey: `k${pick(5)}`, mergeKey: 'payloadDefault' }))),
          async () => {
            claim ??= await store.claimReadyQueuedWork({ sessionId: 'root', ownerId: `o${index}`, leaseTtlMs: pick(2) * 60_000, boundary: 'idle', maxBatches: 2 });
          },
          async () => {
            if (claim) claim = await store.renewQueuedWorkClaim(claim, 60_000);
          },
          () => store.putNamedArtifact(`name ${pick(2)}`, bytes(`artifact ${pick(3)}`)),
          () => Promise.all([0, 1, 2].map((each) => store.putBlob(bytes(`blob ${(each + pick(3)) % 3}`)))),
          () => store.recordIntent({ attachmentId: `a${pick(3)}`, sessionId: 'root', canonicalUri: 'u', intentAtEpochMs: n }),
          () => store.forget(`a${pick(3)}`, { onlyIfUncommitted: true }),
          () => store.gcUnreachable(),
          () => store.tombstoneNodes([`w${pick(4)}-${pick(rounds)}`]),
          () => store.vacuum(),
          () => store.saveSessionMeta({ sessionId: 'root', sessionName: `name ${n}`, createdAt: 't', model: 'm' }),
          () => store.loadSession({ scope: 'fullGraph' }),
        ];
        await (steps[pick(4) === 0 ? 0 : pick(steps.length)]!() as Promise<unknown>).catch((error: Error) => {
          if (error.name === 'QueuedWorkClaimExpiredError') claim = null;
          if (!allowed.includes(error.name)) wrong.push(String(error));
        });
      }
    };
    await Promise.all(stores.map(worker));
    expect(wrong, `HOLDFAST_SEED=${FIRST_SEED}`).toEqual([]);
    // Each commit made a revision of its own, and no work was completed twice.
    expect([revisions.size, new Set(done).size]).toEqual([landed, done.length]);
    const head = await stores[0]!.stats();
    expect(head.headRevision).toBe(landed);
    expect(await stores[0]!.verify({ deep: true }), `HOLDFAST_SEED=${FIRST_SEED}`).toEqual([]);
    await stores[1]!.commitRuntimeState(commit());
    expect((await stores[0]!.gcUnreachable()).aborted).toBeUndefined();
  });
});
