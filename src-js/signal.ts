import { native } from './native';

type CancelToken = InstanceType<typeof native.CancelToken>;

/**
 * Runs `start` with a token that is cancelled when `signal` aborts.
 *
 * Rejects with `signal.reason` itself: at once if it has aborted before, and otherwise when `start` rejects after the
 * abort. An abort that comes too late to stop the work changes nothing: the result stands. Without a signal the token is
 * never cancelled. The signal keeps no listener afterwards.
 */
export async function withSignal<T>(signal: AbortSignal | undefined, start: (token: CancelToken) => Promise<T>): Promise<T> {
  signal?.throwIfAborted();
  const token = new native.CancelToken();
  const onAbort = (): void => token.cancel();
  signal?.addEventListener('abort', onAbort, { once: true });
  try {
    return await start(token);
  } catch (thrown) {
    signal?.throwIfAborted();
    throw thrown;
  } finally {
    signal?.removeEventListener('abort', onAbort);
  }
}
