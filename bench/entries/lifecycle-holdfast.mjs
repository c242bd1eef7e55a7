// holdfast, as bench/lifecycle.mjs drives it.
import { Broadcaster, CdcPoller, LifecycleManager, openSessionStore } from '../../dist/lifecycle.mjs';

/** `target`: a folder, or `{ connectionString, schema }`. */
export async function openLifecycle(target) {
  const store = await openSessionStore(target);
  const lifecycle = new LifecycleManager({ store });
  if ((await store.getProject('bench')) === null) await store.upsertProject({ id: 'bench', path: '/bench' });
  const pollers = [];
  return {
    store,
    lifecycle,
    spawn: async () => {
      const { id } = await store.createSession({ projectId: 'bench' });
      await lifecycle.onSpawnCompleted(id, { runtimeHandle: { id: 'h', runtimeName: 'tmux' }, workspacePath: '/w' });
      return id;
    },
    observe: (id, { number, ci, checks, comments }) =>
      lifecycle.applyPrObservation(id, {
        fetched: true,
        url: `https://example.test/pull/${id}/${number}`,
        number,
        ci,
        checks: checks.map(({ name, commit, status, log }) => ({ name, commitHash: commit, status, logTail: log })),
        comments: comments.map(({ id: commentId, author, file, line, body }) => ({ commentId, author, file, line, body })),
      }),
    onChange: async (listener) => {
      const broadcaster = new Broadcaster();
      broadcaster.subscribe(({ seq, type }) => listener({ seq, kind: type }));
      const poller = new CdcPoller(store, broadcaster, { startSeq: await store.maxChangeLogSeq() });
      poller.start();
      pollers.push(poller);
      return () => poller.stop();
    },
    remove: (id) => store.deleteSession(id),
    close: async () => {
      for (const poller of pollers) await poller.stop();
      await store.close();
    },
  };
}
