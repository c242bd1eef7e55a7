/** Blobs, their collection, and attachments. The numbers are those of the acceptance checks. */
import { randomBytes } from 'node:crypto';

import { BlobDescriptors, type HydratedSessionCheckpoint } from 'holdfast';
import { describe, expect, test } from 'vitest';

import { KINDS, append, commit, draft, failure, newFile, node, open, raw } from './support';

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
const full: HydratedSessionCheckpoint = {
  turnState: { turnIndex: 1 },
  toolState: { tools: ['a'] },
  pluginSnapshot: { plugin: 1 },
  pluginSnapshotRevision: 5,
  executionState: new Uint8Array([1, 2, 3, 4]),
};

describe.each(KINDS)('in a $name', ({ make }) => {
  test('4: a collection takes the orphan and leaves the checkpoint', async () => {
    const store = await make();
    const orphan = await store.putArtifactBlob(BlobDescriptors.module, bytes('orphan'));
    const { checkpointRef, manifest } = await store.commitRuntimeState(commit({ checkpoint: full }));
    expect(await store.gcUnreachable()).toEqual({ rootCount: 1, retainedBlobCount: 4, deletedBlobCount: 1, freedBytes: 6 });
    expect(await store.getBlob(orphan)).toBeNull();
    for (const ref of [checkpointRef, manifest.toolStateRef!, manifest.pluginSnapshotRef!, manifest.executionStateRef!]) {
      expect(await store.getBlob(ref)).not.toBeNull();
    }
    const hydrated = { ...full, ...manifest };
    expect(await store.getCheckpoint(checkpointRef)).toEqual(hydrated);
    expect((await store.loadSession({ scope: 'fullGraph' }))?.checkpoint).toEqual(hydrated);
    expect(manifest.pluginSnapshotRevision).toBe(5);
    const text = new TextDecoder().decode((await store.getBlob(checkpointRef))!);
    expect(JSON.parse(text)).toEqual({ ...manifest, v: 1 });
  });

  test('names and retained references keep what they name', async () => {
    const store = await make();
    const { checkpointRef } = await store.putCheckpoint({ turnState: 0, toolState: 'pinned' });
    const retained = await store.putBlob(bytes('hidden in JSON'));
    await store.commitRuntimeState(commit({ retainedBlobRefs: [retained, checkpointRef] }));
    await store.putNamedArtifact('module:main', bytes('first'));
    const ref = await store.putNamedArtifact('module:main', bytes('second'));
    expect(await store.gcUnreachable()).toMatchObject({ rootCount: 4, deletedBlobCount: 1 });
    expect(await store.getNamedArtifact('module:main')).toEqual(bytes('second'));
    expect(await store.getBlob(ref)).toEqual(bytes('second'));
    expect(await store.getBlob(retained)).toEqual(bytes('hidden in JSON'));
    expect((await store.getCheckpoint(checkpointRef))?.toolState).toBe('pinned');
    expect(await store.getNamedArtifact('nobody')).toBeNull();
    expect(await store.getCheckpoint(`blake3:${'1'.repeat(64)}`)).toBeNull();
    await store.commitRuntimeState(commit());
    expect(await store.gcUnreachable({ minBlobAgeMs: 60_000 })).toMatchObject({ deletedBlobCount: 0 });
    expect((await store.gcUnreachable()).deletedBlobCount).toBeGreaterThan(1);
    expect(await store.verify({ deep: true })).toEqual([]);
  });

  test('28: bytes come back bit for bit, in each profile', async () => {
    const random = randomBytes(60_000);
    const looksLikeManifest = bytes('{"turnState":{},"v":1}');
    const text = bytes('to be, or not to be. '.repeat(50_000));
    for (const blobProfile of ['lowLatency', 'balanced', 'compact'] as const) {
      const store = await make({ blobProfile });
      for (const content of [random, new Uint8Array(), looksLikeManifest, text]) {
        const plain = await store.putBlob(content);
        expect(Buffer.compare((await store.getBlob(plain))!, content)).toBe(0);
        expect(await store.putArtifactBlob(BlobDescriptors.toolState, content)).toBe(plain);
        await store.gcUnreachable();
        const packed = await store.putArtifactBlob(BlobDescriptors.toolState, content);
        expect(Buffer.compare((await store.getBlob(packed))!, content)).toBe(0);
        await store.gcUnreachable();
      }
      const view = text.slice(6, 9);
      const ref = store.putBlob(view);
      view.fill(0);
      // The bytes were copied before the call returned.
      expect(await store.getBlob(await ref)).toEqual(bytes(' or'));
    }
  });

  test('36: a collection after every so many commits', async () => {
    const each = await make({ gcPolicy: { autoRunEveryCommits: 1 } });
    const orphan = await each.putBlob(bytes('orphan'));
    await each.commitRuntimeState(commit());
    expect(await each.getBlob(orphan)).toBeNull();
    const second = await make({ gcPolicy: { autoRunEveryCommits: 2 } });
    const other = await second.putBlob(bytes('orphan'));
    await second.commitRuntimeState(commit());
    await second.enqueueQueuedWork(draft());
    expect(await second.getBlob(other)).not.toBeNull();
    await second.commitRuntimeState(commit());
    expect(await second.getBlob(other)).toBeNull();
  });

  test('34: attachments', async () => {
    const store = await make();
    const intent = (attachmentId: string, intentAtEpochMs: number, sessionId = 'root') => ({
      attachmentId,
      sessionId,
      canonicalUri: `file:///data/${attachmentId}`,
      intentAtEpochMs,
    });
    for (const each of [intent('x', 100), intent('y', 100), intent('z', 300), intent('z', 999)]) await store.recordIntent(each);
    await store.commitRuntimeState(commit({ committedAttachmentIds: ['x', 'nobody'] }));
    await store.commitRefs('root', ['y', 'nobody']);
    expect(await store.listUncommitted(200)).toEqual([]);
    expect(await store.listUncommitted(300)).toEqual([{ ...intent('z', 300), committedAtEpochMs: null }]);
    expect(await store.forget('x', { onlyIfUncommitted: true })).toBe(false);
    expect(await store.forget('z')).toBe(true);
    expect(await store.forget('z')).toBe(false);
    await store.recordIntent(intent('x', 1, 'other'));
    expect(await store.listUncommitted(1)).toEqual([{ ...intent('x', 1, 'other'), committedAtEpochMs: null }]);
    expect(await store.forget('x', { sessionId: 'root' })).toBe(true);
    expect(await store.forget('x', { onlyIfUncommitted: true })).toBe(true);
  });
});

test('28: bytes are stored as bytes', async () => {
  const store = await open();
  await store.putBlob(randomBytes(100_000));
  await store.commitRuntimeState(commit({ checkpoint: { turnState: 1, toolState: 'many '.repeat(20_000) } }));
  const path = store.path!;
  await store.close();
  const rows = raw(path, 'SELECT kind, codec, raw_len, length(content) AS size FROM blobs ORDER BY raw_len DESC');
  expect(rows[0]).toMatchObject({ kind: 'toolState', codec: 1, raw_len: 100_002 });
  expect(rows[0]!.size).toBeLessThan(2000);
  expect(rows[1]).toEqual({ kind: 'genericBlob', codec: 0, raw_len: 100_000, size: 100_000 });
  expect(raw(path, 'PRAGMA auto_vacuum')).toEqual([{ auto_vacuum: 2 }]);
});

test.each([
  ['undecodable', `UPDATE blobs SET content = x'7b' WHERE kind = 'checkpointManifest'`],
  ['an empty object', `UPDATE blobs SET content = CAST('{}' AS BLOB) WHERE kind = 'checkpointManifest'`],
  ['another manifest', `UPDATE blobs SET content = CAST('{"turnState":{},"v":1}' AS BLOB) WHERE kind = 'checkpointManifest'`],
  ['gone', `DELETE FROM blobs WHERE kind = 'checkpointManifest'`],
  ['behind a damaged head', `UPDATE session_head SET head_json = '{'`],
])('5: nothing is collected where the manifest is %s', async (_name, damage) => {
  const path = newFile();
  const before = await open(path);
  const { manifest } = await before.commitRuntimeState(commit({ checkpoint: full }));
  const orphan = await before.putBlob(bytes('orphan'));
  await before.close();
  raw(path, damage);
  const store = await open(path);
  const report = await store.gcUnreachable();
  expect(report).toMatchObject({ rootCount: 0, retainedBlobCount: 0, deletedBlobCount: 0, freedBytes: 0, aborted: { reason: expect.any(String) } });
  for (const ref of [orphan, manifest.toolStateRef!]) expect(await store.getBlob(ref)).not.toBeNull();
  expect(await failure(store.loadSession({ scope: 'fullGraph' }))).toMatchObject({
    hfCode: expect.stringMatching(/^HF_GRAPH_(RECORD_DECODE|BLOB_CORRUPT|MISSING_BLOB)$/),
  });
  expect((await store.loadSession({ scope: 'fullGraph' }, { tolerant: true }))?.problems).toHaveLength(1);
  expect(await store.verify({ deep: true })).not.toEqual([]);
});

test.each(['toolState', 'pluginSnapshot', 'executionState'] as const)('29: a flipped byte of the %s is never handed out', async (component) => {
  const path = newFile();
  const before = await open(path);
  const { manifest } = await before.commitRuntimeState(append([node('a')], { checkpoint: { ...full, toolState: 'long '.repeat(2000) } }));
  await before.close();
  const ref = manifest[`${component}Ref`]!;
  const at = component === 'toolState' ? 21 : 2;
  raw(path, `UPDATE blobs SET content = CAST(substr(content, 1, ${at - 1}) || x'00' || substr(content, ${at + 1}) AS BLOB) WHERE hash = '${ref}'`);
  const store = await open(path);
  const corrupt = { name: 'BlobCorruptError', hfCode: 'HF_GRAPH_BLOB_CORRUPT', ref };
  expect(await failure(store.getBlob(ref))).toMatchObject(corrupt);
  expect(await failure(store.loadSession({ scope: 'fullGraph' }))).toMatchObject({ ...corrupt, component });
  const rest = (await store.loadSession({ scope: 'activePath' }, { tolerant: true }))!;
  expect(rest.problems).toEqual([{ kind: 'blob', key: ref, detail: expect.any(String) }]);
  const { [component]: lost, ...others } = { ...full, ...manifest, toolState: 'long '.repeat(2000) };
  expect(lost).toBeDefined();
  expect(rest.checkpoint).toEqual(others);
  expect(rest.graph.nodes).toHaveLength(1);
});

test('36: a collection that cannot tell what is alive leaves the commit alone', async () => {
  const path = newFile();
  const before = await open(path);
  await before.putNamedArtifact('kept', bytes('kept'));
  const orphan = await before.putBlob(bytes('orphan'));
  await before.close();
  raw(path, `DELETE FROM blobs WHERE hash = (SELECT blob_ref FROM artifact_refs)`);
  const store = await open(path, { gcPolicy: { autoRunEveryCommits: 1 } });
  expect((await store.commitRuntimeState(append([node('a')]))).headRevision).toBe(1);
  expect(await store.getBlob(orphan)).not.toBeNull();
  expect(await store.gcUnreachable()).toMatchObject({ deletedBlobCount: 0, aborted: { ref: expect.stringMatching(/^blake3:/) } });
});
